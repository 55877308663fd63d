"""The planner's few rates out of what a run recorded, and what of them holds for another configuration.

Pure arithmetic over means of records. A plan of the run's own configuration with its own rates gives its own seconds back,
phase by phase; that is what each rate is solved for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import ConfigError
from ...modeling.shapes import ModelShape, num_parameters
from ...schedule import needs_old_logprobs
from ...settings import Settings
from ...weight_sync.backends import is_colocated
from .assumptions import Assumptions, with_rates
from .duration import duration, operations
from .memory import GIB, GroupMemory, memory_of
from .observed import Observed
from .plan import concurrency, shapes
from .sampling import (
    busy_cores,
    bytes_of,
    largest_of,
    sampling,
    step_seconds,
    synced_parameters,
)

ERRORS = 4.0
"""Standard errors that each of two rates must lie above 0, or only their sum is believed."""
UNKNOWN_SHARE = 0.5
"""Of an engine's seconds that its steps take, where nothing tells."""
LARGEST_SHARE = 0.9
"""Of them that a step known by arithmetic may take."""


@dataclass(frozen=True)
class Calibration:
    """Rates of one run, as assumptions of a plan."""

    measured: Mapping[str, float]
    notes: tuple[str, ...] = ()
    """What does not carry over, or could not be measured; a sentence each."""


def calibrate(run: Observed, given: Assumptions) -> Calibration:
    """Rates of a run; `given` holds what the user knows of it, such as its model's config.json."""
    settings = run.settings
    policy, rewards = shapes(settings, given)
    base = with_rates(given, _lengths(run))
    needed = operations(settings, policy, rewards, base)
    found = _lengths(run) | _beside(run) | {"iteration_overhead_seconds": run.seconds("controller")}
    notes: list[str] = []
    found |= _engines(run, policy, with_rates(base, found), notes)
    found |= _rate("logprobs", needed.logprobs, run.seconds("logprobs"), _units(settings, "policy", base))
    found |= _updates(run, policy, rewards, base)
    found |= _scores(run, needed.reference, needed.reward, base, notes)
    found |= _sync(run, policy, base)
    if settings.algorithm.max_staleness:
        found |= _apart(run, policy, rewards, with_rates(base, found), notes)
    return Calibration(found | _processes(run, policy, base), tuple(notes))


