"""batches.jsonl of a run with `algorithm.max_staleness` or `oversampling`: what each iteration learned from, and what it proves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from .algorithm.mismatch import MAX_LOG_RATIO
from .datasets.prompts import PromptSource
from .experience import RolloutBatch
from .monitoring.metrics_file import whole_lines
from .settings import AlgorithmSettings
from .settings.training import CORRECTIONS


def batch_record(batch: RolloutBatch, iteration: int, algorithm: AlgorithmSettings) -> dict[str, Any]:
    """What is kept of the batch of this iteration, counted from 1. JSON.

    `weights_version` is that of the weights before its first update. Each response has its prompt's row, its number of tokens,
    `versions` as [first token, version] pairs, and where weights correct: how many of its tokens were capped or dropped
    (`corrected`) and the mean `weight`.
    """
    corrects = algorithm.old_logprobs == "recompute" and algorithm.correction != "off"
    responses = []
    for index, rollout in enumerate(batch.rollouts):
        versions = [[0, rollout.weights_version], *map(list, rollout.taken_over)]
        row = {"prompt": rollout.prompt_index, "tokens": len(rollout.response_ids), "versions": versions}
        if corrects:
            delta = torch.from_numpy(batch.policy[index].logprobs - rollout.logprobs).double()
            ratio = delta.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
            correction = CORRECTIONS.get(algorithm.correction, "algorithm.correction")
            weights, corrected = correction.weigh(ratio, algorithm.correction_cap)
            row |= {"corrected": int(corrected.sum()), "weight": float(weights.mean())}
        responses.append(row)
    return {
        "iteration": iteration,
        "weights_version": batch.weights_version,
        "correction": algorithm.correction if corrects else None,
        "responses": responses,
    }


def problems(
    run: Path, algorithm: AlgorithmSettings, num_prompts: int, seed: int, *, updates: int | None = None
) -> Iterator[str]:
    """What in a run's batches.jsonl and metrics.jsonl is not as it must be; nothing: every batch is accounted for.

    - Iterations are recorded once each, in order, without a gap, in both files; `updates`: the last one's.
    - Each batch holds the prompts that the run's seed draws for it, each `samples_per_prompt` times: whatever was in flight when
      a run was stopped was asked again, and nothing was learned from twice. With `oversampling` it holds prompts that were drawn
      for it or left over by the batches before, and none is left over for longer than `max_staleness` batches (than one, if 0).
    - The version of the weights grows by one an iteration, and that of the tokens of a response never falls.
    - No token is older than `max_staleness` syncs, and age and correction are those that metrics.jsonl tells.
    """
    source = PromptSource(num_prompts, algorithm.rollout_batch_size, seed)
    in_flight: dict[int, list[int]] = {}
    per_iteration = algorithm.num_responses // algorithm.mini_batch_size
    metrics = {line["update"]: line for _, line in whole_lines(run / "metrics.jsonl") if "train/loss" in line}
    last: dict[str, Any] | None = None
    seen: list[int] = []
    for _, batch in whole_lines(run / "batches.jsonl"):
        number, where = len(seen) + 1, f"iteration {batch['iteration']}"
        seen.append(batch["update"])
        if (batch["iteration"], batch["update"]) != (number, number * per_iteration):
            yield f"{where}, update {batch['update']} stands where iteration {number} should"
            return
        drawn = source.next_batch(algorithm.num_in_flight - sum(map(len, in_flight.values())))
        for prompt in drawn:
            in_flight.setdefault(prompt, []).append(number)
        yield from (f"{where} {problem}" for problem in _of_prompts(batch, in_flight, algorithm))
        if last is not None and batch["weights_version"] != last["weights_version"] + 1:
            yield f"{where} learned with version {batch['weights_version']} after {last['weights_version']}"
        yield from (f"{where}, {problem}" for problem in _of_tokens(batch, algorithm.max_staleness))
        if batch["update"] not in metrics:
            yield f"{where} is not in metrics.jsonl"
        else:
            told = metrics[batch["update"]]
            yield from (f"{where}, {problem}" for problem in _of_metrics(batch, told, algorithm.max_staleness))
        last = batch
    if missing := sorted(set(metrics) - set(seen)):
        yield f"updates {missing} of metrics.jsonl have no batch"
    if updates is not None and seen[-1:] != [updates]:
        yield f"ends after update {seen[-1] if seen else 0} and not {updates}"


def _of_prompts(
    batch: Mapping[str, Any], in_flight: dict[int, list[int]], algorithm: AlgorithmSettings
) -> Iterator[str]:
    """Takes the prompts of a batch out of those in flight, for each of which the iterations are told that it was drawn for."""
    counts = Counter(response["prompt"] for response in batch["responses"])
    groups = {prompt: count / algorithm.samples_per_prompt for prompt, count in counts.items()}
    known = all(count <= len(in_flight.get(prompt, [])) and count % 1 == 0 for prompt, count in groups.items())
    if not known or sum(groups.values()) != algorithm.rollout_batch_size:
        yield "did not learn from the prompts that were drawn for it"
    for prompt, count in groups.items():
        of = in_flight.get(prompt, [])
        del of[: round(count)]  # of two that are alike the older one
        if not of:
            in_flight.pop(prompt, None)
    patience = max(algorithm.max_staleness, 1) if algorithm.num_in_flight > algorithm.rollout_batch_size else 0
    late = sorted(prompt for prompt, drawn in in_flight.items() if batch["iteration"] - min(drawn) >= patience)
    if late:
        yield f"left over prompts {late}, which it should have learned from"


def _ages(batch: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(age in syncs, tokens of that age) of every span of every response."""
    found = []
    for response in batch["responses"]:
        starts = [start for start, _ in response["versions"]] + [response["tokens"]]
        spans = zip(pairwise(starts), response["versions"], strict=True)
        found += [(batch["weights_version"] - version, end - start) for (start, end), (_, version) in spans]
    return found


def _of_tokens(batch: Mapping[str, Any], max_staleness: int) -> Iterator[str]:
    for index, response in enumerate(batch["responses"]):
        starts, versions = zip(*response["versions"], strict=True)
        if starts[0] != 0 or not _rises([*starts, response["tokens"]]) or not _rises(versions):
            yield f"response {index} has versions {response['versions']} of {response['tokens']} tokens"
    ages = [age for age, _ in _ages(batch)]
    if min(ages) < 0 or max(ages) > max_staleness:
        yield f"tokens of {min(ages)} to {max(ages)} syncs"


def _of_metrics(batch: Mapping[str, Any], line: Mapping[str, Any], max_staleness: int) -> Iterator[str]:
    """Where batches.jsonl and metrics.jsonl tell different things of one iteration."""
    ages = _ages(batch)
    tokens = sum(count for _, count in ages)
    told = {"rollout/version_lag": float(max(age for age, _ in ages))}
    if max_staleness:
        told["rollout/version_lag_mean"] = sum(age * count for age, count in ages) / tokens
        told["rollout/stale_fraction"] = sum(count for age, count in ages if age) / tokens
    if batch["correction"] is not None:
        told["mismatch/corrected_fraction"] = sum(response["corrected"] for response in batch["responses"]) / tokens
    for name, value in told.items():
        if not math.isclose(line.get(name, math.nan), value, rel_tol=1e-6, abs_tol=1e-9):
            yield f"{name} is {line.get(name)} in metrics.jsonl and {value} in batches.jsonl"


def _rises(values: Sequence[int]) -> bool:
    return all(one < other for one, other in pairwise(values))
