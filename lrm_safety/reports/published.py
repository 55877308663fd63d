"""The paper's own figures, as printed there. Other models, other data, another judge: shown beside ours, never mixed in."""

from __future__ import annotations

PAPER = "Beyond SFT"
BENCHMARKS: dict[str, dict[str, str]] = {
    "attaq": {"base": "0.37", "sft": "0.76", "rl": "0.92"},
    "gpqa_diamond": {"base": "49.24", "sft": "47.54", "rl": "49.06"},
}
"""By benchmark and role."""
UNITS = {"gpqa_diamond": "%"}
"""Where the paper's unit is not ours."""
REFLECTION: dict[str, dict[str, str]] = {
    "attaq": {"base": "0.24", "rl": "0.09"},
    "aime24": {"base": "3.12", "rl": "3.00"},
}
"""Entropy at reflection tokens, by benchmark and role; its definition and unit are not published."""
TITLES = {"attaq": "AttaQ safety", "gpqa_diamond": "GPQA-Diamond, %"}
REFLECTION_TITLES = {"attaq": "reflection entropy on AttaQ", "aime24": "reflection entropy on AIME 2024"}
NOTE = (
    "Printed in the paper and not measured here: its models, prompts, judge and response limits are not those of this report. "
    "Its definition of reflection entropy is not published."
)


def published(benchmark: str, role: str | None) -> str | None:
    """The paper's figure with its unit for this benchmark and role, or None."""
    name = _name(benchmark)
    found = BENCHMARKS.get(name, {}).get(role or "")
    return found and f"{found}{UNITS.get(name, '')}"


def published_entropy(benchmark: str, role: str | None) -> str | None:
    """The paper's entropy at reflection tokens for this benchmark and role, or None."""
    return REFLECTION.get(_name(benchmark), {}).get(role or "")


def _name(benchmark: str) -> str:
    """AttaQ under another name is AttaQ too; under an attack (`attaq_empty_trace`) it is not."""
    return "attaq" if benchmark in ("attaq_clean", "attaq_500") else benchmark
