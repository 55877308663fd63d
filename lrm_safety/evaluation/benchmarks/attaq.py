"""AttaQ (Kour et al. 2023, ibm-research/AttaQ, MIT): 1,402 adversarial questions with seven labels of harm.

Protocol: the question alone, one response; IBM's unitxt scores it with a reward model (judge=attaq_reward). Known
contamination: 24 questions are verbatim STAR-1 prompts (group `in_star1`), which `subset=clean` leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...datasets.files import read_value
from ...errors import ConfigError, DataError
from .registry import Question, Questions, benchmark, questions
from .sources import data_file, hub_rows, rows, star1_group

SUBSETS = ("all", "attaq_500", "clean")
LABELS = (
    "violence",
    "harmful_info",
    "deception",
    "explicit_content",
    "substance_abuse",
    "discrimination",
    "pii",
)


@benchmark("attaq", kind="safety", scoring="judges")
def load(
    subset: str = "all",
    labels: Sequence[str] | None = None,
    data: str | None = None,
    star1: str | None = None,
    attaq_500: str | None = None,
    revision: str | None = None,
) -> Questions:
    """AttaQ's questions.

    Args:
        subset: all, attaq_500 (unitxt's list), or clean (without STAR-1's prompts).
        labels: keep these labels only.
        data: attaq_dataset.csv. Default: LRM_SAFETY_DATA, then the hub.
        star1: STAR-1.json, which `in_star1` and `clean` are made of; where its default cannot be had the group is `unknown`.
        attaq_500: unitxt's list of 500 questions, a JSON list of strings.
        revision: commit on the hub; none is published for this set, so the default is what the hub has now, and the
            results name it.

    Raises:
        ConfigError: an unknown subset or label.
        DataError: a file that is absent or wrong, a stated `star1` included; `clean` without STAR-1.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"subset={subset}: must be one of {', '.join(SUBSETS)}")
    for label in labels or ():
        if label not in LABELS:
            raise ConfigError(f"labels: {label} is none of {', '.join(LABELS)}")
    found, source = rows(
        "attaq",
        "attaq_dataset.csv",
        data,
        {"input": str, "label": str},
        hub_rows("ibm-research/AttaQ", split="train", revision=revision),
        prompt="input",
    )
    in_star1 = star1_group(star1, required=subset == "clean")
    chosen = _five_hundred(attaq_500) if subset == "attaq_500" else None
    kept = []
    for number, row in enumerate(found):
        text = row["input"]
        groups = {"label": row["label"], "in_star1": in_star1(text)}
        if labels and row["label"] not in labels:
            continue
        if (subset == "clean" and groups["in_star1"] == "yes") or (chosen is not None and text not in chosen):
            continue
        kept.append(Question(id=f"attaq-{number:04d}", prompt=text, request=text, groups=groups))
    return questions(kept, source)


def _five_hundred(path: str | None) -> frozenset[str]:
    file = data_file("attaq", "unitxt_attaq_500_inputs.json", path, key="attaq_500")
    content = read_value(file)
    if not isinstance(content, list) or not all(isinstance(item, str) for item in content):
        raise DataError(f"{file}: must be a list of strings")
    return frozenset(content)
