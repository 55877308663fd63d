"""Benchmarks declare themselves where they are written: what they measure, how they are scored, how often they are asked.

    @benchmark("attaq", kind="safety", scoring="judges")
    def load(subset: str = "all", ...) -> Questions: ...

Everything else is made of that one declaration: the choices of `evaluation.benchmarks.NAME.task`, Inspect's tasks, the
table of the documentation, and the kind by which diagnosis and report read a metric.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, ParamSpec

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.question import Question, Questions
from lrm_safety.settings.evaluation import BENCHMARKS, Kind

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

    def __call__(self, *args: Options.args, **kwargs: Options.kwargs) -> Questions:
        return self.load(*args, **kwargs)

    @property
    def judged(self) -> bool:
        return self.scoring == "judges"

    def configured(self, arguments: Mapping[str, Any]) -> Benchmark[Options]:
        """The declaration for these arguments of the loader."""
        return replace(self, **self.by_arguments(arguments)) if self.by_arguments else self

    def load_checked(self, arguments: Mapping[str, Any], key: str) -> Questions:
        """The questions; raises ConfigError that names `key` for an option the loader does not have, or lacks."""
        known = inspect.signature(self.load).parameters
        for name in arguments:
            if name not in known:
                raise ConfigError(f"{key}.{name}: unknown option of {self.name}; known: {', '.join(known)}")
        for name, option in known.items():
            if option.default is option.empty and name not in arguments:
                raise ConfigError(f"{key}.{name}: {self.name} needs this option")
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
    found = BENCHMARKS.get(name, key)
    if not isinstance(found, Benchmark):
        raise ConfigError(
            f"{key}={name}: is a {type(found).__name__}, and must be a Benchmark: put @benchmark above its loader"
        )
    return found.configured(arguments or {})
