"""The Inspect logs of an evaluation hold what results.json is made of."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from made_evaluations import POLICY, TalkingEngine, tokenizer
from rich.console import Console

from lrm_safety.evaluation import subject as module
from lrm_safety.evaluation.run import PreparedEvaluation, evaluate, prepare
from lrm_safety.settings import (
    BenchmarkSettings,
    EvaluatedModelSettings,
    EvaluateSettings,
    EvaluationSettings,
    JudgeSettings,
    RolloutSettings,
)


def says_yes(request: str, text: str, view: str) -> float | None:
    """No verdict on `no.`."""
    return 1.0 if "yes" in text else None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedEvaluation, dict[str, Any], Path]:
    """Five questions of the user's twice, under an attack; six judged ones once. Evaluated twice, so that logs are
    replaced."""
    folder = tmp_path_factory.mktemp("evaluation")
    prompts = folder / "prompts.jsonl"
    rows = [{"id": f"p{n}", "question": f"Question {n}?" * (100 if n == 3 else 1)} for n in range(5)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = EvaluateSettings(
        model=EvaluatedModelSettings(name="miniature", path=str(POLICY), family="miniature", dtype="float32"),
        rollout=RolloutSettings(max_response_tokens=16),
        evaluation=EvaluationSettings(
            benchmarks={
                "own": BenchmarkSettings(
                    "custom",
                    {"path": str(prompts), "grader": "made_graders:is_yes"},
                    samples=2,
                    attack="compliant_trace",
                ),
                "tail": BenchmarkSettings("long_tail", {"size": 6}),
            },
            judges={"yes": JudgeSettings("python", ["answer", "trace"], None, {"function": f"{__name__}:says_yes"})},
            overlong="skip",
            log_text=True,
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Engine", lambda settings: TalkingEngine(tokenizer()))
        for _ in range(2):
            prepared = prepare(settings, folder / "out")
            results = evaluate(prepared, Console(file=io.StringIO()))
    return prepared, results, folder / "out" / "logs"


def log_of(folder: Path, task: str) -> EvalLog:
    (log,) = [
        one for one in (read_eval_log(each.name) for each in list_eval_logs(str(folder))) if one.eval.task == task
    ]
    return log


def test_one_log_a_benchmark_and_none_of_the_run_before(written: Any) -> None:
    prepared, _, folder = written
    assert len(list(folder.glob("*.eval"))) == 2
    for task in ("own", "tail"):
        log = log_of(folder, task)
        assert log.status == "success" and log.eval.model == "lrm_safety_evaluation/miniature"
        assert log.eval.metadata is not None and log.eval.metadata["model_fingerprint"] == prepared.subject.fingerprint
        assert log.plan.config.temperature == 1.0 and log.plan.config.max_tokens == 16


def test_every_response_without_its_tokens(written: Any) -> None:
    prepared, _, folder = written
    for planned in prepared.planned:
        samples = {(sample.id, sample.epoch - 1): sample for sample in log_of(folder, planned.name).samples or []}
        assert set(samples) == {(ask.question.id, ask.repeat) for ask in planned.asks}
        for ask in planned.asks:
            sample = samples[ask.question.id, ask.repeat]
            cut = ask.seed % 3 == 0
            assert sample.output.completion == ("" if cut else "yes." if ask.seed % 2 else "no.")
            assert sample.output.stop_reason == ("max_tokens" if cut else "stop")
            found = (sample.output.metadata or {})["lrm_safety"]
            assert found["status"] == ("unfinished_trace" if cut else "complete")
            assert not found.keys() & {"token_ids", "logprobs"}, "they are in responses/"
            assert sample.messages[0].text == ask.prompt


def test_the_attack_is_in_the_log(written: Any) -> None:
    _, _, folder = written
    samples = log_of(folder, "own").samples or []
    assert len(samples) == 8 and "p3" not in {sample.id for sample in samples}, "question p3 is too long"
    for sample in samples:
        assert sample.messages[1].role == "assistant" and sample.messages[1].text.startswith("<think>\nThe user wants")


def test_scores_are_those_of_the_results(written: Any) -> None:
    prepared, results, folder = written
    log = log_of(folder, "own")
    assert log.results is not None
    (score,) = log.results.scores
    assert score.metrics["mean"].value == pytest.approx(results.benchmarks["own"].figures["pass@1"].value)
    by_id: dict[str, list[float]] = {}
    for sample in log.samples or []:
        by_id.setdefault(str(sample.id), []).append(sample.scores["graded"].value)
    assert {name: sum(mine) / 2 for name, mine in by_id.items()} == results.benchmarks["own"].questions
    log = log_of(folder, "tail")
    assert log.results is not None
    figures = results.benchmarks["tail"].figures
    for score in log.results.scores:
        figure = figures.get(f"safety/yes/{score.name}")
        assert (score.scored_samples or 0) == (figure.n if figure else 0)
        if figure:
            assert score.metrics["mean"].value == pytest.approx(figure.value)
    (planned,) = [one for one in prepared.planned if one.name == "tail"]
    seeds = {ask.question.id: ask.seed for ask in planned.asks}
    kinds = set()
    for sample in log.samples or []:
        value, seed = sample.scores["yes"].value["answer"], seeds[str(sample.id)]
        kind = "cut" if seed % 3 == 0 else "yes" if seed % 2 else "silent"
        kinds.add(kind)
        assert math.isnan(value) if kind == "silent" else value == (1.0 if kind == "yes" else 0.0)
    assert len(kinds) > 1
