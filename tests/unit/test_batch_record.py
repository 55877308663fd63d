"""What batches.jsonl proves of a run, on files made by hand: whole ones pass, and each way to be wrong is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batches import batch, floats

from lrm_safety.batch_record import batch_record, problems
from lrm_safety.datasets.prompts import PromptSource
from lrm_safety.rollouts import Rollout
from lrm_safety.settings import AlgorithmSettings

ALGORITHM = AlgorithmSettings(rollout_batch_size=2, samples_per_prompt=2, mini_batch_size=2, max_staleness=1)
Lines = list[dict[str, Any]]


def whole() -> tuple[Lines, Lines]:
    """Three iterations of 4 responses with 4 tokens each. In each but the first, the last token of every response was sampled by
    the present weights and the others by those before."""
    source = PromptSource(5, 2, 0)
    batches, metrics = [], []
    for number in (1, 2, 3):
        versions = [[0, 1]] if number == 1 else [[0, number - 1], [3, number]]
        responses = [
            {"prompt": prompt, "tokens": 4, "versions": versions, "corrected": sample, "weight": 1.0}
            for prompt in source.next_batch()
            for sample in range(2)
        ]
        line = {"update": 2 * number, "iteration": number, "weights_version": number, "correction": "tis"}
        batches.append({**line, "responses": responses})
        age = 0.0 if number == 1 else 0.75
        told = {"rollout/version_lag_mean": age, "rollout/stale_fraction": age, "mismatch/corrected_fraction": 2 / 16}
        metrics.append({"update": 2 * number, "train/loss": 0.1, "rollout/version_lag": math.ceil(age), **told})
    return batches, metrics


def found(folder: Path, batches: Lines, metrics: Lines, updates: int | None = 6) -> list[str]:
    for name, lines in (("batches", batches), ("metrics", metrics)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(problems(folder, ALGORITHM, 5, 0, updates=updates))


def test_a_whole_run_has_no_problem(tmp_path: Path) -> None:
    batches, metrics = whole()
    evaluation = {"update": 4, "evaluation/safety": 0.5}  # no iteration of its own
    assert found(tmp_path, batches, [*metrics, evaluation]) == []


def lost(batches: Lines, metrics: Lines) -> None:
    del batches[1], metrics[1]


def doubled(batches: Lines, metrics: Lines) -> None:
    batches.insert(1, batches[1])


def ends_early(batches: Lines, metrics: Lines) -> None:
    del batches[2], metrics[2]


def without_batch(batches: Lines, metrics: Lines) -> None:
    del batches[2]


def without_metrics(batches: Lines, metrics: Lines) -> None:
    del metrics[2]


def other_prompt(batches: Lines, metrics: Lines) -> None:
    batches[1]["responses"][0]["prompt"] = batches[1]["responses"][2]["prompt"]


def same_version(batches: Lines, metrics: Lines) -> None:
    batches[2]["weights_version"] = 2


def too_old(batches: Lines, metrics: Lines) -> None:
    batches[2]["responses"][0]["versions"] = [[0, 1]]


def from_the_future(batches: Lines, metrics: Lines) -> None:
    batches[2]["responses"][0]["versions"] = [[0, 4]]


def falls(batches: Lines, metrics: Lines) -> None:
    batches[2]["responses"][0]["versions"] = [[0, 3], [3, 2]]


def no_token(batches: Lines, metrics: Lines) -> None:
    batches[2]["responses"][0]["versions"] = [[0, 2], [4, 3]]


def other_lag(batches: Lines, metrics: Lines) -> None:
    metrics[2]["rollout/version_lag_mean"] = 0.5


def other_correction(batches: Lines, metrics: Lines) -> None:
    batches[2]["responses"][0]["corrected"] = 3


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lost, "iteration 3, update 6 stands where iteration 2 should"),
        (doubled, "iteration 2, update 4 stands where iteration 3 should"),
        (ends_early, "ends after update 4 and not 6"),
        (without_batch, "updates [6] of metrics.jsonl have no batch"),
        (without_metrics, "iteration 3 is not in metrics.jsonl"),
        (other_prompt, "iteration 2 did not learn from the prompts that were drawn for it"),
        (same_version, "iteration 3 learned with version 2 after 2"),
        (too_old, "iteration 3, tokens of 0 to 2 syncs"),
        (from_the_future, "iteration 3, tokens of -1 to 1 syncs"),
        (falls, "iteration 3, response 0 has versions [[0, 3], [3, 2]] of 4 tokens"),
        (no_token, "iteration 3, response 0 has versions [[0, 2], [4, 3]] of 4 tokens"),
        (other_lag, "iteration 3, rollout/version_lag_mean is 0.5 in metrics.jsonl and 0.75 in batches.jsonl"),
        # 3 + 1 + 0 + 1 of 16 tokens.
        (
            other_correction,
            "iteration 3, mismatch/corrected_fraction is 0.125 in metrics.jsonl and 0.3125 in batches.jsonl",
        ),
    ],
)
def test_every_fault_is_named(tmp_path: Path, spoil: Callable[[Lines, Lines], None], told: str) -> None:
    batches, metrics = whole()
    spoil(batches, metrics)
    assert told in found(tmp_path, batches, metrics)


def sampled(*logprobs: float, taken_over: tuple[tuple[int, int], ...] = ()) -> Rollout:
    ids = np.zeros(len(logprobs), dtype=np.int32)
    return Rollout(0, 7, ids[:1], ids, floats(logprobs), "stop", 3, taken_over)


def test_what_is_recorded_of_a_batch() -> None:
    """Ratios of trainer over engine: 1, 3 and 1/2; the cap of 2 corrects the second: mean weight (1 + 2 + 1/2) / 3."""
    of = batch([0.0], [3], policy=[[-1.0, -1.0, -1.0]])
    of.rollouts = [sampled(-1.0, -1.0 - math.log(3), -1.0 + math.log(2), taken_over=((2, 4),))]
    of.weights_version = 4
    record = batch_record(of, 9, ALGORITHM)
    (response,) = record.pop("responses")
    assert record == {"iteration": 9, "weights_version": 4, "correction": "tis"}
    assert response.pop("weight") == pytest.approx(3.5 / 3)
    assert response == {"prompt": 7, "tokens": 3, "versions": [[0, 3], [2, 4]], "corrected": 1}


def test_nothing_is_weighed_where_the_engines_logprobs_are_the_old_ones() -> None:
    of = batch([0.0], [3])
    record = batch_record(of, 1, AlgorithmSettings(max_staleness=1, old_logprobs="rollout"))
    assert record["correction"] is None and record["responses"][0].keys() == {"prompt", "tokens", "versions"}


def test_versions_of_tokens() -> None:
    assert sampled(0, 0, 0).versions.tolist() == [3, 3, 3]
    mixed = sampled(0, 0, 0, 0, 0, taken_over=((1, 5), (4, 6)))
    assert mixed.versions.tolist() == [3, 5, 5, 5, 6] and mixed.versions.dtype == np.int32


OVERSAMPLED = AlgorithmSettings(
    rollout_batch_size=2, samples_per_prompt=2, mini_batch_size=2, max_staleness=0, oversampling=1.5
)


def cut_off(folder: Path, *batches: list[int], max_staleness: int = 0) -> list[str]:
    """What is found in a run with such prompts; 3 of 5 are in flight."""
    lines, metrics = [], []
    for number, prompts in enumerate(batches, 1):
        responses = [{"prompt": prompt, "tokens": 4, "versions": [[0, number]]} for prompt in prompts for _ in range(2)]
        line = {"update": 2 * number, "iteration": number, "weights_version": number, "correction": None}
        lines.append({**line, "responses": responses})
        told = {"rollout/version_lag_mean": 0.0, "rollout/stale_fraction": 0.0} if max_staleness else {}
        metrics.append({"update": 2 * number, "train/loss": 0.1, "rollout/version_lag": 0, **told})
    for name, of in (("batches", lines), ("metrics", metrics)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in of))
    algorithm = replace(OVERSAMPLED, max_staleness=max_staleness)
    return list(problems(folder, algorithm, 5, 0, updates=2 * len(batches)))


def test_what_a_batch_leaves_over_belongs_to_the_next(tmp_path: Path) -> None:
    source = PromptSource(5, 2, 0)
    (a, b, c), (d, e), (f, g) = source.next_batch(3), source.next_batch(2), source.next_batch(2)
    assert cut_off(tmp_path, [b, c], [a, e], [d, f]) == []
    assert cut_off(tmp_path, [b, c], [d, a], [g, e]) == []
    left = f"left over prompts [{a}], which it should have learned from"
    assert cut_off(tmp_path, [b, c], [d, e]) == [f"iteration 2 {left}"]
    assert cut_off(tmp_path, [b, c], [d, e], [a, f], max_staleness=2) == []
    assert cut_off(tmp_path, [b, c], [d, e], [f, g], max_staleness=2) == [f"iteration 3 {left}"]
    foreign = "did not learn from the prompts that were drawn for it"
    assert cut_off(tmp_path, [b, d]) == [f"iteration 1 {foreign}"], "drawn for the next batch"
    assert cut_off(tmp_path, [b, c], [b, a])[0] == f"iteration 2 {foreign}", "learned from twice"
    assert cut_off(tmp_path, [b])[0] == f"iteration 1 {foreign}", "too few"
