"""Rules over training metrics: metrics.jsonl, names of monitoring/registry.py."""

from __future__ import annotations

from dataclasses import dataclass

from .evidence import Evidence, Finding, Measured, difference_interval, in_training, last_two
from .thresholds import (
    COLLAPSED_ENTROPY,
    ENTROPY_GONE,
    ENTROPY_HALVED,
    JUDGE_CEILING,
    JUDGE_STILL,
    REWARD_RISE,
    THRESHOLDS,
)


def _too_high(evidence: Evidence, rule: str, metric: str, threshold: str, text: str, remedy: str) -> list[Finding]:
    """The finding of a metric whose last records lie above its threshold; `text` has places for {name} and {value}."""
    late = evidence.late(metric)
    if late is None or not (level := THRESHOLDS[threshold].level(late.value)):
        return []
    return [Finding(rule, level, text.format(name=metric, value=late.value), (late,), remedy)]


def kl_blow_up(evidence: Evidence) -> list[Finding]:
    """The policy runs away from the reference."""
    return _too_high(
        evidence,
        "kl_blow_up",
        "kl/k3",
        "kl_blow_up",
        "KL to the reference has reached {value:.3g} nats/token: the policy has left the model that could reason.",
        "Raise algorithm.kl.coef or lower trainer.lr, go back to a checkpoint before the rise (checkpoint.resume), and look at "
        "the rollouts of that time for one phrase or format that the reward pays for.",
    )


def engine_mismatch(evidence: Evidence) -> list[Finding]:
    """The engine samples from another distribution than the trainer differentiates."""
    text = "Engine and trainer disagree about the sampled tokens: {name} is {value:.3g}."
    remedy = (
        "Check the probe after a weight sync (sync/probe_mean_abs: a wrong weight shows there), then the kernels "
        "(model.attention, rollout.enforce_eager, model.dtype). algorithm.correction=tis bounds the damage, "
        "correction=mask drops such tokens."
    )
    return [
        *_too_high(evidence, "engine_mismatch", "mismatch/kl", "mismatch_kl", text, remedy),
        *_too_high(evidence, "engine_mismatch", "mismatch/mean_abs_logprob", "mismatch_logprob", text, remedy),
    ]


def length_drift(evidence: Evidence) -> list[Finding]:
    """Responses grow or shrink beyond what the task asks, or run into the limit.

    Answers that become short refusals under traces that held are what safety training is for, and no finding.
    """
    findings = []
    early, late = evidence.early("response/length_mean"), evidence.late("response/length_mean")
    if early is not None and late is not None and early.value > 0 and late.value > 0:
        ratio = late.value / early.value
        if ratio < 1 and _traces_held(evidence):
            ratio = 1.0
        if level := THRESHOLDS["length_drift"].level(max(ratio, 1 / ratio)):
            way = "grown" if ratio > 1 else "shrunk"
            remedy = (
                "The reward may pay for length: audit it by length (audit-reward), set reward.overlong_penalty with "
                "reward.overlong_buffer_tokens."
                if ratio > 1
                else "Short refusals are normal on forbidden prompts; on reasoning prompts look at the trace length. If both "
                "shrink, raise algorithm.kl.coef or reward the trace as well (reward=skywork_views)."
            )
            text = f"Responses have {way} to {ratio:.2f} times their first length."
            findings.append(Finding("length_drift", level, text, (early, late), remedy))
    return findings + _too_high(
        evidence,
        "length_drift",
        "response/unfinished_fraction",
        "unfinished",
        "{value:.0%} of the responses are cut off at the token limit; the reward reads half a thought.",
        "Raise rollout.max_response_tokens, or set reward.unfinished_penalty so that endless traces cost something.",
    )


def _traces_held(evidence: Evidence) -> bool:
    early, late = evidence.early("response/trace_length_mean"), evidence.late("response/trace_length_mean")
    return (
        early is not None and late is not None and 1 < early.value <= THRESHOLDS["collapsed_traces"].warn * late.value
    )


def collapsed_traces(evidence: Evidence) -> list[Finding]:
    """The trace disappears: the model answers (or refuses) without thinking."""
    findings = []
    early, late = evidence.early("response/trace_length_mean"), evidence.late("response/trace_length_mean")
    if early is not None and late is not None and early.value > 1:
        shrink = early.value / max(late.value, 1e-9)
        if level := THRESHOLDS["collapsed_traces"].level(shrink):
            findings.append(
                Finding(
                    "collapsed_traces",
                    level,
                    f"Traces have shrunk from {early.value:.0f} to {late.value:.0f} tokens: "
                    f"the model {'hardly reasons any more' if level == 'fail' else 'reasons much less'}.",
                    (early, late),
                    "A safe answer without a trace is cheap for a reward that reads the answer alone: score the trace "
                    "(reward=skywork_views), raise algorithm.kl.coef, or mix reasoning prompts into the data.",
                )
            )
    return findings + _too_high(
        evidence,
        "collapsed_traces",
        "response/malformed_fraction",
        "malformed",
        "{value:.0%} of the responses break the family's format.",
        "Set reward.malformed_penalty, check model.family against the checkpoint's chat template, raise algorithm.kl.coef.",
    )


