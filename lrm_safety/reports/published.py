"""The paper's own figures, as printed there. Other models, other data, another judge: shown beside ours, never mixed in."""

from __future__ import annotations

PAPER = "Beyond SFT"
BENCHMARKS: dict[str, dict[str, str]] = {
    "attaq": {"base": "0.37", "sft": "0.76", "rl": "0.92"},
    "gpqa_diamond": {"base": "49.24", "sft": "47.54", "rl": "49.06"},
    "aime24": {"base": "3.12", "rl": "3.00"},
}
"""By benchmark and role."""
UNITS = {"gpqa_diamond": "%"}
"""Where the paper's unit is not ours; that of AIME 2024 is not said there."""
REFLECTION: dict[str, str] = {"base": "0.24", "rl": "0.09"}
"""Mean entropy at reflection tokens on AttaQ, nats."""
TITLES = {"attaq": "AttaQ safety", "gpqa_diamond": "GPQA-Diamond, %", "aime24": "AIME 2024"}
NOTE = (
    "Printed in the paper and not measured here: its models, prompts, judge and response limits are not those of this report. "
    "Its definition of reflection entropy is not published."
)


def is_attaq(benchmark: str) -> bool:
    """AttaQ under another name is AttaQ too; under an attack (`attaq_empty_trace`) it is not."""
    return benchmark in ("attaq", "attaq_clean", "attaq_500")


def published(benchmark: str, role: str | None) -> str | None:
    """The paper's figure with its unit for this benchmark (`attaq_clean` is AttaQ too) and role, or None."""
    name = "attaq" if is_attaq(benchmark) else benchmark
    found = BENCHMARKS.get(name, {}).get(role or "")
    return found and f"{found}{UNITS.get(name, '')}"
