"""Benchmarks declare themselves where they are written: what they measure, how they are scored, how often they are asked.

    @benchmark("attaq", kind="safety", scoring="judges")
    def load(subset: str = "all", ...) -> Questions: ...

Everything else is made of that one declaration: the choices of `evaluation.benchmarks.NAME.task`, Inspect's tasks, the
table of the documentation, and the kind by which diagnosis and report read a metric.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, ParamSpec

from ...conversation.response import ParsedResponse
from ...datasets.serialised import Source
from ...errors import ConfigError, DataError
from ...files import digest_of, number_of
from ...registry import check_choices
from ...settings.evaluation import BENCHMARKS, Kind


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


Scoring = Literal["judges", "math", "integer", "choice", "own"]
Options = ParamSpec("Options")


@dataclass(frozen=True)
class Benchmark(Generic[Options]):
    """A benchmark before its questions are loaded; calling it loads them.

    Attributes:
        kind: what it measures. robustness: reasoning under an attack that is part of its prompts.
        default_samples: responses a question, as its protocol says.
        scoring: judges: every judge reads every response; own: the question's own grader; the others grade against the
            target.
        by_arguments: what the declaration says instead for given arguments of the loader: a dictionary of attributes.
        tasks: Inspect's tasks by name, with the arguments that they stand for.
    """

    name: str
    load: Callable[Options, Questions]
    kind: Kind
    default_samples: int
    scoring: Scoring
    by_arguments: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    tasks: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        check_choices(self)

    def __call__(self, *args: Options.args, **kwargs: Options.kwargs) -> Questions:
        return self.load(*args, **kwargs)

    @property
    def judged(self) -> bool:
        return self.scoring == "judges"

    def configured(self, arguments: Mapping[str, Any]) -> Benchmark[Options]:
        """The declaration for these arguments of the loader."""
        return replace(self, **self.by_arguments(arguments)) if self.by_arguments else self

    def check_options(self, arguments: Mapping[str, Any], key: str) -> None:
        """Raises ConfigError that names `key` for an option the loader does not have, or lacks."""
        known = inspect.signature(self.load).parameters
        for name in arguments:
            if name not in known:
                raise ConfigError(f"{key}.{name}: unknown option of {self.name}; known: {', '.join(known)}")
        for name, option in known.items():
            if option.default is option.empty and name not in arguments:
                raise ConfigError(f"{key}.{name}: {self.name} needs this option")

    def load_checked(self, arguments: Mapping[str, Any], key: str) -> Questions:
        """The questions; raises ConfigError that names `key` as `check_options` does, and for anything but questions."""
        self.check_options(arguments, key)
        load: Callable[..., Any] = self.load
        loaded = load(**arguments)
        if not isinstance(loaded, Questions):
            raise ConfigError(f"{key}: {self.name} returned a {type(loaded).__name__}, and must return Questions")
        if wrong := next((row for row in loaded.rows if not isinstance(row, Question)), None):
            raise ConfigError(
                f"{key}: {self.name} returned a {type(wrong).__name__} among its rows, and each must be a Question"
            )
        if not loaded.rows:
            raise DataError(
                f"{key}: {self.name} returned no question; {loaded.source} has none that fits the arguments"
            )
        return loaded


BENCHMARKS.expected = Benchmark


def benchmark(
    name: str,
    *,
    kind: Kind,
    scoring: Scoring,
    samples: int = 1,
    by_arguments: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    tasks: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[Options, Questions]], Benchmark[Options]]:
    """Declare the loader of a benchmark: known by `name` where it is one of ours, by its import path elsewhere."""

    def declare(load: Callable[Options, Questions]) -> Benchmark[Options]:
        made = Benchmark(name, load, kind, samples, scoring, by_arguments, {name: {}} if tasks is None else tasks)
        if load.__module__.startswith(f"{__package__}."):
            BENCHMARKS.add(name, made)
        return made

    return declare


def get_benchmark(name: str, key: str = "task", arguments: Mapping[str, Any] | None = None) -> Benchmark[Any]:
    """The benchmark called `name`, or at an import path, as `arguments` configure it; raises ConfigError, naming `key`, with
    the known names."""
    found: Benchmark[Any] = BENCHMARKS.get(name, key)
    return found.configured(arguments or {})
