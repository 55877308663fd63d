"""Findings for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from .evidence import Finding

MARKS = {"fail": ("FAIL", "bold red"), "warn": ("WARN", "yellow")}


def lines(finding: Finding) -> list[str]:
    """One finding as plain lines: level and what was seen, the figures, the remedy."""
    word = MARKS[finding.level][0]
    figures = [f"     {measured}" for measured in finding.evidence]
    return [f"{word} {finding.rule}: {finding.text}", *figures, f"     remedy: {finding.remedy}"]


def show(findings: Sequence[Finding], console: Console) -> None:
    """Level, what was seen, the figures, the remedy; one line when there is nothing."""
    if not findings:
        console.print("diagnosis: no failure signature found in the figures that are there")
    for finding in findings:
        head, *rest = lines(finding)
        word, style = MARKS[finding.level]
        marked = len(f"{word} {finding.rule}:")
        console.print(Text(head[:marked], style=style).append(head[marked:], style="default"), soft_wrap=True)
        for line in rest:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
