"""Rows to supervised targets: every family writes its own, nothing is cut, and mistakes name their row."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lrm_safety.conversation.families import FAMILIES, get_family
from lrm_safety.conversation.response import ResponseParser
from lrm_safety.datasets.prompts import PromptSet, load_prompts
from lrm_safety.datasets.supervised import SupervisedRow, hold_out, render_supervised
from lrm_safety.errors import DataError

STAR1 = "<think>\nHmm, wait.\n</think>\n\nSo."
# What follows the prompt of each family, written out by hand.
FAMILY = {
    "deepseek_r1_distill": "Hmm, wait.\n</think>\n\nSo.<｜end▁of▁sentence｜>",
    "qwen3": "<think>\nHmm, wait.\n</think>\n\nSo.<|im_end|>",
    "granite_4_tiny_preview": "<think>Hmm, wait.</think><response>So.</response><|end_of_text|>",
    "plain": "So.<|im_end|>",
    "miniature": "Hmm, wait.\n</think>\n\nSo.<|end|>",
}
ENDS = {name: text[text.index("So.") + 3 :].removeprefix("</response>") for name, text in FAMILY.items()}


def rows_of(tmp_path: Path, *rows: dict) -> PromptSet:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": f"r{i}", "question": "Why?"} | row for i, row in enumerate(rows)]))
    return load_prompts(str(path))


def rendered(tokenizer_of, prompts: PromptSet, family: str = "qwen3", **options):
    tokenizer = tokenizer_of(family)
    return render_supervised(prompts, get_family(family), tokenizer, **({"max_sequence_tokens": 4096} | options))


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_of_every_family(tokenizer_of, tmp_path: Path, family: str) -> None:
    found = rendered(tokenizer_of, rows_of(tmp_path, {"response": STAR1}), family)
    (row,), tokenizer = found.rows, tokenizer_of(family)
    assert row.prompt_ids.tolist() == get_family(family).render_prompt(tokenizer, "Why?")
    assert tokenizer.decode(row.response_ids.tolist()) == FAMILY[family]
    assert row.response_ids[-1] == get_family(family).stop_token_ids(tokenizer)[0]
    parsed = ResponseParser(get_family(family), tokenizer).parse(row.response_ids.tolist(), "stop")
    assert parsed.complete and parsed.answer == "So."
    assert row.num_trace_tokens == parsed.num_trace_tokens
    assert (
        tokenizer.decode(row.response_ids[: row.num_trace_tokens].tolist())
        .rstrip("<")
        .endswith("</think>" if get_family(family).writes_trace else "")
    )
    assert found.num_dropped == 0 and (row.index, row.id) == (0, "r0")


@pytest.mark.parametrize("family", FAMILIES)
def test_raw_targets_reproduce_the_mismatch(tokenizer_of, tmp_path: Path, family: str) -> None:
    (row,) = rendered(tokenizer_of, rows_of(tmp_path, {"response": STAR1}), family, targets="raw").rows
    tokenizer = tokenizer_of(family)
    text = tokenizer.decode([*row.prompt_ids.tolist(), *row.response_ids.tolist()])
    assert text.endswith(STAR1 + ENDS[family])
    # The prompts of these two open the trace already: the model is trained to open it again.
    twice = text.removesuffix(STAR1 + ENDS[family]).rstrip().endswith("<think>")
    assert twice == (family in ("deepseek_r1_distill", "miniature"))
    assert "<response>" not in text.removesuffix(STAR1 + ENDS[family]).rpartition("assistant")[2]


def test_a_column_of_its_own_for_the_trace(tokenizer_of, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"thought": "Hmm, wait.", "reply": "So."})
    options = {"trace_field": "thought", "response_field": "reply"}
    for family in FAMILIES:
        (row,) = rendered(tokenizer_of, rows, family, **options).rows
        assert tokenizer_of(family).decode(row.response_ids.tolist()) == FAMILY[family]


def test_a_family_without_traces_takes_a_bare_answer(tokenizer_of, tmp_path: Path) -> None:
    (row,) = rendered(tokenizer_of, rows_of(tmp_path, {"response": " So. "}), "plain").rows
    assert tokenizer_of("plain").decode(row.response_ids.tolist()) == FAMILY["plain"]
    assert row.num_trace_tokens == 0


def test_traces_that_a_family_does_not_write_are_left_out_aloud(tokenizer_of, tmp_path: Path, caplog) -> None:
    rows = rows_of(tmp_path, {"response": STAR1}, {"response": " So. "})
    with caplog.at_level(logging.WARNING):
        assert len({row.response_ids.tobytes() for row in rendered(tokenizer_of, rows, "plain").rows}) == 1
        (record,) = caplog.records
        assert "those of 1 rows are left out" in record.message and "sft.targets=raw" in record.message
        caplog.clear()
        rendered(tokenizer_of, rows, "plain", targets="raw")
        rendered(tokenizer_of, rows_of(tmp_path, {"response": " So. "}), "plain")
        rendered(tokenizer_of, rows_of(tmp_path, {"response": STAR1}), "qwen3")
        assert not caplog.records


GOOD = {"response": STAR1}
MISTAKES = {
    "no field": ({"reply": "So."}, {}, r"no field 'response'; set sft\.response_field to one of reply"),
    "null": ({"response": None}, {}, "field 'response' is null"),
    "number": ({"response": 3}, {}, "field 'response' is a int"),
    "blank": ({"response": " \n"}, {}, "field 'response' is empty"),
    "no tags": ({"response": "So."}, {}, "one <think>trace</think>"),
    "cut off": ({"response": "<think>\nHmm"}, {}, "one <think>trace</think>"),
    "two traces": ({"response": STAR1 + STAR1}, {}, "one <think>trace</think>"),
    "no answer": ({"response": "<think>\nHmm\n</think>\n\n"}, {}, "has no answer"),
    "no trace": ({"response": "<think>\n\n</think>\n\nSo."}, {}, "has no trace"),
    "trace field": ({"response": "So."}, {"trace_field": "thought"}, r"no field 'thought'; set sft\.trace_field"),
    "tag in a field": ({"response": "So </think>", "t": "Hm"}, {"trace_field": "t"}, "holds </think>"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_its_row(tokenizer_of, tmp_path: Path, name: str) -> None:
    bad, options, message = MISTAKES[name]
    good = GOOD | {"response": "So.", "t": "Hm", "thought": "Hm"} if options else GOOD
    with pytest.raises(DataError, match=message) as refused:
        rendered(tokenizer_of, rows_of(tmp_path, good, bad), **options)
    assert str(refused.value).startswith(f"{tmp_path}/rows.json, row 2 (id r1): ")


def test_long_rows_are_refused_or_left_out_and_counted_never_cut(
    tokenizer_of, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = "<think>\n" + "wait, " * 50 + "\n</think>\n\nSo."
    rows = rows_of(tmp_path, GOOD, {"response": long}, GOOD)
    whole = rendered(tokenizer_of, rows)
    limit = whole.rows[0].num_tokens
    with pytest.raises(DataError, match=rf"row 2 \(id r1\): \d+ tokens are over sft\.max_sequence_tokens={limit}"):
        rendered(tokenizer_of, rows, max_sequence_tokens=limit)
    with caplog.at_level(logging.WARNING):
        found = rendered(tokenizer_of, rows, max_sequence_tokens=limit, overlong="drop")
    assert [row.id for row in found.rows] == ["r0", "r2"] and found.num_dropped == 1
    assert "1 of 3 rows" in caplog.text and "left out" in caplog.text
    assert found.rows[1].response_ids.tolist() == whole.rows[2].response_ids.tolist()
    assert found.fingerprint == whole.fingerprint, "the data are the same, the limit is part of the configuration"
    with pytest.raises(DataError, match="row 1"):
        rendered(tokenizer_of, rows, max_sequence_tokens=limit - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_end_token_at_the_end_is_taken_off(tokenizer_of, tmp_path: Path, family: str) -> None:
    end = str(tokenizer_of(family).convert_ids_to_tokens(get_family(family).stop_token_ids(tokenizer_of(family))[0]))
    prompts = rows_of(tmp_path, {"response": STAR1}, {"response": f"{STAR1}{end}"}, {"response": f"{STAR1}{end}\n"})
    for targets in ("family", "raw"):
        first, *others = rendered(tokenizer_of, prompts, family, targets=targets).rows
        for other in others:
            assert other.response_ids.tolist() == first.response_ids.tolist()
            assert other.response_ids.tolist().count(first.response_ids[-1]) == 1


@pytest.mark.parametrize("targets", ["family", "raw"])
@pytest.mark.parametrize(
    "response",
    [
        "<think>a</think>b<|end|><|end|>",
        "<think>a</think>b<|end|><|user|>next turn",
        "<think>a<|end|>c</think>b",
        "<think>a</think><|user|>b",
        "<|end|>",
    ],
)
def test_a_control_token_inside_a_response_names_its_row(
    tokenizer_of, tmp_path: Path, response: str, targets: str
) -> None:
    prompts = rows_of(tmp_path, {"response": STAR1}, {"response": response})
    with pytest.raises(DataError, match=r"rows\.json, row 2 \(id r1\): the response .*mend or drop the row"):
        rendered(tokenizer_of, prompts, "miniature", targets=targets)


def test_control_tokens_of_a_question_are_broken_and_counted(tokenizer_of, tmp_path: Path, caplog) -> None:
    prompts = rows_of(tmp_path, {"response": STAR1}, {"question": "Why?<|end|><|user|>", "response": STAR1})
    with caplog.at_level(logging.WARNING):
        found = rendered(tokenizer_of, prompts, "miniature")
    assert found.num_respelled == 1 and "1 of 2 questions spell out control tokens" in caplog.text
    text = tokenizer_of("miniature").decode(found.rows[1].prompt_ids.tolist())
    assert "Why?< |end|>< |user|>" in text
    assert found.token_fingerprint != rendered(tokenizer_of, rows_of(tmp_path, {"response": STAR1})).token_fingerprint


def test_the_fingerprint_is_of_questions_and_responses(tokenizer_of, tmp_path: Path) -> None:
    def fingerprint(row: dict, family: str = "qwen3") -> str:
        return rendered(tokenizer_of, rows_of(tmp_path, row), family).fingerprint

    usual = fingerprint(GOOD)
    assert fingerprint(GOOD | {"unread": 1}) == usual == fingerprint(GOOD, "miniature")
    assert len({usual, fingerprint(GOOD | {"id": "x"}), fingerprint({"response": STAR1 + " "})}) == 3
    assert fingerprint(GOOD | {"question": "How?"}) != usual


def row(index: int) -> SupervisedRow:
    return SupervisedRow(index, str(index), None, None, 0)  # type: ignore[arg-type]


def test_held_out_rows() -> None:
    rows = [row(index) for index in range(40)]
    train, held = hold_out(rows, 0.1, seed=3)
    assert len(held) == 4 and sorted(r.index for r in train + held) == list(range(40))
    assert [r.index for r in train] == sorted(r.index for r in train)
    assert hold_out(rows, 0.1, seed=3) == (train, held)
    assert hold_out(rows, 0.1, seed=4)[1] != held
    assert hold_out(rows, 0.0, seed=3) == (rows, [])
    assert len(hold_out(rows, 0.001, seed=3)[1]) == 1
