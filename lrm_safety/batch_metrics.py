"""What is recorded of one iteration: metrics of the scored batch and of its updates, and the rollouts as rows to show.

Names of metrics as in monitoring/registry.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .algorithm.kl import kl_estimate
from .algorithm.losses import clipped_surrogate
from .algorithm.mismatch import mismatch_stats
from .algorithm.token_statistics import TokenStatistics, surrogate_stats
from .experience import RolloutBatch, reference_log_ratio
from .monitoring.rollout_files import RolloutRow
from .pool import InFlight
from .preparation import PreparedRun
from .rollouts import TokenScores, TrainingSequence, Update
from .settings import AlgorithmSettings
from .settings.training import CORRECTIONS


def iteration_metrics(
    batch: RolloutBatch,
    mini_batches: list[list[TrainingSequence]],
    updates: list[Update],
    algorithm: AlgorithmSettings,
    reflection_ids: frozenset[int],
) -> dict[str, float]:
    """Everything that the responses, the updates, the reference and the engine mismatch of one iteration show.

    Without a recompute pass the trainer's figures come from the updates' own forward passes; the mismatch is then taken
    over the first mini-batch alone, the only one scored under exactly the weights that sampled.
    """
    trainer = batch.policy or {index: scores for update in updates for index, scores in update.scores.items()}
    fresh = sorted(batch.policy or updates[0].scores)
    ages = batch.ages()
    return (
        kl_metrics(batch, batch.old_logprobs(algorithm.old_logprobs))
        | response_metrics(batch)
        | update_metrics(updates, mini_batches, algorithm)
        | entropy_metrics(batch, trainer, reflection_ids)
        | mismatch_metrics(
            [trainer[i].logprobs for i in fresh],
            [batch.rollouts[i].logprobs for i in fresh],
            algorithm,
            [ages[i] for i in fresh] if algorithm.max_staleness else None,
        )
    )


def staleness_metrics(batch: RolloutBatch, max_staleness: int) -> dict[str, float]:
    """How much older the weights are that sampled than those that learn, in syncs."""
    ages = np.concatenate(batch.ages())
    metrics: dict[str, float] = {"rollout/version_lag": int(ages.max())}
    if max_staleness:
        metrics["rollout/version_lag_mean"] = float(ages.mean())
        metrics["rollout/stale_fraction"] = float((ages > 0).mean())
    return metrics


def cut_off_metrics(taken: Sequence[InFlight], iteration: int, num_cut: int) -> dict[str, float]:
    """Of a batch that did not wait for all: what it left to later ones, and how those differ that were left to it."""
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for one in taken:
        lengths[one.begun < iteration] += [len(answer.response_ids) for answer in one.answers]
    metrics = {
        "rollout/num_cut": float(num_cut),
        "rollout/late_fraction": len(lengths[True]) / (len(lengths[True]) + len(lengths[False])),
    }
    for name, values in (("late", lengths[True]), ("in_time", lengths[False])):
        if values:
            metrics[f"rollout/{name}_length_mean"] = sum(values) / len(values)
    return metrics


def dropped_metrics(lengths: Sequence[int]) -> dict[str, float]:
    """Of the tokens that were sampled of responses which are sampled again."""
    begun = [length for length in lengths if length]
    metrics = {"rollout/dropped_tokens": float(sum(begun))}
    if begun:
        metrics["rollout/dropped_length_mean"] = sum(begun) / len(begun)
    return metrics


def kl_metrics(batch: RolloutBatch, old: torch.Tensor | None) -> dict[str, float]:
    """Distance of the policy that sampled from the reference, in nats; no figures without a reference group."""
    log_ratio = reference_log_ratio(batch, old)
    if log_ratio is None:
        return {}
    k1 = kl_estimate(log_ratio, "k1")
    return {
        "kl/k1": float(k1.mean()),
        "kl/k3": float(kl_estimate(log_ratio, "k3").mean()),
        "kl/per_response": float(k1.sum()) / len(batch.rollouts),
    }


def response_metrics(batch: RolloutBatch) -> dict[str, float]:
    """Shape of the responses and per-view scores."""
    lengths = batch.lengths.double()
    responses = batch.responses
    traces = np.array([response.num_trace_tokens for response in responses])
    read = [refuses for refuses in batch.refusals if refuses is not None]
    metrics = {
        "response/length_mean": float(lengths.mean()),
        "response/length_max": float(lengths.max()),
        "response/trace_length_mean": float(traces.mean()),
        "response/answer_length_mean": float(lengths.mean()) - float(traces.mean()),
        "response/unfinished_fraction": _fraction([not response.finished for response in responses]),
        "response/malformed_fraction": _fraction([r.status in ("malformed", "empty_answer") for r in responses]),
        "response/refusal_unread_fraction": 1.0 - len(read) / len(responses),
        "reward/num_overlong": float(batch.scores.num_overlong),
        "reward/num_unread": float(batch.scores.num_unread),
        "reward/num_respelled": float(batch.scores.num_respelled),
        "reward/num_retries": float(batch.scores.num_retries),
    }
    if read:
        metrics["response/refusal_rate"] = _fraction(read)
    for name, values in batch.scores.by_model_and_view.items():
        metrics[f"reward/score/{name}"] = float(np.mean(values))
    return metrics


def entropy_metrics(
    batch: RolloutBatch, scores: dict[int, TokenScores], reflection_ids: frozenset[int]
) -> dict[str, float]:
    """Entropy over all, trace, answer and reflection tokens, in nats; a set without tokens has no figure.

    `scores` are the trainer's of the sampled tokens; a reflection token is one of `reflection_ids` inside a trace, and
    its entropy is that of the distribution it was drawn from.
    """
    parts: dict[str, list[np.ndarray]] = {"all": [], "trace": [], "answer": [], "reflection": []}
    wanted = np.fromiter(reflection_ids, dtype=np.int64)
    num_reflections = 0
    for index, (rollout, response) in enumerate(zip(batch.rollouts, batch.responses, strict=True)):
        entropy, cut = scores[index].entropy, response.num_trace_tokens
        reflects = np.isin(rollout.response_ids[:cut], wanted)
        num_reflections += int(reflects.sum())
        for name, values in (
            ("all", entropy),
            ("trace", entropy[:cut]),
            ("answer", entropy[cut:]),
            ("reflection", entropy[:cut][reflects]),
        ):
            parts[name].append(values)
    flat = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    metrics = {f"entropy/{name}": float(values.mean()) for name, values in flat.items() if len(values)}
    return metrics | {"reflection/count_per_response": num_reflections / len(batch.rollouts)}


def update_metrics(
    updates: list[Update], mini_batches: list[list[TrainingSequence]], algorithm: AlgorithmSettings
) -> dict[str, float]:
    """What the optimiser steps of one iteration did: means over the steps, or over their tokens, and beside them the
    largest of any step (`*_max`), which one number an iteration would hide.

    A step that was skipped counts in `train/num_skipped` alone; where all were, there is no other figure than NaN.
    """
    merged = TokenStatistics()
    by_step: list[dict[str, float]] = []
    num_bounded = 0
    taken = [pair for pair in zip(updates, mini_batches, strict=True) if pair[0].taken]
    for update, sequences in taken:
        new = _flat([update.scores[sequence.index].logprobs for sequence in sequences])
        # Without old log-probs this update is the first on fresh rollouts: the sampling policy is the present one.
        old = _flat(
            [
                update.scores[sequence.index].logprobs if sequence.old_logprobs is None else sequence.old_logprobs
                for sequence in sequences
            ]
        )
        values = _flat([_present(sequence.advantages) for sequence in sequences])
        surrogate = clipped_surrogate(new, old, values, algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip)
        stats = surrogate_stats(surrogate, new, old)
        num_bounded += int(surrogate.bounded.sum())
        step = stats.compute()
        by_step.append(
            {
                "loss": update.loss,
                "gradient_norm": update.gradient_norm,
                "lr": update.lr,
                "clip_fraction_low": step["clip_fraction_low"],
                "clip_fraction_high": step["clip_fraction_high"],
                "policy_kl": step["approximate_kl"],
            }
        )
        if algorithm.kl.placement == "loss":
            by_step[-1] |= {"policy_loss": update.loss - update.kl_loss, "kl_loss": update.kl_loss}
        merged.merge(stats)
    figures = merged.compute()
    joined = {
        "train/ratio_mean": figures.get("ratio_mean", math.nan),
        "train/ratio_max": figures.get("ratio_max", math.nan),
        "train/clip_fraction_low": figures.get("clip_fraction_low", math.nan),
        "train/clip_fraction_high": figures.get("clip_fraction_high", math.nan),
        "train/dual_clip_fraction": figures.get("dual_clip_fraction", math.nan),
        "train/policy_kl": figures.get("approximate_kl", math.nan),
        "train/num_bounded_ratios": float(num_bounded),
        "train/num_skipped": float(len(updates) - len(taken)),
    }
    for name in by_step[0] if by_step else ("loss", "gradient_norm", "lr"):
        of_steps = [one[name] for one in by_step] or [math.nan]
        joined.setdefault(f"train/{name}", sum(of_steps) / len(of_steps))
        joined[f"train/{name}_max"] = max(of_steps)
    return joined


def mismatch_metrics(
    trainer: list[np.ndarray],
    engine: list[np.ndarray],
    algorithm: AlgorithmSettings,
    ages: list[np.ndarray] | None = None,
) -> dict[str, float]:
    """Distance between the trainer's and the engine's log-probs of the same sampled tokens under the same weights.

    With the engine's log-probs as the old ones the importance weights compare them with themselves: nothing is corrected.
    `ages`: how many syncs older the weights were that sampled each token. Those of age 0 alone tell how far engine and trainer
    are apart, and without any there is no such figure; older ones tell how far the weights have moved. None: all are 0.
    """
    name = "off" if algorithm.old_logprobs == "rollout" else algorithm.correction
    correction = CORRECTIONS.get(name, "algorithm.correction")
    both = _flat(trainer), _flat(engine)
    figures = mismatch_stats(*both, correction, algorithm.correction_cap).compute()
    corrected = {"mismatch/corrected_fraction": figures["mismatch_corrected_fraction"]}
    if ages is not None:
        fresh = _flat(ages) == 0
        if not fresh.all():
            corrected["mismatch/stale_mean_abs_logprob"] = float((both[0] - both[1])[~fresh].double().abs().mean())
        if not fresh.any():
            return corrected
        figures = mismatch_stats(both[0][fresh], both[1][fresh], correction, algorithm.correction_cap).compute()
    return {
        "mismatch/mean_abs_logprob": figures["mismatch_mean_abs_delta"],
        "mismatch/q99_abs_logprob": figures["mismatch_q99_abs_delta"],
        "mismatch/max_abs_logprob": figures["mismatch_max_abs_delta"],
        "mismatch/mean_abs_probability": figures["mismatch_mean_abs_probability"],
        "mismatch/mean_exp": figures["mismatch_mean_ratio"],
        "mismatch/kl": figures["mismatch_kl"],
        **corrected,
    }


def _fraction(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def _flat(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts))


def _present(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values


def rollout_rows(run: PreparedRun, batch: RolloutBatch, shaped: Tensor | None) -> list[RolloutRow]:
    """One row per response of a batch; `shaped` is None when the run stopped before shaping."""
    rows = []
    for index, (rollout, response) in enumerate(zip(batch.rollouts, batch.responses, strict=True)):
        rows.append(
            RolloutRow(
                request_id=rollout.request_id,
                prompt_index=rollout.prompt_index,
                prompt_ids=rollout.prompt_ids,
                response_ids=rollout.response_ids,
                status=response.status,
                num_trace_tokens=response.num_trace_tokens,
                num_answer_tokens=response.num_answer_tokens,
                scores={name: float(values[index]) for name, values in batch.scores.by_model_and_view.items()},
                raw_reward=float(batch.scores.total[index]),
                shaped_reward=float("nan") if shaped is None else float(shaped[index]),
                prompt=run.prompts.rows[rollout.prompt_index].question,
                trace=response.trace,
                answer=response.answer,
            )
        )
    return rows