def carried(found: Calibration, run: Observed, asked: Settings, given: Assumptions) -> Calibration:
    """What of a run's rates holds for another configuration; raises ConfigError where nothing does."""
    here, rates, notes = run.settings, dict(found.measured), list(found.notes)
    if asked.cluster.device != here.cluster.device:
        raise ConfigError(
            f"cluster.device={asked.cluster.device}: --from {run.folder} was measured with {here.cluster.device}, of which no rate "
            f"carries over; give a run with {asked.cluster.device}, or leave --from out"
        )
    if asked.model.family != here.model.family:
        for name in (
            "response_tokens",
            "longest_response_tokens",
            "response_spread",
            "dropped_tokens",
            "prompt_tokens",
        ):
            rates.pop(name, None)
        notes.append(
            f"model.family={asked.model.family}: the run's is {here.model.family}, and lengths do not carry over; those are "
            "assumed again (plan.response_tokens=VALUE)"
        )
    if asked.model.dtype != here.model.dtype:
        notes.append(f"model.dtype={asked.model.dtype}: the run's rates are those of {here.model.dtype}")
    if here.trainer_waits_for_samples and not asked.trainer_waits_for_samples:
        rates.pop("logprobs_tflops", None)
        if "update_tflops" in rates:
            rates["logprobs_tflops"] = rates["update_tflops"]
        if needs_old_logprobs(asked.algorithm, asked.algorithm.num_responses // asked.algorithm.mini_batch_size):
            notes.append(
                "the run computed log-probs while engines sampled, which leaves no speed of theirs: here they have a time of their "
                "own, at the speed of updates"
            )
    theirs, own = (
        shapes(asked, given)[0],
        shapes(here, Assumptions() if asked.model.path != here.model.path else given)[0],
    )
    ratio = (theirs.active_parameters or num_parameters(theirs)) / (own.active_parameters or num_parameters(own))
    wide = here.rollout.tensor_parallel_size / asked.rollout.tensor_parallel_size
    if ratio != 1:
        notes.append(
            f"model.path={asked.model.path}: {ratio:.3g} times the run's parameters; an engine's rates are scaled by that, "
            "operations/s are taken to stay: arithmetic, not measured"
        )
        for name in ("iteration_overhead_seconds", "startup_seconds", "checkpoint_seconds"):
            if name in rates:
                notes.append(f"plan.{name}: is that of the run's model")
    for name in ("step_ms", "token_ms"):
        if name in rates:
            rates[name] *= ratio * wide
    if asked.rollout.max_response_tokens != here.rollout.max_response_tokens and "response_tokens" in rates:
        notes.append(
            f"rollout.max_response_tokens={asked.rollout.max_response_tokens}: lengths are those under the run's "
            f"{here.rollout.max_response_tokens}, cut at the new limit"
        )
    if "longest_response_tokens" in rates:
        rates["longest_response_tokens"] = longest_of(
            [record["response/length_max"] for record in run.records],
            asked.algorithm.num_responses / here.algorithm.num_responses,
        )
    return Calibration(rates, tuple(notes))


def longest_of(lengths: Sequence[float], batches: float) -> float:
    """Expected longest response of a batch as large as so many of those whose longest are `lengths`.

    The mean of the largest over all ways to draw so many of them; a smaller batch is given their mean.
    """
    drawn = min(len(lengths), max(1, math.ceil(batches)))
    ways = math.comb(len(lengths), drawn)
    return (
        math.fsum(one * math.comb(below, drawn - 1) for below, one in enumerate(sorted(lengths)) if below >= drawn - 1)
        / ways
    )


def two_rates(seconds: Sequence[float], first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """a and b of seconds = a x first + b x second by least squares; None where the records do not tell them apart: fewer than
    four, or one of them not ERRORS standard errors above 0."""
    known, wanted = np.array([first, second], dtype=np.float64).T, np.asarray(seconds, dtype=np.float64)
    if len(wanted) < 4:
        return None
    scale = np.abs(known).max(axis=0)
    if not scale.all():
        return None
    columns = known / scale
    if np.linalg.matrix_rank(columns, tol=1e-6 * len(wanted)) < 2:
        return None
    inverse = np.linalg.inv(columns.T @ columns)
    rates = inverse @ columns.T @ wanted
    rest = wanted - columns @ rates
    errors = np.sqrt(float(rest @ rest) / (len(wanted) - 2) * np.diag(inverse))
    if not (rates > ERRORS * errors).all():
        return None
    return float(rates[0] / scale[0]), float(rates[1] / scale[1])


def _lengths(run: Observed) -> dict[str, float]:
    mean, longest = run.mean("response/length_mean"), run.mean("response/length_max")
    assert mean is not None and longest is not None
    responses = run.settings.algorithm.num_responses
    found = {"response_tokens": mean, "longest_response_tokens": longest}
    if responses > 1 and longest > mean:
        found["response_spread"] = (longest / mean - 1) / largest_of(responses)
    if (dropped := run.mean("rollout/dropped_length_mean")) is not None and dropped > 0:
        found["dropped_tokens"] = dropped
    if run.prompt_tokens:
        found["prompt_tokens"] = run.prompt_tokens
    return found


def _beside(run: Observed) -> dict[str, float]:
    return {f"{name}_seconds": seconds for name, seconds in run.beside.items()}


def _units(settings: Settings, group: str, assumed: Assumptions) -> float:
    """GPUs of a group, or cores that it keeps busy."""
    workers = getattr(settings.cluster, group)
    on_gpu = settings.cluster.device == "cuda" and workers.gpus_per_worker > 0
    return float(workers.num_workers) if on_gpu else busy_cores(settings, group, assumed)


def _rate(phase: str, needed: float, seconds: float, units: float) -> dict[str, float]:
    """Operations per second of a unit, in TFLOP/s; nothing where there was no such phase."""
    return {f"{phase}_tflops": needed / (seconds * units * 1e12)} if needed and seconds > 0 else {}


def _engines(run: Observed, policy: ModelShape, base: Assumptions, notes: list[str]) -> dict[str, float]:
    """Milliseconds of a step and of a token."""
    settings, algorithm = run.settings, run.settings.algorithm

    def planned(step_ms: float, token_ms: float, mean: float, longest: float) -> float:
        assumed = replace(
            base, step_ms=step_ms, token_ms=token_ms, response_tokens=mean, longest_response_tokens=longest
        )
        given = sampling(settings, 1, assumed, concurrency(settings, policy, assumed))
        return given.continuous if algorithm.max_staleness else given.in_turn

    means = (base.response_tokens or 0.0, base.longest_response_tokens or 0.0)
    # Engines that sample ahead are waited for as long as a batch takes them, less what the trainer had to do meanwhile.
    if algorithm.max_staleness:
        seen = (_work(run, "rollout") or 0.0) - run.seconds("sync") - run.seconds("evaluate")
        if seen <= 0:
            notes.append(
                "engines sampled ahead, and speed/busy_rollout does not tell how long: their rates are assumed"
            )
            return {}
        notes.append("engines sampled ahead: their speed is by the share of the time that they were at work")
        pair = None
    else:
        seen = run.seconds("generate")
        ones = [
            (record["response/length_mean"], record["response/length_max"], record["time/generate_seconds"])
            for record in run.records
        ]
        pair = two_rates(
            [seconds for *_, seconds in ones],
            [planned(1.0, 0.0, mean, longest) for mean, longest, _ in ones],
            [planned(0.0, 1.0, mean, longest) for mean, longest, _ in ones],
        )
    steps, tokens = planned(1.0, 0.0, *means), planned(0.0, 1.0, *means)
    if pair is not None:
        factor = seen / (pair[0] * steps + pair[1] * tokens)
        return {"step_ms": pair[0] * factor, "token_ms": pair[1] * factor}
    share, reason = UNKNOWN_SHARE, "half of them are taken to be its steps"
    if settings.cluster.device == "cuda":
        active = policy.active_parameters or num_parameters(policy)
        share = min(LARGEST_SHARE, 1000 * step_seconds(settings, active, base) * steps / seen)
        reason = "its steps are taken to be as long as arithmetic says"
    if (
        algorithm.max_staleness
    ):  # the longest response cannot have lasted longer than its batch was begun before it was learned from
        longest = run.iteration_seconds * algorithm.max_staleness + run.seconds("generate")
        share = min(share, longest / means[1] * steps / seen)
    notes.append(
        f"lengths vary too little from record to record to tell an engine's seconds apart into steps and tokens: {reason}"
    )
    return {"step_ms": share * seen / steps, "token_ms": (1 - share) * seen / tokens}


def _updates(
    run: Observed, policy: ModelShape, rewards: Mapping[str, ModelShape], base: Assumptions
) -> dict[str, float]:
    """Operations per second of the updates, with what each takes beside where records tell the two apart."""
    settings, units = run.settings, _units(run.settings, "policy", base)
    updates = settings.algorithm.num_responses // settings.algorithm.mini_batch_size
    ones = [
        (
            operations(settings, policy, rewards, replace(base, response_tokens=record["response/length_mean"])).update,
            record["time/update_seconds"],
        )
        for record in run.records
    ]
    pair = two_rates([seconds for _, seconds in ones], [float(updates)] * len(ones), [needed for needed, _ in ones])
    needed, seen = operations(settings, policy, rewards, base).update, run.seconds("update")
    if pair is None:
        return _rate("update", needed, seen, units)
    factor = seen / (pair[0] * updates + pair[1] * needed)
    return {"update_overhead_seconds": pair[0] * factor, "update_tflops": 1 / (pair[1] * factor * units * 1e12)}


def _apart(
    run: Observed, policy: ModelShape, rewards: Mapping[str, ModelShape], measured: Assumptions, notes: list[str]
) -> dict[str, float]:
    """Rates of engines and ranks that worked at the same time and waited for each other's cores, each as if alone: so much faster
    that both together take what the iteration took. Nothing where they did not wait, by the plan."""
    names = ("step_ms", "token_ms", "update_overhead_seconds", "update_tflops", "logprobs_tflops")

    def scaled(share: float) -> dict[str, float]:
        known = {name: value for name in names if (value := getattr(measured, name))}
        return {name: value / share if name.endswith("tflops") else value * share for name, value in known.items()}

    def planned(share: float) -> float:
        assumed = with_rates(measured, scaled(share))
        cached = concurrency(run.settings, policy, assumed)
        return duration(run.settings, policy, rewards, assumed, cached).iteration_seconds

    if planned(1.0) <= run.iteration_seconds * (1 + 1e-9):
        return {}
    low, high = 1e-3, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if planned(middle) > run.iteration_seconds else (middle, high)
    notes.append(
        f"engines and trainer worked at the same time: alone each is taken to need {100 * low:.0f} % of the seconds that it was at "
        "work, so that both together take what the iteration took"
    )
    return scaled(low)


def _scores(run: Observed, reference: float, reward: float, base: Assumptions, notes: list[str]) -> dict[str, float]:
    """What reward and reference workers were at work for, and what of it the loop waited for."""
    settings, found = run.settings, dict[str, float]()
    workers, responses = settings.cluster.reward.num_workers, settings.algorithm.num_responses
    work = {group: _work(run, group) for group in ("reward", "reference")}
    if settings.algorithm.kl.placement == "none":
        work["reference"] = None
    elif work["reference"] is None:
        notes.append("the reference's share of the time was not recorded (speed/busy_reference): its speed is assumed")
    if work["reward"] is None:
        notes.append(
            "the reward workers' share of the time was not recorded (speed/busy_reward): their speed is assumed"
        )
    if work["reference"]:
        found |= _rate("reference", reference, work["reference"], _units(settings, "reference", base))
    if work["reward"]:
        if reward:
            found |= _rate("reward", reward, work["reward"], _units(settings, "reward", base))
        else:
            found["reward_seconds"] = work["reward"] * workers / responses
    longest = max((seconds for seconds in work.values() if seconds), default=0.0)
    if longest and run.seconds("score_wait") > 0:
        share = min(1.0, settings.rollout.stream_chunk_size / responses)
        found["score_tail_chunks"] = run.seconds("score_wait") / (longest * share)
    return found


def _work(run: Observed, group: str) -> float | None:
    """Mean seconds of an iteration that a worker of a group was at work; None: it was not recorded. No more than generating and
    waiting for scores took, while which alone there is something to score, unless engines sample ahead."""
    busy = [
        record[f"speed/busy_{group}"] * _worked(record) for record in run.records if f"speed/busy_{group}" in record
    ]
    if not busy:
        return None
    seen = math.fsum(busy) / len(busy)
    if run.settings.algorithm.max_staleness:
        return seen
    return min(seen, run.seconds("generate") + run.seconds("score_wait"))


def _worked(record: Mapping[str, float]) -> float:
    """Seconds that speed/busy_* is a share of."""
    idle = math.fsum(record.get(f"time/{name}_seconds", 0.0) for name in ("startup", "profile"))
    return record.get("time/iteration_seconds", 0.0) - idle


def _sync(run: Observed, policy: ModelShape, base: Assumptions) -> dict[str, float]:
    seen, size = run.seconds("sync"), bytes_of(run.settings) * synced_parameters(run.settings, policy)
    if seen <= 0:
        return {}
    planned = size / (base.sync_gib_per_second * GIB)
    if not (is_colocated(run.settings.cluster) and run.settings.cluster.device == "cuda"):
        return {"sync_gib_per_second": size / (seen * GIB)}
    # The optimiser's way off the GPU and back is in the same seconds: both are as many times slower or faster than assumed.
    offloaded = memory_of(run.settings, policy, {}, base)["policy"].offloaded
    exchange = 2 * offloaded / (base.host_copy_gib_per_second * GIB)
    factor = (planned + exchange) / seen
    return {
        "sync_gib_per_second": base.sync_gib_per_second * factor,
        "host_copy_gib_per_second": base.host_copy_gib_per_second * factor,
    }


def _processes(run: Observed, policy: ModelShape, base: Assumptions) -> dict[str, float]:
    """On the CPU what a process takes beside what the plan counts in it."""
    if run.settings.cluster.device != "cpu":
        return {}
    without = with_rates(base, {f"{group}_process_gib": 1e-9 for group in run.peaks_gib})
    planned = _groups(run, without)
    return {
        f"{group}_process_gib": max(1e-9, peak - (planned[group].total + planned[group].host_bytes) / GIB)
        for group, peak in run.peaks_gib.items()
        if group in planned
    }


def _groups(run: Observed, assumed: Assumptions) -> Mapping[str, GroupMemory]:
    policy, rewards = shapes(run.settings, assumed)
    models = run.settings.reward.models
    return memory_of(run.settings, policy, {name: (models[name], shape) for name, shape in rewards.items()}, assumed)
