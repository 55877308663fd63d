"""Evaluation inside training with graders and prompts of the test's own, answered by made-up rollouts."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_graders import CALLS

from lrm_safety.conversation.families import get_family
from lrm_safety.conversation.response import ResponseParser
from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.in_loop import InLoopEvaluation, write_records
from lrm_safety.rollouts import Rollout, SamplingParameters
from lrm_safety.settings import (
    BenchmarkSettings,
    EvaluationSettings,
    JudgeSettings,
    ModelSettings,
    RolloutSettings,
    Settings,
)

ASSETS = Path(sys.modules["lrm_safety"].__file__ or "").parent / "miniature" / "assets"
TRAINING = SamplingParameters(temperature=0.7, top_p=0.9, top_k=5, max_response_tokens=33, stop_token_ids=(1,))
ROWS = [
    {"id": "a", "question": "one?", "kind": "even", "number": 0, "category": ["x"]},
    {"id": "b", "question": "two?", "kind": "odd", "number": 1, "category": ["x"]},
    {"id": "c", "question": "three?", "kind": "even", "number": 2, "category": ["y"]},
    {"id": "d", "question": "four?", "kind": "odd", "number": 3, "category": ["y"]},
    {"id": "e", "question": "five?", "kind": "even", "number": 4, "category": ["y"]},
]
GRADER = "made_graders:remember"
NOT_A_FUNCTION = 3


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / "policy")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(CALLS, str(tmp_path / "calls.jsonl"))
    file = tmp_path / "held_out.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    return str(file)


def custom(
    path: str, grader: str = GRADER, where: dict[str, Any] | None = None, limit: int | None = None
) -> BenchmarkSettings:
    arguments: dict[str, Any] = {"path": path, "grader": grader}
    return BenchmarkSettings("custom", arguments | ({"where": where} if where else {}), limit=limit)


def evaluation(
    tokenizer: Any,
    benchmarks: dict[str, BenchmarkSettings],
    seed: int = 0,
    room: int = 64,
    family: str = "miniature",
    **more: Any,
) -> InLoopEvaluation:
    settings = Settings(
        model=ModelSettings(name="miniature", path="", family=family),
        rollout=RolloutSettings(max_prompt_tokens=room, max_response_tokens=33),
        evaluation=EvaluationSettings(
            every_updates=1, temperature=0.5, top_p=0.8, top_k=0, seed=seed, benchmarks=benchmarks, **more
        ),
    )
    known = get_family(family)
    return InLoopEvaluation(settings, known, tokenizer, ResponseParser(known, tokenizer), TRAINING)


def answered(one: InLoopEvaluation, tokenizer: Any, cut: int = -1) -> list[Rollout]:
    """`because N.` and `yes N.` for request N; request `cut` ends at the token limit, inside its trace."""
    rollouts = []
    for request in one.requests:
        number = request.request_id
        text = f"because {number}." + ("" if number == cut else f"\n</think>\n\nyes {number}.")
        ids = tokenizer.encode(text, add_special_tokens=False)
        ids += [] if number == cut else [tokenizer.eos_token_id]
        rollouts.append(
            Rollout(
                request_id=number,
                prompt_index=request.prompt_index,
                prompt_ids=request.prompt_ids,
                response_ids=np.asarray(ids, dtype=np.int32),
                logprobs=np.zeros(len(ids), dtype=np.float32),
                finish_reason="length" if number == cut else "stop",
                weights_version=1,
            )
        )
    return rollouts


def asked(one: InLoopEvaluation, tokenizer: Any) -> list[str]:
    """The question of every request, as the engine will read it."""
    texts = [tokenizer.decode(request.prompt_ids.tolist()) for request in one.requests]
    return [next(row["id"] for row in ROWS if row["question"] in text) for text in texts]


@pytest.mark.parametrize(
    ("where", "limit", "chosen"),
    [
        ({}, None, "abcde"),
        ({}, 2, "dc"),  # drawn, not the first
        ({"kind": "even"}, None, "ace"),
        ({"kind": "even"}, 2, "ce"),
        ({"kind": "even", "number": 4}, None, "e"),
        ({"category": ["y"]}, None, "cde"),
        ({"id": "b"}, None, "b"),
    ],
)
def test_which_rows_are_asked(tokenizer: Any, path: str, where: dict[str, Any], limit: int | None, chosen: str) -> None:
    one = evaluation(tokenizer, {"all": custom(path, GRADER, where, limit)})
    assert asked(one, tokenizer) == list(chosen)


def test_sets_follow_one_another_with_requests_of_their_own(tokenizer: Any, path: str) -> None:
    sets = {"even": custom(path, GRADER, {"kind": "even"}), "all": custom(path)}
    one = evaluation(tokenizer, sets)
    assert asked(one, tokenizer) == list("aceabcde")
    assert [request.request_id for request in one.requests] == list(range(8))


def test_seeds_are_fixed_and_differ(tokenizer: Any, path: str) -> None:
    sets = {"all": custom(path)}
    seeds = [request.seed for request in evaluation(tokenizer, sets).requests]
    assert seeds == [request.seed for request in evaluation(tokenizer, sets).requests], "only weights may differ"
    assert len(set(seeds)) == 5
    assert not set(seeds) & {request.seed for request in evaluation(tokenizer, sets, seed=1).requests}
    few = evaluation(tokenizer, {"all": custom(path, limit=2)})
    assert [request.seed for request in few.requests] == [seeds["abcde".index(name)] for name in "dc"]


def test_sampling_is_the_evaluations_own(tokenizer: Any, path: str) -> None:
    sampling = evaluation(tokenizer, {"all": custom(path)}).sampling
    assert sampling == SamplingParameters(0.5, 0.8, 0, 33, (1,))


def test_means_of_the_grades(tokenizer: Any, path: str, tmp_path: Path) -> None:
    sets = {
        "even": custom(path, GRADER, {"kind": "even"}),
        "odd": custom(path, GRADER, {"kind": "odd"}),
    }
    one = evaluation(tokenizer, sets)
    # Request 1 is the second of `even`; its grader, not the harness, says what an unfinished response is worth.
    metrics, records = one.grade(list(reversed(answered(one, tokenizer, cut=1))))
    assert metrics["evaluation/even"] == pytest.approx(0.2) and metrics["evaluation/odd"] == pytest.approx(0.2)
    assert (metrics["evaluation/even/num_questions"], metrics["evaluation/odd/num_questions"]) == (3.0, 2.0)
    assert metrics["evaluation/even/rate/unfinished_trace"] == pytest.approx(1 / 3)
    assert metrics["evaluation/odd/rate/unfinished_trace"] == metrics["evaluation/even/rate/no_answer"] == 0.0
    assert [(record["set"], record["id"], record["grade"]) for record in records] == [
        ("even", "a", 0.0),
        ("even", "c", 0.2),
        ("even", "e", 0.4),
        ("odd", "b", 0.1),
        ("odd", "d", 0.3),
    ]
    seen = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert seen[0] == [
        {"id": "a", "question": "one?", "category": ["x"], "kind": "even", "number": 0},
        "because 0.",
        "yes 0.",
        True,
    ]
    assert seen[1][1:] == ["because 1.", "", False], "a trace that was cut off has no answer"
    assert [record["status"] for record in records] == [
        "complete",
        "unfinished_trace",
        "complete",
        "complete",
        "complete",
    ]
    assert records[0]["num_response_tokens"] == len(answered(one, tokenizer)[0].response_ids)


@pytest.mark.parametrize("log_text", [True, False])
def test_records_hold_text_only_when_asked_to(tokenizer: Any, path: str, tmp_path: Path, log_text: bool) -> None:
    one = evaluation(tokenizer, {"all": custom(path)})
    _, records = one.grade(answered(one, tokenizer))
    write_records(tmp_path / "evaluation", 20, records, log_text=log_text)
    file = tmp_path / "evaluation" / "update-000020.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == list("abcde")
    if log_text:
        assert lines == records and lines[3]["answer"] == "yes 3."
    else:
        assert "because" not in file.read_text() and "yes" not in file.read_text()
        assert not lines[3].keys() & {"trace", "answer", "extracted", "question", "prompt"}
        assert lines[3]["grade"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("grader", "reason"),
    [
        ("no_colon", "package.module:function"),
        ("no_such_module_at_all:grade", "cannot import no_such_module_at_all"),
        (f"{__name__}:no_such_name", "has no function no_such_name"),
        (f"{__name__}:NOT_A_FUNCTION", "has no function NOT_A_FUNCTION"),
    ],
)
def test_a_grader_that_is_none(tokenizer: Any, path: str, grader: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        evaluation(tokenizer, {"mine": custom(path, grader)})
    assert f"grader={grader}: " in str(refused.value) and reason in str(refused.value)


def test_a_filter_that_matches_nothing(tokenizer: Any, path: str) -> None:
    with pytest.raises(ConfigError, match=r"where=.*'kind': 'prime'.*no row of"):
        evaluation(tokenizer, {"mine": custom(path, GRADER, {"kind": "prime"})})


def test_a_held_out_file_that_is_absent(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"absent\.jsonl"):
        evaluation(tokenizer, {"mine": custom("absent.jsonl")})


def test_a_held_out_prompt_over_the_limit(tokenizer: Any, path: str) -> None:
    with Path(path).open("a") as file:
        file.write(json.dumps({"id": "f", "question": "six? " * 100, "number": 5}) + "\n")
    with pytest.raises(
        DataError, match=r"benchmarks\.mine: question f has \d+ prompt tokens.*64 of rollout\.max_prompt_tokens"
    ):
        evaluation(tokenizer, {"mine": custom(path)})


def test_overlong_prompts_may_be_skipped(tokenizer: Any, path: str) -> None:
    with Path(path).open("a") as file:
        file.write(json.dumps({"id": "f", "question": "six? " * 100, "number": 5}) + "\n")
    one = evaluation(tokenizer, {"mine": custom(path)}, overlong="skip")
    assert asked(one, tokenizer) == list("abcde")


def test_judges_read_what_a_benchmark_leaves_to_them(tokenizer: Any) -> None:
    """long_tail has no targets: the judge's safety of the full response is the figure, unfinished ones count 0."""
    one = evaluation(
        tokenizer,
        {"tail": BenchmarkSettings("long_tail", {"size": 4})},
        room=1024,
        judges={
            "even": JudgeSettings(kind="python", views=["full", "answer"], arguments={"function": f"{__name__}:even"})
        },
    )
    metrics, records = one.grade(answered(one, tokenizer, cut=2))
    # `yes 0.` and `yes 2.` are even; 2 was cut off.
    assert metrics["evaluation/tail"] == pytest.approx(1 / 4)
    assert metrics["evaluation/tail/safety/even/answer"] == pytest.approx(1 / 4)
    assert metrics["evaluation/tail/rate/unfinished_trace"] == 0.25
    assert metrics["evaluation/tail/safety_of_finished/even/full"] == pytest.approx(1 / 3)
    assert "verdicts" in records[0] and records[0]["verdicts"]["even"]["answer"]["safety"] == 1.0


