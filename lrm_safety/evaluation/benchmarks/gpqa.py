"""GPQA-Diamond (Rein et al. 2023, Idavidrein/gpqa, CC-BY-4.0, gated; its authors ask that no question be posted in plain text).

Protocol: four choices, permuted by a seed per (question, repeat); 64 samples a question, pass@1 their mean, as DeepSeek-R1.
Departures: simple-evals asks for a line "Answer: LETTER", here the letter is boxed, as in the other reasoning sets; both
forms are read. The encrypted archive is read in memory only.
"""

from __future__ import annotations

import random
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.files import check_text, parse_json
from ...datasets.serialised import Source, unwrap
from ...errors import DataError
from ...files import number_of
from .registry import Asked, Question, Questions, benchmark, questions
from .sources import data_file, hub_rows, rows

LETTERS = "ABCD"
HUB_ID = "Idavidrein/gpqa"
PASSWORD = "deserted-untie-orchid"
"""Published with the archive; it keeps the text from crawlers, not from people."""
INSTRUCTION = "Please reason step by step, and put the letter of your final answer within \\boxed{}."
FIELDS = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@dataclass(frozen=True)
class ChoiceQuestion(Question):
    """A question whose choices move from repeat to repeat; `choices[0]` is the right one."""

    choices: tuple[str, ...] = ()
    seed: int = 0

    def order(self, repeat: int) -> list[int]:
        """Which choice stands at A, B, C, D in this repeat."""
        generator = random.Random(number_of(f"{self.seed}|{self.id}|{repeat}"))
        return generator.sample(range(len(self.choices)), len(self.choices))

    def ask(self, repeat: int) -> Asked:
        """The question with its choices in this repeat's order, and the right letter."""
        order = self.order(repeat)
        listed = "\n".join(f"{letter}) {self.choices[i]}" for letter, i in zip(LETTERS, order, strict=True))
        return Asked(f"{self.request}\n\n{listed}\n\n{INSTRUCTION}", LETTERS[order.index(0)])

    def vote(self, repeat: int, extracted: str) -> str:
        """The choice behind the letter, which is what repeats agree on."""
        position = LETTERS.find(extracted) if len(extracted) == 1 else -1
        return str(self.order(repeat)[position]) if position >= 0 else ""


@benchmark("gpqa", kind="reasoning", scoring="choice", samples=64, tasks={"gpqa_diamond": {}})
def load(data: str | None = None, password: str = PASSWORD, seed: int = 0, revision: str | None = None) -> Questions:
    """The 198 questions.

    Args:
        data: the encrypted gpqa_diamond.zip. Default: LRM_SAFETY_DATA, then the gated set on the hub.
        password: of the archive.
        seed: of the order of choices.
        revision: commit on the hub. The set is gated and its authors publish no commit: the default is what the hub has
            now, and the results name it.

    Raises:
        DataError: a file that is absent or wrong, a wrong password, no access to the hub.
    """
    found, source = _rows(data, password, revision)
    return questions(
        (
            ChoiceQuestion(
                id=f"gpqa-{number:03d}",
                prompt=row["Question"].strip(),
                request=row["Question"].strip(),
                groups={
                    name: str(row[field])
                    for name, field in (("domain", "High-level domain"), ("subdomain", "Subdomain"))
                    if row.get(field)
                },
                choices=tuple(str(row[field]).strip() for field in FIELDS[1:]),
                seed=seed,
            )
            for number, row in enumerate(found)
        ),
        source,
    )


def _rows(data: str | None, password: str, revision: str | None) -> tuple[list[Mapping[str, Any]], Source]:
    try:
        path = data_file("gpqa", "gpqa_diamond.zip", data)
    except DataError:
        if data is not None:
            raise
        fields = {name: str for name in FIELDS}
        hub = hub_rows(HUB_ID, "gpqa_diamond", "train", revision=revision)
        return rows("gpqa", "gpqa_diamond.zip", None, fields, hub, prompt="Question")
    plain, _, source = unwrap(_unpack(path, password), "Question", str(path))
    return list(plain), source


def _unpack(path: Path, password: str) -> list[Mapping[str, Any]]:
    not_json = "is not an archive with one JSON file, or the password is wrong"
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".json")]
            text = archive.read(name, pwd=password.encode()).decode("utf-8-sig")
    except (RuntimeError, zlib.error) as error:
        raise DataError(f"{path}: wrong password, or the archive is damaged; check password=") from error
    # A damaged archive, one of another kind, or what a wrong password that its check lets through makes of it.
    except Exception as error:
        raise DataError(f"{path}: {not_json}") from error
    try:
        content = check_text(parse_json(text, str(path)), str(path))
    except DataError as error:
        raise DataError(f"{path}: {not_json}") from error
    if not isinstance(content, list) or not content:
        raise DataError(f"{path}: must hold a list of questions")
    for number, row in enumerate(content, start=1):
        for field in FIELDS:
            if not isinstance(row, dict) or not isinstance(row.get(field), str) or not row[field].strip():
                raise DataError(f"{path}, row {number}: field {field} is absent or blank")
    return content
