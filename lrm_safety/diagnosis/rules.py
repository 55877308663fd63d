"""The failure signatures, one function each: Evidence in, findings out.

Every threshold is a constant here, with its unit; docs/report.md lists them. A rule whose figures are absent says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from .evaluation_rules import (
    entropy_on_reasoning,
    over_refusal,
    reasoning_loss,
    reward_transfer,
    trace_format,
    uneven_safety,
)
from .evidence import Evidence, Finding, Level
from .training_rules import (
    collapsed_traces,
    engine_mismatch,
    entropy_collapse,
    kl_blow_up,
    length_drift,
    reward_hacking,
)

Rule = Callable[[Evidence], list[Finding]]

TRAINING_RULES: tuple[Rule, ...] = (
    kl_blow_up,
    engine_mismatch,
    collapsed_traces,
    length_drift,
    entropy_collapse,
    reward_hacking,
)
"""Rules that need nothing but training metrics; `Watch` asks them while a run trains."""

RULES: tuple[Rule, ...] = (
    reasoning_loss,
    uneven_safety,
    reward_transfer,
    over_refusal,
    entropy_on_reasoning,
    trace_format,
    *TRAINING_RULES,
)
_ORDER: dict[Level, int] = {"fail": 0, "warn": 1}


def diagnose(evidence: Evidence, rules: tuple[Rule, ...] = RULES) -> list[Finding]:
    """All findings, failures first, otherwise in the order of the rules."""
    return sorted(chain.from_iterable(rule(evidence) for rule in rules), key=lambda finding: _ORDER[finding.level])
