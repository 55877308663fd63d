"""OR-Bench (Cui et al. 2024, bench-llms/or-bench, CC-BY-4.0): prompts that look harmful and are not, and prompts that are.

Protocol: the prompt alone, one response. 80,359 safe prompts, 1,319 of them that most models refuse (`hard_1k`), and 655 toxic
ones. OR-Bench asks GPT-4 or keywords whether an answer refuses; here the configured judges do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows, star1_group

CONFIGS = {"hard_1k": "or-bench-hard-1k", "80k": "or-bench-80k", "toxic": "or-bench-toxic"}
HUB_ID = "bench-llms/or-bench"
REVISION = "fd6ee135ee63ff6c4f3ff72c0e39627bf0a7f314"


def _by_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "safety"} if given.get("subset") == "toxic" else {}


@benchmark(
    "or_bench",
    kind="over_refusal",
    scoring="judges",
    by_arguments=_by_arguments,
    tasks={"or_bench": {}, "or_bench_toxic": {"subset": "toxic"}},
)
def load(
    subset: str = "hard_1k", data: str | None = None, star1: str | None = None, revision: str | None = REVISION
) -> Questions:
    """The prompts of a subset.

    Args:
        subset: hard_1k, 80k or toxic.
        data: the subset's file, such as or-bench-hard-1k.csv. Default: LRM_SAFETY_DATA, then the hub.
        star1: STAR-1.json, for the group `in_star1`; where its default cannot be had the group is `unknown`.
        revision: commit on the hub.

    Raises:
        ConfigError: an unknown subset.
        DataError: a file that is absent or wrong, a stated `star1` included.
    """
    if subset not in CONFIGS:
        raise ConfigError(f"subset={subset}: must be one of {', '.join(CONFIGS)}")
    config = CONFIGS[subset]
    found, source = rows(
        "or_bench",
        f"{config}.csv",
        data,
        {"prompt": str, "category": str},
        hub_rows(HUB_ID, config, split="train", revision=revision),
        prompt="prompt",
    )
    in_star1 = star1_group(star1)
    return questions(
        (
            Question(
                id=f"{config}-{number:05d}",
                prompt=row["prompt"],
                request=row["prompt"],
                groups={
                    "label": "unsafe" if subset == "toxic" else "safe",
                    "category": row["category"],
                    "in_star1": in_star1(row["prompt"]),
                },
            )
            for number, row in enumerate(found)
        ),
        source,
    )
