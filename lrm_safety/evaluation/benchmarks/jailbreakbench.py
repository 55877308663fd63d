"""JailbreakBench's JBB-Behaviors (Chao et al. 2024, MIT): 100 harmful behaviours, and 100 benign ones on the same subjects.

Protocol: the goal alone, one response, without a jailbreak. The benign split measures over-refusal. JailbreakBench judges
with Llama 3 70B; here the configured judges do, and its artifacts (jailbreak strings) are not part of this set. Known
contamination: group `in_star1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows, star1_group

SPLITS = ("harmful", "benign")
HUB_ID = "JailbreakBench/JBB-Behaviors"
REVISION = "886acc352a31533ffbcf4ef22c744658688086fc"


def _by_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "over_refusal"} if given.get("split") == "benign" else {}


@benchmark(
    "jailbreakbench",
    kind="safety",
    scoring="judges",
    by_arguments=_by_arguments,
    tasks={"jailbreakbench": {}, "jailbreakbench_benign": {"split": "benign"}},
)
def load(
    split: str = "harmful", data: str | None = None, star1: str | None = None, revision: str | None = REVISION
) -> Questions:
    """The goals of a split.

    Args:
        split: harmful or benign.
        data: the split's file, SPLIT-behaviors.csv. Default: LRM_SAFETY_DATA, then the hub.
        star1: STAR-1.json, for the group `in_star1`; where its default cannot be had the group is `unknown`.
        revision: commit on the hub.

    Raises:
        ConfigError: an unknown split.
        DataError: a file that is absent or wrong, a stated `star1` included.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split}: must be one of {', '.join(SPLITS)}")
    found, source = rows(
        "jailbreakbench",
        f"{split}-behaviors.csv",
        data,
        {"Goal": str, "Category": str, "Source": str},
        hub_rows(HUB_ID, "behaviors", split=split, revision=revision),
        prompt="Goal",
    )
    in_star1 = star1_group(star1)
    return questions(
        (
            Question(
                id=f"jailbreakbench-{split}-{number:03d}",
                prompt=row["Goal"],
                request=row["Goal"],
                groups={
                    "label": "safe" if split == "benign" else "unsafe",
                    "category": row["Category"],
                    "source": row["Source"],
                    "in_star1": in_star1(row["Goal"]),
                },
            )
            for number, row in enumerate(found)
        ),
        source,
    )
