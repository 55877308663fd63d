"""Which way beta should move when reasoning was lost.

Published advice contradicts itself, because two causes look alike in the score: a policy that drifted far from its
reference (raise beta), and a penalty so strong that the normalised advantage is mostly penalty (lower beta: what
is learned then is noise). The KL level tells them apart, the penalty's share of the reward and the entropy decide the
rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .evidence import Evidence, Measured

KL_FAR = 0.1
"""nats/token of k3 above which the policy is far from its reference: over a trace of 1,000 tokens, 100 nats."""
KL_NEAR = 0.01
"""nats/token below which it has hardly moved."""
PENALTY_SHARE = 0.5
"""|KL penalty| / standard deviation of the shaped score above which the penalty drowns the reward."""
ENTROPY_FALL, ENTROPY_RISE = 0.5, 1.5
"""Ratios of late to early entropy of the trace."""

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
    if kl is None and evidence.points("sft/loss"):
        return BetaAdvice(
            "unknown",
            "Supervised fine-tuning has no beta: train fewer epochs, lower trainer.lr, or mix reasoning examples into the data; "
            "reinforcement learning with a KL term is the other way.",
            seen,
        )
    if kl is None:
        return BetaAdvice("unknown", "beta: no KL was recorded, so nothing says which way to move it.", seen)
    at = f"KL to the reference is {kl.value:.3g} nats/token"
    drowned = (
        penalty is not None and spread is not None and abs(penalty.value) > PENALTY_SHARE * max(spread.value, 1e-8)
    )
    if kl.value > KL_FAR:
        return BetaAdvice(
            "raise",
            f"{_raise(coef, ' (2 to 5 times)')}: {at}, above {KL_FAR:g}: the policy has drifted, and reasoning went with "
            "it. A lower trainer.lr or fewer updates do the same.",
            seen,
        )
    if drowned:
        return BetaAdvice(
            "lower",
            f"Lower algorithm.kl.coef (2 to 5 times): {at}, and the KL penalty is more than {PENALTY_SHARE:g} of the spread of the "
            "reward: over-regularised, what is learned is mostly the penalty.",
            seen,
        )
    if before is not None and after is not None and before.value > 0:
        ratio = after.value / before.value
        if ratio < ENTROPY_FALL and kl.value >= KL_NEAR:
            return BetaAdvice(
                "raise",
                f"{_raise(coef)}: {at} and the entropy of the trace fell to {ratio:.2f} of its beginning: the policy is "
                "collapsing on few responses.",
                seen,
            )
        if ratio > ENTROPY_RISE and kl.value >= KL_NEAR:
            return BetaAdvice(
                "raise",
                f"{_raise(coef)} or lower trainer.lr: {at} and the entropy of the trace grew to {ratio:.2f} of its "
                "beginning: the policy is being scattered.",
                seen,
            )
    if kl.value < KL_NEAR:
        return BetaAdvice(
            "keep",
            f"Leave beta alone: {at}, below {KL_NEAR:g}: the policy has hardly moved, so drift is not the cause, and neither is "
            "the penalty. Look at truncation (rate/cut_off), format and the evaluation's noise first.",
            seen,
        )
    return BetaAdvice(
        "keep",
        f"Leave beta alone: {at}, between {KL_NEAR:g} and {KL_FAR:g}, and the entropy held. Look at the reward (what does it "
        "score low in correct reasoning?) and at the response limit first.",
        seen,
    )


def _raise(coef: Measured | None, times: str = "") -> str:
    """No multiple of 0 is more than 0."""
    return (
        "Set algorithm.kl.coef above 0" if coef is not None and coef.value == 0 else f"Raise algorithm.kl.coef{times}"
    )


def _entropy(evidence: Evidence) -> tuple[Measured | None, Measured | None]:
    name = "entropy/trace" if evidence.points("entropy/trace") else "entropy/all"
    return (evidence.early(name), evidence.late(name)) if evidence.early(name) else (None, None)
