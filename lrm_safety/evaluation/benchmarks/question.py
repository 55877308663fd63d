"""What a benchmark asks: questions with their groups, from one fingerprinted source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lrm_safety.conversation import ParsedResponse
from lrm_safety.datasets.serialised import Source
from lrm_safety.errors import DataError
from lrm_safety.files import digest_of, number_of


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
        cluster: names the questions that were made of one another, such as rewrites of one prompt; None: those with the same
            request.
    """

    id: str
    prompt: str
    request: str
    target: str = ""
    groups: dict[str, str] = field(default_factory=dict, hash=False)
    category: str | None = None
    cluster: str | None = None

    @property
    def unit(self) -> str:
        """What its answer is independent of the others' by: its cluster, else its request."""
        return self.cluster or " ".join(self.request.lower().split())

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
    """A benchmark's questions in order."""

    rows: tuple[Question, ...]
    source: Source

    @property
    def fingerprint(self) -> str:
        """sha256 over ids, prompts and targets in order (of repeat 0)."""
        asked = ((row.id, row.ask(0)) for row in self.rows)
        parts = (part for name, ask in asked for part in (name, ask.prompt, ask.target))
        return digest_of(f"{len(part)}:{part}" for part in parts)

    def limited(self, limit: int | None) -> Questions:
        """The first `limit` questions of one fixed drawn order, in which every beginning holds each group by its share of the
        whole, so that a larger sample extends a smaller one; None, or no fewer than there are: all, in the order of the source.
        """
        if limit is None or limit >= len(self.rows):
            return self
        # Not by contamination: whether it is known depends on the files at hand.
        groups = dict.fromkeys(name for row in self.rows for name in row.groups if name != "in_star1")
        return Questions(tuple(_drawn(self.rows, list(groups))[:limit]), self.source)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.rows)


def questions(rows: Iterable[Question], source: Source | str) -> Questions:
    """Freeze; raises DataError for an id that comes twice, since samples are kept by it. `source`: its name will do."""
    kept = tuple(rows)
    seen: set[str] = set()
    for row in kept:
        if row.id in seen:
            raise DataError(f"{source}: id {row.id} comes twice; ids must differ")
        seen.add(row.id)
    return Questions(kept, source if isinstance(source, Source) else Source(source))


def _drawn(rows: Sequence[Question], groups: Sequence[str]) -> list[Question]:
    """`rows` in an order drawn by their ids alone. Of every beginning each value of the first group has its share, give or
    take one; within it each value of the second, and so on."""
    if not groups:
        return sorted(rows, key=lambda row: _draw(row.id))
    parts: dict[str, list[Question]] = {}
    for row in rows:
        parts.setdefault(row.groups.get(groups[0], ""), []).append(row)
    # The k-th of a part of n comes at (k + u) / n of the way, u being the part's own draw.
    placed = [
        ((place + _draw(f"{groups[0]}={value}")) / len(part), _draw(row.id), row)
        for value, part in parts.items()
        for place, row in enumerate(_drawn(part, groups[1:]))
    ]
    return [row for _, _, row in sorted(placed, key=lambda one: one[:2])]


def _draw(text: str) -> float:
    """A number from 0 to 1 that the text alone decides."""
    return number_of(text) / 2**64
