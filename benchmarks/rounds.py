"""One rollout batch with its updates, as each side of a comparison reports it, and what follows from two sides' rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from .figures import NotMeasured


@dataclass(frozen=True)
class Round:
    """What a side did, from the first prompt to the last update, and how long it took."""

    seconds: float
    responses: int
    tokens: int
    """Response tokens."""
    prompt_tokens: int
    """Of all responses: a prompt counts once a sample."""
    updates: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def rate_ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> float:
    """Tokens/s of ours / of theirs: the median over rounds of the ratio within a round, whose two runs are neighbours in time.

    Both sample, so that their numbers of tokens differ; the rates take that into account.
    """
    return median(our.tokens_per_second / their.tokens_per_second for our, their in zip(ours, theirs, strict=True))


def check_same_work(taken: Mapping[str, Sequence[Round]], tolerance: float) -> None:
    """Raise NotMeasured unless all rounds have as many responses and updates, and the sides' mean lengths agree within
    `tolerance` (relative)."""
    counts = {(one.responses, one.updates) for rounds in taken.values() for one in rounds}
    if len(counts) > 1:
        raise NotMeasured(f"rounds of {sorted(counts)} (responses, updates): the work was not equal")
    lengths = {name: mean_length(rounds) for name, rounds in taken.items()}
    if max(lengths.values()) > (1 + tolerance) * min(lengths.values()):
        shown = ", ".join(f"{name} {length:.1f}" for name, length in lengths.items())
        raise NotMeasured(f"responses of different lengths (mean tokens: {shown}): the work was not equal")


def mean_length(rounds: Sequence[Round]) -> float:
    """Tokens of a response."""
    return sum(one.tokens for one in rounds) / sum(one.responses for one in rounds)


def facts(taken: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """For the file: of each side every round, the median rate and the mean length, side by side."""
    return {
        "tokens_per_second": {
            name: round(median(one.tokens_per_second for one in rounds), 1) for name, rounds in taken.items()
        },
        "mean_response_tokens": {name: round(mean_length(rounds), 1) for name, rounds in taken.items()},
        "rounds": {name: [asdict(one) for one in rounds] for name, rounds in taken.items()},
    }
