"""Rules over evaluations (results.json of base and run, reflection analysis, reward audit), and their advice on beta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .evidence import Evidence, Finding, Measured, difference_interval
from .thresholds import (
    ENTROPY_FALL,
    ENTROPY_RISE,
    FEW_QUESTIONS,
    JUDGE_CEILING,
    KL_FAR,
    KL_NEAR,
    PENALTY_SHARE,
    THRESHOLDS,
    Level,
)

Direction = Literal["raise", "lower", "keep", "unknown"]


@dataclass(frozen=True)
class BetaAdvice:
    """Which way, why, and the figures that decided."""

    direction: Direction
    text: str
    evidence: tuple[Measured, ...]


def beta_advice(evidence: Evidence) -> BetaAdvice:
    """Decide by KL level, then by the penalty's share of the reward, then by the entropy of the trace."""
    kl, coef = evidence.late("kl/k3"), evidence.late("kl/coef")
    penalty, spread = evidence.late("reward/kl_penalty_mean"), evidence.late("reward/shaped_std")
    before, after = _entropy(evidence)
    seen = tuple(one for one in (kl, coef, penalty, spread, before, after) if one is not None)
    if kl is not None:
        drowned = False
        if penalty is not None and spread is not None:
            drowned = abs(penalty.value) > PENALTY_SHARE * max(spread.value, 1e-8)
        ratio = after.value / before.value if before is not None and after is not None and before.value > 0 else 1.0
        return BetaAdvice(*_direction(kl.value, coef, drowned, ratio), seen)
    if evidence.points("sft/loss"):
        text = (
            "Supervised fine-tuning has no beta: train fewer epochs, lower trainer.lr, or mix reasoning examples into the data; "
            "reinforcement learning with a KL term is the other way."
        )
        return BetaAdvice("unknown", text, seen)
    return BetaAdvice("unknown", "beta: no KL was recorded, so nothing says which way to move it.", seen)


def _direction(kl: float, coef: Measured | None, drowned: bool, entropy_ratio: float) -> tuple[Direction, str]:
    """Which way and why. `drowned`: the penalty is most of the reward. `entropy_ratio`: late over early, 1 where unknown."""
    at = f"KL to the reference is {kl:.3g} nats/token"
    if kl > KL_FAR:
        return "raise", (
            f"{_raise(coef, ' (2 to 5 times)')}: {at}, above {KL_FAR:g}: the policy has drifted, and reasoning went with "
            "it. A lower trainer.lr or fewer updates do the same."
        )
    if drowned:
        return "lower", (
            f"Lower algorithm.kl.coef (2 to 5 times): {at}, and the KL penalty is more than {PENALTY_SHARE:g} of the spread of the "
            "reward: over-regularised, what is learned is mostly the penalty."
        )
    if kl < KL_NEAR:
        return "keep", (
            f"Leave beta alone: {at}, below {KL_NEAR:g}: the policy has hardly moved, so drift is not the cause, and neither is "
            "the penalty. Look at truncation (rate/cut_off), format and the evaluation's noise first."
        )
    if entropy_ratio < ENTROPY_FALL:
        return "raise", (
            f"{_raise(coef)}: {at} and the entropy of the trace fell to {entropy_ratio:.2f} of its beginning: the policy is "
            "collapsing on few responses."
        )
    if entropy_ratio > ENTROPY_RISE:
        return "raise", (
            f"{_raise(coef)} or lower trainer.lr: {at} and the entropy of the trace grew to {entropy_ratio:.2f} of its "
            "beginning: the policy is being scattered."
        )
    return "keep", (
        f"Leave beta alone: {at}, between {KL_NEAR:g} and {KL_FAR:g}, and the entropy held. Look at the reward (what does it "
        "score low in correct reasoning?) and at the response limit first."
    )


def _raise(coef: Measured | None, times: str = "") -> str:
    """No multiple of 0 is more than 0."""
    return (
        "Set algorithm.kl.coef above 0" if coef is not None and coef.value == 0 else f"Raise algorithm.kl.coef{times}"
    )


def _entropy(evidence: Evidence) -> tuple[Measured | None, Measured | None]:
    name = "entropy/trace" if evidence.points("entropy/trace") else "entropy/all"
    return (evidence.early(name), evidence.late(name)) if evidence.early(name) else (None, None)


LABELS = ("label", "category", "level2", "functional_category", "risk")
"""Groups of a safety benchmark over which safety should be even."""
FORMAT_RATES = ("rate/empty_answer", "rate/no_trace", "rate/malformed", "rate/unfinished_trace")


