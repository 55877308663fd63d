"""What is asked: order, repeats, seeds, prefilled beginnings and prompts that do not fit."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_evaluations import POLICY, no_loader

from lrm_safety.conversation.families import get_family
from lrm_safety.datasets.serialised import Source
from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.attacks import AttackedPrompt
from lrm_safety.evaluation.benchmarks.registry import Asked, Benchmark, Question
from lrm_safety.evaluation.plan import (
    PlannedBenchmark,
    Planner,
    choose_protocol,
    load_questions,
    num_samples,
    request_seed,
)
from lrm_safety.modeling.configuration import load_tokenizer
from lrm_safety.rollouts import SamplingParameters
from lrm_safety.settings import BenchmarkSettings, EvaluationSettings, ModelSettings

TRAINING = SamplingParameters(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=33, stop_token_ids=(1,))
GRADER = f"{__name__}:never_called"


def never_called(row: dict[str, Any], trace: str, answer: str, finished: bool) -> float:
    raise AssertionError("a plan grades nothing")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ModelSettings(name="miniature", path=str(POLICY), family="miniature"))


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": name, "question": f"Question {name}?"} for name in "abcd"]
    rows[2]["question"] = "Question c? " * 40
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def plan(
    tokenizer: Any, path: str, *, room: int = 4000, family: str = "miniature", one: dict[str, Any] | None = None, **more
) -> PlannedBenchmark:
    evaluation = EvaluationSettings(
        benchmarks={"mine": BenchmarkSettings("custom", {"path": path, "grader": GRADER}, **(one or {}))}, **more
    )
    protocol = choose_protocol(evaluation, get_family("miniature"), TRAINING)
    planner = Planner(
        get_family(family), tokenizer, system_prompt=None, max_prompt_tokens=room, limit_key="the context"
    )
    (planned,) = planner.plan(evaluation, protocol)
    return planned


def test_order_repeats_and_prompts(tokenizer: Any, prompts: str) -> None:
    planned = plan(tokenizer, prompts, one={"samples": 3})
    assert [(ask.question.id, ask.repeat) for ask in planned.asks] == [(q, r) for q in "abcd" for r in range(3)]
    assert planned.samples == 3 and planned.num_skipped == 0 and planned.name == "mine"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Question b?"}], add_generation_prompt=True, return_dict=False
    )
    for ask in planned.asks[3:6]:
        assert ask.prompt_ids.tolist() == rendered and ask.prompt == "Question b?"
        assert ask.prefill_ids.tolist() == []


def test_a_seed_depends_on_names_alone(tokenizer: Any, prompts: str) -> None:
    seeds = {(ask.question.id, ask.repeat): ask.seed for ask in plan(tokenizer, prompts, one={"samples": 3}).asks}
    assert len(set(seeds.values())) == 12
    fewer = plan(tokenizer, prompts, one={"samples": 2, "limit": 2})
    assert {(ask.question.id, ask.repeat): ask.seed for ask in fewer.asks} == {
        (q, r): seeds[q, r] for q in "dc" for r in (0, 1)
    }
    other = plan(tokenizer, prompts, one={"samples": 3}, seed=1)
    assert not {ask.seed for ask in other.asks} & set(seeds.values())


def test_request_seed_by_hand() -> None:
    digest = hashlib.sha256(b"3|attaq|q-1|2").hexdigest()
    assert request_seed(3, "attaq", "q-1", 2) == int(digest[:8], 16)
    assert 0 <= request_seed(0, "a", "b", 0) < 2**32


@pytest.mark.parametrize(
    ("own", "common", "greedy", "expected"),
    [
        (None, None, False, 64),
        (None, None, True, 1),
        (None, 5, False, 5),
        (None, 5, True, 5),
        (2, 5, False, 2),
        (2, None, True, 2),
    ],
)
def test_number_of_samples(own: int | None, common: int | None, greedy: bool, expected: int) -> None:
    benchmark = Benchmark("made", no_loader, "reasoning", 64, "integer")
    assert num_samples(
        BenchmarkSettings("made", samples=own), EvaluationSettings(samples=common), benchmark, greedy
    ) == (expected)


@pytest.mark.parametrize(
    ("own", "common", "asked"),
    [(None, None, "abcd"), (None, 2, "dc"), (3, 2, "dcb"), (1, None, "d"), (4, None, "abcd")],
)
def test_limits(tokenizer: Any, prompts: str, own: int | None, common: int | None, asked: str) -> None:
    """Questions without groups are drawn by a hash of their ids: d, c, b, a."""
    planned = plan(tokenizer, prompts, one={"limit": own}, limit=common)
    assert "".join(ask.question.id for ask in planned.asks) == asked and len(planned.questions) == len(asked)


def test_a_prompt_over_the_context_is_named(tokenizer: Any, prompts: str) -> None:
    length = max(len(ask.prompt_ids) for ask in plan(tokenizer, prompts).asks)
    assert len(plan(tokenizer, prompts, room=length).asks) == 4
    with pytest.raises(DataError) as refused:
        plan(tokenizer, prompts, room=length - 1)
    assert str(refused.value) == (
        f"evaluation.benchmarks.mine: question c has {length} prompt tokens, over the {length - 1} of the context; raise it, "
        "or evaluation.overlong=skip"
    )


def test_overlong_prompts_are_skipped_and_counted(tokenizer: Any, prompts: str) -> None:
    planned = plan(tokenizer, prompts, room=64, overlong="skip", one={"samples": 2})
    assert [ask.question.id for ask in planned.asks] == list("aabbdd") and planned.num_skipped == 1
    with pytest.raises(DataError, match=r"evaluation\.benchmarks\.mine: every prompt is over the context"):
        plan(tokenizer, prompts, room=3, overlong="skip")


@dataclass(frozen=True)
class Growing(Question):
    """Its second repeat is long."""

    def ask(self, repeat: int) -> Asked:
        return Asked("word " * (200 if repeat else 1), str(repeat))


def test_a_question_is_skipped_whole(tokenizer: Any, prompts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a question's repeats would be another figure: pass@1 of its short ones."""
    from lrm_safety.evaluation.benchmarks.registry import Benchmark, questions
    from lrm_safety.settings.evaluation import BENCHMARKS

    made = questions([Growing("long", "", ""), Question("short", "hello", "hello")], Source("made"))
    declared = Benchmark("custom", lambda: made, "reasoning", 1, "own")
    monkeypatch.setattr(BENCHMARKS, "get", lambda name, key: declared)
    evaluation = EvaluationSettings(benchmarks={"mine": BenchmarkSettings("custom", samples=2)}, overlong="skip")
    protocol = choose_protocol(evaluation, get_family("miniature"), TRAINING)
    planner = Planner(
        get_family("miniature"), tokenizer, system_prompt=None, max_prompt_tokens=64, limit_key="the context"
    )
    (planned,) = planner.plan(evaluation, protocol)
    assert [(ask.question.id, ask.repeat) for ask in planned.asks] == [("short", 0), ("short", 1)]
    assert planned.num_skipped == 1
    evaluation.overlong, evaluation.benchmarks["mine"].samples = "error", 1
    (planned,) = planner.plan(evaluation, protocol)
    assert [ask.target for ask in planned.asks] == ["0", ""]


