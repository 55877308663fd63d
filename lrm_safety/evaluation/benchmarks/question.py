"""What a benchmark asks: questions with their groups, from one fingerprinted source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lrm_safety.conversation import ParsedResponse
from lrm_safety.errors import DataError


@dataclass(frozen=True)
class Asked:
    """What the model is shown in one repeat of a question, and the answer that counts."""

    prompt: str
    target: str


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        id: unique in its benchmark, stable over runs.
        prompt: the user turn, with the benchmark's instruction.
        request: the bare request or problem, which judges read.
        target: the gold answer; empty where a judge decides.
        groups: what figures are split by, such as {"label": "violence"}.
        category: the benchmark's category for judges that need one (AIR-Bench: cate-idx).
    """

    id: str
    prompt: str
    request: str
    target: str = ""
    groups: dict[str, str] = field(default_factory=dict, hash=False)
    category: str | None = None

    def ask(self, repeat: int) -> Asked:
        """The question as repeat 0, 1, .. shows it; most questions are the same every time."""
        return Asked(self.prompt, self.target)

    def measures(self, response: ParsedResponse) -> dict[str, float]:
        """Further figures of one response to this question, by name."""
        return {}

    def vote(self, repeat: int, extracted: str) -> str:
        """What an extracted answer of a repeat stands for when repeats vote; where choices move, the choice itself."""
        return extracted


@dataclass(frozen=True)
class Questions:
    """A benchmark's questions in order. `source` names the file or hub id for messages and results."""

    rows: tuple[Question, ...]
    source: str

    @property
    def fingerprint(self) -> str:
        """sha256 over ids, prompts and targets in order (of repeat 0)."""
        digest = hashlib.sha256()
        for row in self.rows:
            asked = row.ask(0)
            for part in (row.id, asked.prompt, asked.target):
                digest.update(f"{len(part)}:{part}".encode())
        return digest.hexdigest()

    def limited(self, limit: int | None) -> Questions:
        """The first `limit` questions; None: all."""
        return Questions(self.rows[:limit], self.source)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.rows)


def questions(rows: Iterable[Question], source: str) -> Questions:
    """Freeze; raises DataError for an id that comes twice, since samples are kept by it."""
    kept = tuple(rows)
    seen: set[str] = set()
    for row in kept:
        if row.id in seen:
            raise DataError(f"{source}: id {row.id} comes twice; ids must differ")
        seen.add(row.id)
    return Questions(kept, source)
