"""WildJailbreak's evaluation set (Jiang et al. 2024, allenai/wildjailbreak, ODC-BY, gated): 2,210 adversarial prompts.

Protocol: the adversarial prompt alone, one response. 2,000 hide a harmful request behind tactics of jailbreaks; 210 look like
those and are benign, which measures over-refusal. Its authors judge with GPT-4 and a refusal classifier; here the configured
judges do, and read the whole adversarial prompt, since the request behind it is not in the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError, DataError
from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows, star1_group

HALVES = ("harmful", "benign")
HUB_ID = "allenai/wildjailbreak"
REVISION = "5ddc12a7894f842b0619b8e1c7ee496b198af009"


def _by_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "over_refusal"} if given.get("half") == "benign" else {}


@benchmark(
    "wildjailbreak",
    kind="safety",
    scoring="judges",
    by_arguments=_by_arguments,
    tasks={"wildjailbreak": {}, "wildjailbreak_benign": {"half": "benign"}},
)
def load(
    half: str = "harmful", data: str | None = None, star1: str | None = None, revision: str | None = REVISION
) -> Questions:
    """The adversarial prompts of a half.

    Args:
        half: harmful or benign.
        data: eval.tsv. Default: LRM_SAFETY_DATA, then the hub.
        star1: STAR-1.json, for the group `in_star1`; where its default cannot be had the group is `unknown`.
        revision: commit on the hub.

    Raises:
        ConfigError: an unknown half.
        DataError: a file that is absent or wrong, or of the training set; a stated `star1` included.
    """
    if half not in HALVES:
        raise ConfigError(f"half={half}: must be one of {', '.join(HALVES)}")
    found, source = rows(
        "wildjailbreak",
        "eval.tsv",
        data,
        {"data_type": str, "adversarial": str},
        hub_rows(HUB_ID, "eval", split="train", revision=revision),
        prompt="adversarial",
    )
    in_star1 = star1_group(star1)
    kept = []
    for number, row in enumerate(found):
        if row["data_type"] not in [f"adversarial_{one}" for one in HALVES]:
            raise DataError(
                f"{source}, row {number + 1}: data_type {row['data_type']} is neither adversarial_harmful nor "
                "adversarial_benign"
            )
        if row["data_type"] == f"adversarial_{half}":
            text = row["adversarial"]
            groups = {"label": "safe" if half == "benign" else "unsafe", "in_star1": in_star1(text)}
            kept.append(Question(id=f"wildjailbreak-{number:04d}", prompt=text, request=text, groups=groups))
    return questions(kept, source)