def test_a_prefilled_trace_loses_the_tag_that_the_prompt_writes(tokenizer: Any) -> None:
    planner = Planner(
        get_family("miniature"), tokenizer, system_prompt=None, max_prompt_tokens=999, limit_key="context"
    )
    bare, nothing = planner.render(AttackedPrompt("hello", None))
    ids, prefill = planner.render(AttackedPrompt("hello", "<think>\nSure.\n"))
    assert get_family("miniature").trace_opened_by == "prompt" and nothing.tolist() == []
    assert tokenizer.decode(prefill.tolist()) == "Sure.\n"
    assert ids.tolist() == [*bare.tolist(), *prefill.tolist()]
    _, empty = planner.render(AttackedPrompt("hello", "<think>\n</think>\n\n"))
    assert tokenizer.decode(empty.tolist(), skip_special_tokens=False).startswith("</think>")


def test_attacks_are_part_of_the_plan(tokenizer: Any, prompts: str) -> None:
    bare = plan(tokenizer, prompts)
    planned = plan(tokenizer, prompts, one={"attack": "compliant_trace"})
    assert planned.attack == "compliant_trace" and len(planned.asks[0].prefill_ids) > 10
    assert [ask.prompt for ask in planned.asks] == [ask.prompt for ask in bare.asks]
    assert planned.asks[0].prompt_ids.tolist()[: len(bare.asks[0].prompt_ids)] == bare.asks[0].prompt_ids.tolist()
    puzzled = plan(
        tokenizer, prompts, one={"attack": "long_puzzle", "attack_arguments": {"num_words": 60}, "samples": 2}
    )
    assert puzzled.asks[0].prompt.endswith("Question a?") and len(puzzled.asks[0].prompt.split()) > 50
    assert puzzled.asks[0].prompt == puzzled.asks[1].prompt != puzzled.asks[2].prompt


def test_an_attack_on_the_trace_of_a_model_without_one(tokenizer: Any) -> None:
    ours = copy.deepcopy(tokenizer)
    ours.chat_template = "{{ messages[0].content }}"
    planner = Planner(get_family("plain"), ours, system_prompt=None, max_prompt_tokens=99, limit_key="context")
    for prefill in ("<think>\nSure.\n", "<think>\n</think>\n\n"):
        with pytest.raises(ConfigError, match=r"an attack on the trace needs a model that writes one.*family=plain"):
            planner.render(AttackedPrompt("hello", prefill))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            BenchmarkSettings("attak"),
            r"evaluation\.benchmarks\.mine\.task=attak: must be one of .*did you mean attaq\?$",
        ),
        (
            BenchmarkSettings("attaq", {"subsett": 1}),
            r"evaluation\.benchmarks\.mine\.arguments\.subsett: unknown option",
        ),
        (BenchmarkSettings("custom", {"path": "absent.jsonl", "grader": GRADER}), r"absent\.jsonl"),
    ],
)
def test_benchmarks_that_are_none(settings: BenchmarkSettings, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as refused:
        load_questions("mine", settings, None)
    assert "\n" not in str(refused.value)


def test_unknown_attacks(tokenizer: Any, prompts: str) -> None:
    with pytest.raises(ConfigError, match=r"attack=jailbreak: unknown; known: .*empty_trace"):
        plan(tokenizer, prompts, one={"attack": "jailbreak"})
    with pytest.raises(ConfigError, match=r"attack_arguments\.words: unknown option of long_puzzle"):
        plan(tokenizer, prompts, one={"attack": "long_puzzle", "attack_arguments": {"words": 3}})


def test_a_prefill_keeps_the_tag_where_the_model_writes_it(tokenizer: Any) -> None:
    ours = copy.deepcopy(tokenizer)
    ours.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    planner = Planner(get_family("qwen3"), ours, system_prompt=None, max_prompt_tokens=99, limit_key="the context")
    ids, prefill = planner.render(AttackedPrompt("Question?", "<think>\nSure."))
    assert prefill.tolist() == tokenizer.encode("<think>\nSure.", add_special_tokens=False)
    assert ids.tolist() == [*tokenizer.encode("Question?", add_special_tokens=False), *prefill.tolist()]
