"""The failure signatures, one function each: Evidence in, findings out.

Every threshold is a constant of thresholds.py, with its unit; docs/report.md lists them. A rule whose
figures are absent says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from .in_training import in_training
from .training_rules import (
    collapsed_traces,
    engine_mismatch,
    entropy_collapse,
    kl_blow_up,
    length_drift,
    overfitting,
    reward_hacking,
)

Rule = Callable[[Evidence], list[Finding]]

RULES: tuple[Rule, ...] = (
    reasoning_loss,
    uneven_safety,
    reward_transfer,
    over_refusal,
    entropy_on_reasoning,
    trace_format,
    kl_blow_up,
    engine_mismatch,
    collapsed_traces,
    length_drift,
    entropy_collapse,
    reward_hacking,
    overfitting,
)
_ORDER: dict[Level, int] = {"fail": 0, "warn": 1}


def diagnose(evidence: Evidence) -> list[Finding]:
    """All findings, failures first, otherwise in the order of the rules.

    A run that was not evaluated on its own is judged by the evaluation inside its training.
    """
    if evidence.run is None and (found := in_training(evidence)) is not None:
        evidence = replace(evidence, base=found[0], run=found[1])
    return sorted(chain.from_iterable(rule(evidence) for rule in RULES), key=lambda finding: _ORDER[finding.level])
