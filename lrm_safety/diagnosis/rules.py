"""All rules over one run: at its end or while it trains, and what they found for a terminal.

A rule is a function, Evidence in and findings out, with its thresholds in thresholds.py; one whose figures are absent says
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from rich.console import Console
from rich.text import Text

from .evaluation_rules import (
    entropy_on_reasoning,
    over_refusal,
    reasoning_loss,
    reward_transfer,
    trace_format,
    uneven_safety,
)
from .evidence import Evidence, Finding, Level, in_training
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


PROGRESS = ("train/loss", "sft/loss")
"""One of them is in every record of training, and in no record of an evaluation."""


class Watch:
    """Keeps what was recorded and says what is new about it; a warning that becomes a failure is said again."""

    def __init__(self, min_records: int = 10, about: Evidence | None = None) -> None:
        """`about` is what is known of the run besides its records: its reward and its judges."""
        self._min_records = min_records
        self._about = about or Evidence()
        self._series: dict[str, list[tuple[int, float]]] = {}
        self._said: set[tuple[str, str, str]] = set()

    def remember(self, update: int, metrics: Mapping[str, float]) -> None:
        """Take a record that was judged before, as a resume finds it."""
        for name, value in metrics.items():
            self._series.setdefault(name, []).append((update, float(value)))

    def said(self, rule: str, subject: str, level: str) -> None:
        """Take note of a finding that was said before: its first figure's name is its subject."""
        # What has failed is not announced as a warning when it gets better.
        self._said |= {(rule, subject, level), (rule, subject, "warn")}

    def fresh(self, update: int, metrics: Mapping[str, float]) -> list[Finding]:
        """Findings after this record that were not said before; none before `min_records` records of training."""
        self.remember(update, metrics)
        if max(len(self._series.get(name, ())) for name in PROGRESS) < self._min_records:
            return []
        findings = []
        for finding in diagnose(replace(self._about, training=self._series)):
            subject = finding.evidence[0].name
            if (finding.rule, subject, finding.level) not in self._said:
                self.said(finding.rule, subject, finding.level)
                findings.append(finding)
        return findings


MARKS = {"fail": ("FAIL", "bold red"), "warn": ("WARN", "yellow")}


def finding_lines(finding: Finding) -> list[str]:
    """One finding as plain lines: level and what was seen, the figures, the remedy."""
    word = MARKS[finding.level][0]
    figures = [f"     {measured}" for measured in finding.evidence]
    return [f"{word} {finding.rule}: {finding.text}", *figures, f"     remedy: {finding.remedy}"]


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """Level, what was seen, the figures, the remedy; one line when there is nothing."""
    if not findings:
        console.print("diagnosis: no failure signature found in the figures that are there")
    for finding in findings:
        head, *rest = finding_lines(finding)
        word, style = MARKS[finding.level]
        marked = len(f"{word} {finding.rule}:")
        console.print(Text(head[:marked], style=style).append(head[marked:], style="default"), soft_wrap=True)
        for line in rest:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