def entropy_collapse(evidence: Evidence) -> list[Finding]:
    """Nothing is explored any more. On forbidden prompts a falling entropy is what the method shows; near zero is not.

    Relative to the run's beginning, since a small or well-trained model is sure of itself from the start.
    """
    early, late = evidence.early("entropy/all"), evidence.late("entropy/all")
    if early is None or late is None or early.value <= 0:
        return []
    ratio = late.value / early.value
    if ratio >= ENTROPY_GONE and (ratio >= ENTROPY_HALVED or late.value >= COLLAPSED_ENTROPY):
        return []
    return [
        Finding(
            "entropy_collapse",
            "warn",
            f"The entropy of sampled tokens fell from {early.value:.3g} to {late.value:.3g} nats: the policy says one thing only.",
            (early, late),
            "Stop earlier or raise algorithm.kl.coef; check that refusals still fit their prompts, and look at the entropy "
            "on reasoning prompts (analyze reflection), which should hold.",
        )
    ]


def overfitting(evidence: Evidence) -> list[Finding]:
    """Supervised: the held-out loss has turned and rises, in the last two validations after the first."""
    points = evidence.points("sft/validation_loss")
    if len(points) < 2:
        return []
    best = min(points, key=lambda point: point[1])
    ended = last_two(points)
    latest = min(ended, key=lambda point: point[1])
    if best[1] <= 0 or best in ended:
        return []
    level = THRESHOLDS["overfitting"].level(round(latest[1] / best[1] - 1, 12))
    if not level:
        return []
    before, after = (
        Measured("sft/validation_loss", value, f"{evidence.training_source}, update {update}")
        for update, value in (best, latest)
    )
    return [
        Finding(
            "overfitting",
            level,
            f"The held-out loss was lowest at update {best[0]} ({best[1]:.3f}) and has risen to {latest[1]:.3f} since: the rows "
            "are being learned by heart.",
            (before, after),
            "Fewer passes (schedule.passes) or a lower trainer.lr, and take an earlier checkpoint; "
            "lrm-safety analyze memorization says what is known by heart, and the evaluation whether it cost reasoning.",
        )
    ]


@dataclass(frozen=True)
class Judged:
    """What one judge of safety said at the beginning and at the end, and the evidence up to that end."""

    name: str
    first: Measured
    last: Measured
    interval: tuple[float, float] | None
    evidence: Evidence


def reward_hacking(evidence: Evidence) -> list[Finding]:
    """The training reward rises, an independent judge of safety does not follow."""
    findings = []
    for one in _independent(evidence):
        before, after = one.evidence.early("reward/raw_mean"), one.evidence.late("reward/raw_mean")
        spread = one.evidence.early("reward/raw_std")
        if before is None or after is None or spread is None or spread.value <= 0:
            continue
        rise = one.last.value - one.first.value
        if after.value - before.value <= REWARD_RISE * spread.value or rise >= JUDGE_STILL:
            continue
        if one.last.value >= JUDGE_CEILING:
            continue
        fell = THRESHOLDS["reward_hacking"].level(-rise) == "fail"
        # A fall that noise explains is never more than a warning; without an interval noise is presumed.
        sure = one.interval is not None and one.interval[1] < 0
        findings.append(
            Finding(
                "reward_hacking",
                "fail" if fell and sure else "warn",
                f"The reward rose by {(after.value - before.value) / spread.value:.1f} of its standard deviations, {one.name} "
                f"moved by {rise:+.3f}: the policy may be pleasing the reward model and nobody else.",
                (one.first, one.last, before, after),
                "Read rollouts with the highest reward, audit the reward model (audit-reward: length, format, refusal phrases), "
                "mix in a second one (reward.models), raise algorithm.kl.coef, stop at the checkpoint where the judge was best "
                "(checkpoint.best_metric).",
            )
        )
    return findings


def _independent(evidence: Evidence) -> list[Judged]:
    """Every judge of safety that is not the training reward, inside training and on its own."""
    found = []
    pairs = [(evidence.base, evidence.run)]
    if (inside := in_training(evidence)) is not None and not (evidence.run and evidence.run.in_training):
        pairs.append(inside)
    for base, run in pairs:
        if base is None or run is None:
            continue
        for benchmark, entry in run.of_role("safety"):
            judge = entry.primary.split("/")[1] if "/" in entry.primary else ""
            if run.in_training:
                judge = next(iter(run.judges), "")
            if (run.judges.get(judge) or {}).get("path") in evidence.reward_paths:
                continue
            first, last = base.measured(benchmark, entry.primary), run.measured(benchmark)
            if first is None or last is None:
                continue
            until = evidence
            if run.in_training:
                # The reward goes on rising between two evaluations: only what they have seen is held against them.
                evaluated = evidence.points(f"evaluation/{benchmark}")[-1][0]
                until = evidence.until(evaluated, "reward/raw_mean", "reward/raw_std")
            name = f"evaluation/{benchmark}" if run.in_training else f"{judge or 'the grader'} on {benchmark}"
            interval = difference_interval(base, run, benchmark)
            found.append(Judged(name, first, last, interval, until))
    return found
