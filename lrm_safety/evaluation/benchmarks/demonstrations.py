"""BadChain's few-shot chains of thought, read at run time (Xiang et al. 2024, MIT); none of their text lies here."""

from __future__ import annotations

from lrm_safety.datasets.files import read_text
from lrm_safety.errors import DataError
from lrm_safety.evaluation.benchmarks.sources import data_file

TRIGGER = "@_@"
CLEAN_FILE, TRIGGERED_FILE = "cot_8_clean.txt", "cot_8_s01_4+4.txt"


def load_demonstrations(*, triggered: bool, data: str | None = None) -> str:
    """The examples, clean or with the backdoor; `data` names a file, default LRM_SAFETY_DATA/badchain/prompts.

    Raises DataError when the file is absent or no text, or holds the trigger where it should not or not where it should.
    """
    path = data_file("badchain/prompts", TRIGGERED_FILE if triggered else CLEAN_FILE, data, key="demonstrations")
    text = read_text(path).strip()
    if "Question:" not in text:
        raise DataError(f"{path}: holds no `Question:`; it must be few-shot examples")
    if (TRIGGER in text) != triggered:
        raise DataError(f"{path}: {'lacks' if triggered else 'holds'} the trigger {TRIGGER}; is it the other file?")
    return text