def reasoning_loss(evidence: Evidence) -> list[Finding]:
    """Reasoning fell against base, relative to the base's score. A failure needs a fall that noise does not explain; inside
    training a fall that it explains is no finding at all."""
    if evidence.base is None or evidence.run is None:
        return []
    findings = []
    for name, entry in evidence.run.of_role("reasoning"):
        base, run = evidence.base.measured(name, entry.primary), evidence.run.measured(name)
        if base is None or run is None or base.value <= 0:
            continue
        fall = (base.value - run.value) / base.value
        if not (level := THRESHOLDS["reasoning_loss"].level(round(fall, 12))):
            continue
        interval = difference_interval(evidence.base, evidence.run, name)
        if evidence.run.in_training and (interval is None or interval[1] >= 0):
            continue
        if interval is None:
            level, noise = "warn", " (with so few questions in common this may be chance)"
        else:
            kind = "difference" if evidence.run.in_training else "paired difference"
            noise = f" ({kind} {interval[0]:+.3f} to {interval[1]:+.3f})"
            if interval[1] >= 0:
                level = "warn"
                noise = f"{noise[:-1]}: with so few questions this may be chance)"
        advice = beta_advice(evidence)
        findings.append(
            Finding(
                "reasoning_loss",
                level,
                f"{name} fell from {base.value:.3f} to {run.value:.3f}, {fall:.1%} of the base's score{noise}.",
                (base, run, *advice.evidence),
                advice.text,
            )
        )
    return findings


def uneven_safety(evidence: Evidence) -> list[Finding]:
    """Some labels stay unsafe while the others became safe."""
    if evidence.run is None:
        return []
    findings = []
    for name, entry in evidence.run.of_role("safety"):
        overall = evidence.run.measured(name)
        if overall is None:
            continue
        for group in LABELS:
            prefix = f"{entry.primary}@{group}="
            worse = []
            for figure, found in entry.figures.items():
                if not figure.startswith(prefix) or found.n < FEW_QUESTIONS or found.value is None:
                    continue
                gap = round(overall.value - found.value, 12)
                level = THRESHOLDS["uneven_safety"].level(gap)
                if level and found.high is not None and found.high < overall.value:
                    worse.append((gap, level, figure.removeprefix(prefix), found.value))
            if not worse:
                continue
            worse.sort(reverse=True)
            listed = ", ".join(f"{label} {value:.2f}" for _, _, label, value in worse)
            findings.append(
                Finding(
                    "uneven_safety",
                    worse[0][1],
                    f"Safety on {name} is uneven: overall {overall.value:.2f}, but {listed}.",
                    (
                        overall,
                        *(
                            Measured(f"{name} {prefix}{label}", value, evidence.run.source)
                            for _, _, label, value in worse
                        ),
                    ),
                    "Audit the reward model on these labels (lrm-safety audit-reward): where it does not separate safe from unsafe "
                    "texts, training cannot either; add prompts of these labels or a reward model that covers them.",
                )
            )
    return findings


def reward_transfer(evidence: Evidence) -> list[Finding]:
    """A reward that works on one family's texts and not on another's."""
    findings = []
    remedy = (
        "Do not carry a reward over to a family that it was not audited on: render that family's trace tags for the reward model "
        "(reward.models.NAME.views), or choose another reward model."
    )
    for family, separation in sorted(evidence.audit.items()):
        if level := THRESHOLDS["audit_separation"].level(round(1 - separation, 12)):
            findings.append(
                Finding(
                    "reward_transfer",
                    level,
                    f"The reward separates safe from unsafe texts of {family} with an AUC of {separation:.2f} only.",
                    (Measured(f"AUC on {family}", separation, evidence.audit_source),),
                    remedy,
                )
            )
    if len(evidence.gains) > 1:
        ranked = sorted(evidence.gains, key=evidence.gains.__getitem__)
        # A family that is safe had no room to gain, whatever the reward is worth there.
        unsafe = [family for family in ranked if evidence.reached.get(family, 0.0) < JUDGE_CEILING]
        worst, best = (unsafe or ranked[-1:])[0], ranked[-1]
        gap = round(evidence.gains[best] - evidence.gains[worst], 12)
        if level := THRESHOLDS["family_gain"].level(gap):
            findings.append(
                Finding(
                    "reward_transfer",
                    level,
                    f"The same reward moved the safety of {best} by {evidence.gains[best]:+.2f}, that of {worst} by "
                    f"{evidence.gains[worst]:+.2f}.",
                    tuple(
                        Measured(f"gain of {family}", evidence.gains[family], evidence.gains_source)
                        for family in (best, worst)
                    ),
                    remedy,
                )
            )
    return findings


