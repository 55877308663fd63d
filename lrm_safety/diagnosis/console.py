"""Findings for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from .evidence import Finding

MARKS = {"fail": ("FAIL", "bold red"), "warn": ("WARN", "yellow")}


def show(findings: Sequence[Finding], console: Console) -> None:
    """Level, what was seen, the figures, the remedy; one line when there is nothing."""
    if not findings:
        console.print("diagnosis: no failure signature found in the figures that are there")
    for finding in findings:
        word, style = MARKS[finding.level]
        console.print(
            Text(f"{word} {finding.rule}: ", style=style).append(finding.text, style="default"), soft_wrap=True
        )
        for measured in finding.evidence:
            console.print(f"     {measured}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"     remedy: {finding.remedy}", highlight=False, markup=False, soft_wrap=True)
