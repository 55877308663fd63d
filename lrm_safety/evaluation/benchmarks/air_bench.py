"""AIR-Bench 2024 (Zeng et al. 2024, stanford-crfm/air-bench-2024, CC-BY-4.0): 5,694 prompts over 314 risk categories.

Protocol: the prompt alone, one response; a language model judges it with a prompt of its category, 1 = refusal, 0.5 =
ambiguous, 0 = harmful (judge=air_bench_llm). Departure: an empty or unfinished answer is never safe, HELM counts it so.

Each category's prompts are plain requests, rewrites in slang or dialect, and rewrites that appeal to authorities. The data
does not say which is which; `rewrite_of` tells by form, and says `unknown` where it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import ConfigError
from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows

HUB_ID = "stanford-crfm/air-bench-2024"
REVISION = "976d9fbb0f52bce704dcbef5bd7a2652e65f2a21"
"""The commit that HELM reads."""

_SLANG = re.compile(
    r"\b(?:ya|yer|gonna|gotta|wanna|ain't|mates?|bruv|y'all|fam|lemme|innit|kinda|dude|yo|dat|dem|dis|whatcha|aye|laddie|wee|"
    r"howdy|reckon|tryna|cuz|lil|homie|guv|mon|fer|ta|ol)\b|\w+in'(?=\W|$)|(?<!\w)'(?:bout|em|cause|cuz|n)\b",
    re.IGNORECASE,
)
_AUTHORITY = re.compile(
    r"\b(?:according to|experts?|authorit(?:y|ies|ative)|stud(?:y|ies)|research|recent|leading|renowned|prominent|"
    r"institutions?|highlight(?:s|ed)?|emphasi[sz]ed?|reports?|scholars?|academic|analysts)\b",
    re.IGNORECASE,
)
MIN_SLANG, MIN_AUTHORITY, PLAIN_CHARACTERS, AUTHORITY_CHARACTERS = 2, 3, 350, 300


@benchmark("air_bench", kind="safety", scoring="judges")
def load(l2: Sequence[str] | None = None, data: str | None = None, revision: str | None = REVISION) -> Questions:
    """AIR-Bench's prompts.

    Args:
        l2: keep these level-2 categories only, by their names in the data.
        data: a JSONL or CSV file with any subset of the rows. Default: LRM_SAFETY_DATA, then the whole set from the hub.
            Rows that are the text of a message list are unwrapped, repeats left out; a warning and the results count both.
        revision: commit on the hub.

    Raises:
        ConfigError: a category that the data does not have.
        DataError: a file that is absent or wrong.
    """
    fields = {name: str for name in ("cate-idx", "l2-name", "l3-name", "l4-name", "prompt")}
    hub = hub_rows(HUB_ID, "default", revision=revision)
    found, source = rows("airbench2024", "air_bench_2024_subset_prompts.jsonl", data, fields, hub, prompt="prompt")
    names = {row["l2-name"] for row in found}
    for name in l2 or ():
        if name not in names:
            raise ConfigError(f"l2: {name} is none of {', '.join(sorted(names))}")
    return questions(
        (
            Question(
                id=f"air-bench-{number:04d}",
                prompt=row["prompt"],
                request=row["prompt"],
                groups={
                    "level2": row["l2-name"],
                    "level3": row["l3-name"],
                    "level4": row["l4-name"],
                    "rewrite": rewrite_of(row["prompt"]),
                },
                category=row["cate-idx"],
                # The data does not say which rows are rewrites of one prompt; they share its category, which is wider.
                cluster=row["cate-idx"],
            )
            for number, row in enumerate(found)
            if not l2 or row["l2-name"] in l2
        ),
        source,
    )


def rewrite_of(prompt: str) -> str:
    """slang: two or more words of dialect; authority: long, with three or more appeals to experts, studies, reports; plain:
    short, with neither; otherwise unknown."""
    if len(_SLANG.findall(prompt)) >= MIN_SLANG:
        return "slang"
    appeals = len(_AUTHORITY.findall(prompt))
    if appeals >= MIN_AUTHORITY and len(prompt) >= AUTHORITY_CHARACTERS:
        return "authority"
    if len(prompt) < PLAIN_CHARACTERS and appeals <= 1 and not _SLANG.search(prompt):
        return "plain"
    return "unknown"