def over_refusal(evidence: Evidence) -> list[Finding]:
    """Refuses what should be answered: XSTest's safe half, and benign prompts."""
    if evidence.run is None:
        return []
    findings = []
    remedy = (
        "Safety by refusing everything is none. Add benign prompts to the data, a reward that scores helpfulness on them, "
        "and watch response/refusal_rate; raise algorithm.kl.coef."
    )
    for name, entry in evidence.run.of_role("over_refusal"):
        run = evidence.run.measured(name)
        if run is None:
            continue
        base = evidence.base.measured(name, entry.primary) if evidence.base else None
        level = THRESHOLDS["over_refusal"].level(run.value)
        text = f"{run.value:.0%} of the safe prompts of {name} are refused or left without an answer"
        if base is not None:
            if run.value <= base.value or _chance(evidence, name, rising=True):
                continue  # the base's own, and not worse for the training
            text += f" (base {base.value:.0%})"
            rise = THRESHOLDS["over_refusal_rise"].level(round(run.value - base.value, 12))
            level = "fail" if "fail" in (level, rise) else level or rise
        if level:
            evidence_lines = (run,) if base is None else (base, run)
            level, noise = _noise(evidence, name, level, rising=True)
            findings.append(Finding("over_refusal", level, f"{text}{noise}.", evidence_lines, remedy))
    for name, entry in evidence.run.of_role("helpfulness"):
        run = evidence.run.measured(name)
        base = evidence.base.measured(name, entry.primary) if evidence.base else None
        if run is None or base is None:
            continue
        level = THRESHOLDS["helpfulness_loss"].level(round(base.value - run.value, 12))
        if level and not _chance(evidence, name, rising=False):
            level, noise = _noise(evidence, name, level, rising=False)
            text = f"Helpfulness on {name} fell from {base.value:.2f} to {run.value:.2f}{noise}."
            findings.append(Finding("over_refusal", level, text, (base, run), remedy))
    return findings


def _chance(evidence: Evidence, benchmark: str, figure: str | None = None, *, rising: bool) -> bool:
    """Whether noise explains a change that was seen inside training."""
    if evidence.base is None or evidence.run is None or not evidence.run.in_training:
        return False
    interval = difference_interval(evidence.base, evidence.run, benchmark, figure)
    return interval is None or (interval[0] <= 0 if rising else interval[1] >= 0)


def _noise(evidence: Evidence, benchmark: str, level: Level, *, rising: bool) -> tuple[Level, str]:
    """The level and what is said of noise: where it explains the change of an evaluation on its own, whose answers are known,
    that is never more than a warning."""
    base, run = evidence.base, evidence.run
    if base is None or run is None or run.in_training:
        return level, ""
    entries = [side.benchmarks.get(benchmark) for side in (base, run)]
    if any(one is None or not one.questions for one in entries):
        return level, ""
    interval = difference_interval(base, run, benchmark)
    if interval is None:
        return "warn", " (with so few questions in common this may be chance)"
    low, high = interval
    if low > 0 if rising else high < 0:
        return level, ""
    return "warn", f" (paired difference {low:+.3f} to {high:+.3f}: with so few questions this may be chance)"


def entropy_on_reasoning(evidence: Evidence) -> list[Finding]:
    """Reflection entropy should fall on forbidden prompts and hold on reasoning prompts."""
    findings = []
    for one in evidence.entropies:
        if one.role != "reasoning" or one.base <= 0:
            continue
        if level := THRESHOLDS["entropy_on_reasoning"].level(round(1 - one.run / one.base, 12)):
            findings.append(
                Finding(
                    "entropy_on_reasoning",
                    level,
                    f"Reflection entropy on {one.prompts} fell from {one.base:.3g} to {one.run:.3g} nats: the model became sure of "
                    "itself where it should still weigh, not on forbidden prompts alone.",
                    (
                        Measured(f"reflection entropy on {one.prompts}, base", one.base, one.source),
                        Measured(f"reflection entropy on {one.prompts}, run", one.run, one.source),
                    ),
                    "Raise algorithm.kl.coef or stop earlier; mix reasoning prompts into the data so that they keep their entropy.",
                )
            )
    return findings


def trace_format(evidence: Evidence) -> list[Finding]:
    """Empty, missing or malformed traces and answers, more of them than the base has."""
    if evidence.base is None or evidence.run is None:
        return []
    findings = []
    for name in evidence.run.benchmarks:
        for rate in FORMAT_RATES:
            base, run = evidence.base.measured(name, rate), evidence.run.measured(name, rate)
            if base is None or run is None:
                continue
            level = THRESHOLDS["trace_format"].level(round(run.value - base.value, 12))
            if level and not _chance(evidence, name, rate, rising=True):
                findings.append(
                    Finding(
                        "trace_format",
                        level,
                        f"{name}: {rate} rose from {base.value:.0%} to {run.value:.0%}.",
                        (base, run),
                        "Set reward.malformed_penalty and reward.unfinished_penalty, compare evaluation.max_response_tokens with "
                        "the lengths seen in training, and after SFT check that the family rendered the targets (no stripped "
                        "trace).",
                    )
                )
    return findings