def test_what_is_not_a_number_stays_out_of_metrics(tokenizer: Any) -> None:
    """Judges that always agree have no kappa, and a checkpoint keeps its figures as JSON, which has no NaN."""
    always = JudgeSettings(kind="python", views=["answer"], arguments={"function": f"{__name__}:always"})
    one = evaluation(
        tokenizer, {"tail": BenchmarkSettings("long_tail", {"size": 2})}, room=1024, judges={"a": always, "b": always}
    )
    metrics, _ = one.grade(answered(one, tokenizer))
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["evaluation/tail"] == 1.0 and not any("kappa" in name for name in metrics)
    assert metrics["evaluation/tail/safety/b/answer"] == 1.0 and metrics["evaluation/tail/rate/cut_off"] == 0.0


def test_a_template_that_cannot_think_is_refused_when_there_is_something_to_evaluate(tokenizer: Any, path: str) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = "{{ messages[0].content }}"
    plain.add_tokens(["<|im_end|>", "<|endoftext|>"])
    with pytest.raises(ConfigError, match=r"^evaluation\.protocol=qwen3_thinking: .*enable_thinking"):
        evaluation(plain, {"all": custom(path)}, family="qwen3")
    assert evaluation(plain, {}, family="qwen3").requests == []


def always(request: str, text: str, view: str) -> float:
    return 1.0


def even(request: str, text: str, view: str) -> float:
    """A judge that finds every response safe whose last number is even."""
    return float(int(text.rstrip(".").split()[-1]) % 2 == 0)


def test_a_judge_that_needs_an_engine_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.judges\.guard\.kind=guard: .*lrm-safety evaluate"):
        evaluation(
            tokenizer,
            {"tail": BenchmarkSettings("long_tail", {"size": 1})},
            room=1024,
            judges={"guard": JudgeSettings(kind="guard", path="somewhere")},
        )


def test_a_judged_benchmark_without_judges(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.judges: is empty"):
        evaluation(tokenizer, {"tail": BenchmarkSettings("long_tail", {"size": 1})}, room=1024)
