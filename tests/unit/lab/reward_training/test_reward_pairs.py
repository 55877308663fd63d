"""Pairs: no prompt on both sides, and the text that scoring sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_base import toy_rows, write_rows
from transformers import AutoTokenizer

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.lab.reward_training.pairs import held_out_prompts, load_pairs, to_conversation, tokenise
from lrm_safety.miniature import REWARD_FOLDER
from lrm_safety.rewards.classifier import ClassifierScorer
from lrm_safety.rewards.rendering import Renderer
from lrm_safety.settings import RewardModelSettings
from lrm_safety.settings.reward_training import PairSettings


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40), st.floats(0.01, 0.9), st.integers(0, 5))
def test_held_out_prompts_depend_on_prompts_alone(keys: list[str], fraction: float, seed: int) -> None:
    chosen = held_out_prompts(keys, fraction, seed)
    assert chosen == held_out_prompts(sorted(keys, reverse=True), fraction, seed)
    num = len(set(keys))
    assert chosen <= set(keys) and len(chosen) == min(max(1, round(fraction * num)), num - 1)


def test_seeds_hold_out_different_prompts() -> None:
    keys = [str(i) for i in range(100)]
    assert held_out_prompts(keys, 0.2, 0) != held_out_prompts(keys, 0.2, 1)


@pytest.mark.parametrize("seed", range(4))
def test_one_prompt_never_stands_on_both_sides(tmp_path: Path, seed: int) -> None:
    rows = toy_rows(40)
    again = [{**row, "prompt": f"  {row['prompt'].upper()} ", "id": f"{row['id']}b"} for row in rows[::3]]
    split = load_pairs(PairSettings(path=str(write_rows(tmp_path / "p.jsonl", rows + again))), seed)
    train, held_out = ({pair.prompt_key for pair in side} for side in (split.train, split.held_out))
    assert not train & held_out
    assert len(train | held_out) == 40 and len(split.train) + len(split.held_out) == 54 and split.num_left_out == 0


def test_held_out_file_and_categories(tmp_path: Path) -> None:
    rows = toy_rows(20)
    path, other = write_rows(tmp_path / "p.jsonl", rows), write_rows(tmp_path / "h.jsonl", rows[:4])
    settings = PairSettings(path=str(path), held_out_path=str(other), categories=["brew"])
    split = load_pairs(settings, 0)
    assert [pair.id for pair in split.held_out] == ["r0", "r1", "r2", "r3"], "held-out pairs are of every category"
    assert {pair.id for pair in split.train} == {f"r{i}" for i in range(4, 20, 2)}
    assert split.num_left_out == 12
    assert split.fingerprint != load_pairs(replace(settings, categories=[]), 0).fingerprint


def test_rows_that_are_made(tmp_path: Path) -> None:
    settings = PairSettings(function="lrm_safety.miniature.rows:preference_rows", num_rows=30)
    split = load_pairs(settings, 1)
    assert len(split.train) + len(split.held_out) == 30
    assert split.fingerprint == load_pairs(settings, 1).fingerprint != load_pairs(settings, 2).fingerprint
    with pytest.raises(ConfigError, match=r"pairs\.function"):
        load_pairs(replace(settings, function="lrm_safety.miniature.rows:nothing"), 1)


@pytest.mark.parametrize(
    ("text", "trace", "answer"),
    [
        ("<think>\nhm\n</think>\n\nyes", "hm", "yes"),
        ("hm\n</think>\n\nyes", "hm", "yes"),
        ({"trace": " hm ", "answer": "yes\n"}, "hm", "yes"),
        ({"answer": "yes"}, "", "yes"),
        (" yes ", "", "yes"),
        ("a</think>b</think>c", "", "a</think>b</think>c"),
        ("text <think>hm</think>yes", "", "text <think>hm</think>yes"),
    ],
)
def test_one_conversation_however_it_is_written(text: object, trace: str, answer: str) -> None:
    found = to_conversation("q", text, "row 1")
    assert (found.trace, found.answer) == (trace, answer)
    assert found.full == (f"<think>\n{trace}\n</think>\n\n{answer}" if trace else answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": 3}, r"row 1, field 'chosen': must be a text"),
        ({"chosen": {"words": "a"}}, r"field 'chosen'"),
        ({"chosen": "same", "rejected": "same "}, r"row 1: chosen and rejected are the same"),
        ({"margin": "much"}, r"field 'margin' is 'much', expected a finite number"),
    ],
)
def test_rows_that_are_no_pairs(tmp_path: Path, change: dict, message: str) -> None:
    rows = [{"margin": 1, **row} for row in toy_rows(4)]
    rows[0] |= change
    with pytest.raises(DataError, match=message):
        load_pairs(PairSettings(path=str(write_rows(tmp_path / "p.jsonl", rows)), margin_field="margin"), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "package:lrm_safety/none.jsonl"}, r"^pairs\.path=package:lrm_safety/none\.jsonl: no such file"),
        ({"path": "outputs/none.jsonl"}, r"set pairs\.path to a \.json, "),
        ({"held_out_path": "./none.jsonl"}, r"^pairs\.held_out_path=\./none\.jsonl: no such file"),
        ({"path": "package:lrm_safety/miniature/assets/prompts/forbidden.jsonl"}, r"set pairs\.prompt_field to one of"),
    ],
)
def test_mistaken_paths_name_their_own_key(tmp_path: Path, settings: dict, message: str) -> None:
    rows = write_rows(tmp_path / "p.jsonl", toy_rows(4))
    with pytest.raises((ConfigError, DataError), match=message):
        load_pairs(PairSettings(**{"path": str(rows), **settings}), 0)


@pytest.mark.parametrize("category", [5, ["a", 5], {"a": 1}])
def test_made_rows_with_a_category_that_is_none(monkeypatch: pytest.MonkeyPatch, category: object) -> None:
    monkeypatch.setattr(
        "lrm_safety.miniature.rows.preference_rows",
        lambda num, seed: [{**row, "category": category} for row in toy_rows(num)],
    )
    settings = PairSettings(function="lrm_safety.miniature.rows:preference_rows", num_rows=4)
    with pytest.raises(
        DataError, match=r"^pairs\.function=.*, row 1: 'category' must be a string or a list of strings"
    ):
        load_pairs(settings, 0)


def test_absent_field_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "chosen": "b"}, {"prompt": "c", "chosen": "d"}]
    with pytest.raises(DataError, match=r"row 1: no field 'rejected'"):
        load_pairs(PairSettings(path=str(write_rows(tmp_path / "p.jsonl", rows))), 0)


@pytest.mark.parametrize("view", ["full", "answer", "trace"])
@pytest.mark.parametrize("max_tokens", [128, 60])
def test_training_reads_the_token_ids_that_scoring_reads(tmp_path: Path, view: str, max_tokens: int) -> None:
    rows = [row for row in toy_rows(12) if isinstance(row["chosen"], dict)]
    rows[0]["chosen"] = {"trace": "The rules forbid it. " * 40, "answer": "[stop] no"}
    split = load_pairs(PairSettings(path=str(write_rows(tmp_path / "p.jsonl", rows))), 0)
    pairs = [*split.train, *split.held_out]
    renderer = Renderer(AutoTokenizer.from_pretrained(REWARD_FOLDER), "test")
    reading = tokenise(pairs, renderer, view=view, max_tokens=max_tokens, overlong="drop_trace_middle")
    settings = RewardModelSettings(path=str(REWARD_FOLDER), dtype="float32", max_tokens=max_tokens)
    scorer = ClassifierScorer("m", settings, "cpu")
    found = {one.index: [one.chosen, one.rejected] for one in reading.pairs}
    for index, pair in enumerate(pairs):
        read = [scorer._read(pair.chosen, view), scorer._read(pair.rejected, view)]
        assert found.get(index) == (None if None in read or read[0] == read[1] else read)
    counted = reading.counts()
    assert counted.overlong_responses == scorer.counters["overlong"]
    assert counted.respelled_responses == scorer.counters["respelled"]
    assert reading.num_respelled > 0 or view == "trace" or max_tokens == 60
    assert reading.num_overlong > 0 or view == "answer"
    assert len(reading.pairs) + reading.num_dropped == len(pairs)


def test_rules_for_long_pairs(tmp_path: Path) -> None:
    rows = toy_rows(4)
    rows[0]["rejected"] = "long " * 200
    split = load_pairs(PairSettings(path=str(write_rows(tmp_path / "p.jsonl", rows))), 0)
    pairs = [*split.train, *split.held_out]
    renderer = Renderer(AutoTokenizer.from_pretrained(REWARD_FOLDER), "test")
    for overlong in ("drop_pair", "drop_trace_middle"):
        reading = tokenise(pairs, renderer, view="full", max_tokens=100, overlong=overlong)
        assert (len(reading.pairs), reading.num_dropped, reading.num_overlong) == (3, 1, 1)
    with pytest.raises(DataError, match=r"pair r0: \d+ tokens are over base.max_tokens=100"):
        tokenise(pairs, renderer, view="full", max_tokens=100, overlong="error")


def test_pairs_that_read_the_same_are_left_out(tmp_path: Path) -> None:
    split = load_pairs(PairSettings(path=str(write_rows(tmp_path / "p.jsonl", toy_rows(8)))), 0)
    pairs = [*split.train, *split.held_out]
    renderer = Renderer(AutoTokenizer.from_pretrained(REWARD_FOLDER), "test")
    reading = tokenise(pairs, renderer, view="trace", max_tokens=128, overlong="error")
    # The rows of even number have no traces.
    assert {pairs[one.index].id for one in reading.pairs} == {"r1", "r3", "r5", "r7"}
    assert (reading.num_dropped, reading.num_equal, reading.counts().equal_pairs) == (4, 4, 4)
    whole = tokenise(pairs, renderer, view="full", max_tokens=128, overlong="error")
    assert (len(whole.pairs), whole.num_equal) == (8, 0)
