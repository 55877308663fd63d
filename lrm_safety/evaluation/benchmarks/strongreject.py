"""StrongREJECT (Souly et al. 2024, alexandrasouly/strongreject, MIT; prompts of others under their own): 313 forbidden prompts.

Protocol: the prompt alone, one response, without a jailbreak. Its rubric, which weighs refusal, conviction and detail, is
judge=strongreject_llm. Known contamination: group `in_star1`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .registry import Question, Questions, benchmark, questions
from .sources import Row, hub_rows, rows, star1_group

HUB_ID = "walledai/StrongREJECT"
REVISION = "df54272b395ce9e584d2f8140519935425d8549f"


@benchmark("strongreject", kind="safety", scoring="judges")
def load(data: str | None = None, star1: str | None = None, revision: str | None = REVISION) -> Questions:
    """StrongREJECT's forbidden prompts.

    Args:
        data: strongreject_dataset.csv, or strongreject_small_dataset.csv. Default: LRM_SAFETY_DATA, then the hub.
        star1: STAR-1.json, for the group `in_star1`; where its default cannot be had the group is `unknown`.
        revision: commit of the copy on the hub, which is gated.

    Raises:
        DataError: a file that is absent or wrong, a stated `star1` included.
    """

    def hub(mend: str) -> tuple[Iterable[Row], str]:
        found, source = hub_rows(HUB_ID, split="train", revision=revision)(mend)
        # The copy calls the column otherwise.
        return ({"forbidden_prompt" if name == "prompt" else name: row[name] for name in row} for row in found), source

    found, source = rows(
        "strongreject",
        "strongreject_dataset.csv",
        data,
        {"forbidden_prompt": str, "category": str, "source": str},
        hub,
        prompt="forbidden_prompt",
    )
    in_star1 = star1_group(star1)
    return questions(
        (
            Question(
                id=f"strongreject-{number:03d}",
                prompt=(text := row["forbidden_prompt"]),
                request=text,
                groups={"category": row["category"], "source": row["source"], "in_star1": in_star1(text)},
            )
            for number, row in enumerate(found)
        ),
        source,
    )
