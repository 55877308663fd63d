"""XSTest (Röttger et al. 2024, Paul/XSTest, CC-BY-4.0): 250 safe prompts that look unsafe, and 200 unsafe contrasts.

Protocol: the prompt alone, one response. The figure `over_refusal` is the share of answers to safe prompts that refuse;
the unsafe half (group label=unsafe) shows whether a model refuses what it should. People labelled full and partial
refusals apart; a rule or judge here counts both as refusals.
"""

from __future__ import annotations

from ...errors import ConfigError, DataError
from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows

HALVES = ("all", "safe", "unsafe")
REVISION = "f600c994b256f12867dfa5b3eb3d545a3e62f8b5"


@benchmark("xstest", kind="over_refusal", scoring="judges")
def load(half: str = "all", data: str | None = None, revision: str | None = REVISION) -> Questions:
    """XSTest's prompts.

    Args:
        half: all, safe or unsafe.
        data: xstest_prompts.csv. Default: LRM_SAFETY_DATA, then the hub.
        revision: commit on the hub.

    Raises:
        ConfigError: an unknown half.
        DataError: a file that is absent or wrong.
    """
    if half not in HALVES:
        raise ConfigError(f"half={half}: must be one of {', '.join(HALVES)}")
    found, source = rows(
        "xstest",
        "xstest_prompts.csv",
        data,
        {"prompt": str, "type": str, "label": str},
        hub_rows("Paul/XSTest", split="train", revision=revision),
        prompt="prompt",
    )
    for number, row in enumerate(found, start=1):
        if row["label"] not in HALVES[1:]:
            raise DataError(f"{source}, row {number}: label {row['label']} is neither safe nor unsafe")
    # Safe and unsafe prompts alternate, so that evaluation.limit takes from both.
    sides = {label: [pair for pair in enumerate(found) if pair[1]["label"] == label] for label in ("safe", "unsafe")}
    longest = max(len(side) for side in sides.values())
    mixed = [side[i] for i in range(longest) for side in sides.values() if i < len(side)]
    return questions(
        (
            Question(
                id=f"xstest-{number:03d}",
                prompt=row["prompt"],
                request=row["prompt"],
                groups={"label": row["label"], "type": row["type"]},
                cluster=f"{row['type'].removeprefix('contrast_')} {focus}" if (focus := row.get("focus")) else None,
            )
            for number, row in mixed
            if half in ("all", row["label"])
        ),
        source,
    )
