"""The benchmarks by name, with how each is scored."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.benchmarks.question import Questions

Kind = Literal["safety", "over_refusal", "reasoning"]
Scoring = Literal["judges", "math", "integer", "choice", "own"]

SCORING: dict[str, Scoring] = {
    "attaq": "judges",
    "air_bench": "judges",
    "harmbench": "judges",
    "xstest": "judges",
    "long_tail": "judges",
    "math500": "math",
    "aime": "integer",
    "gpqa": "choice",
    "badchain": "math",
    "miniature": "own",
    "miniature_forbidden": "judges",
    "custom": "own",
}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark before its questions are loaded."""

    name: str
    load: Callable[..., Questions]
    kind: Kind
    default_samples: int
    scoring: Scoring
    """judges: every judge reads every response; own: the question's own grader; the others grade against the target."""

    @property
    def judged(self) -> bool:
        return self.scoring == "judges"

    def load_checked(self, arguments: Mapping[str, Any], key: str) -> Questions:
        """The questions; raises ConfigError that names `key` for an option the loader does not have, or lacks."""
        known = inspect.signature(self.load).parameters
        for name in arguments:
            if name not in known:
                raise ConfigError(f"{key}.{name}: unknown option of {self.name}; known: {', '.join(known)}")
        for name, option in known.items():
            if option.default is option.empty and name not in arguments:
                raise ConfigError(f"{key}.{name}: {self.name} needs this option")
        return self.load(**arguments)


def get_benchmark(name: str, key: str = "task") -> Benchmark:
    """The benchmark called `name`; raises ConfigError, naming `key`, with the known names."""
    if name not in SCORING:
        raise ConfigError(f"{key}={name}: unknown benchmark; known: {', '.join(sorted(SCORING))}")
    module = importlib.import_module(f"{__package__}.{name}")
    return Benchmark(name, module.load, module.KIND, module.DEFAULT_SAMPLES, SCORING[name])
