"""Two evaluations beside each other: paired differences over the questions they share, and what else sets them apart."""

from __future__ import annotations

from collections.abc import Mapping

from ..results import Benchmark, Difference, Evaluation
from ..statistics import paired_difference
from .figures import lower_is_better


def compared_figures(mine: Benchmark, base: Benchmark) -> list[str]:
    """The figures of a benchmark whose questions both hold, the primary one first; of over-refusal the safety of the unsafe
    prompts too."""
    return [mine.primary, *(name for name in mine.compared if name in base.compared)]


def difference(mine: Benchmark, base: Benchmark, figure: str, seed: int) -> Difference:
    """A figure of one evaluation less another's, paired by question. `seed`: of the bootstrap."""
    one, less = ({one.primary: one.questions, **one.compared}[figure] for one in (mine, base))
    return Difference.between(paired_difference(one, less, clusters=clusters_of(mine, base), seed=seed))


def incomparable(mine: Benchmark, base: Benchmark) -> str | None:
    """Why two evaluations of a benchmark cannot be compared; None where they can. Attacks and numbers of samples may differ: what
    an attack costs is such a difference."""
    for key in ("fingerprint", "num_questions"):
        if getattr(mine.data, key) != getattr(base.data, key):
            return f"other questions were asked (data {key}); evaluate both with the same data and evaluation.limit"
    return None if mine.primary == base.primary else f"one reports {mine.primary}, the other {base.primary}"


def better(figure: str, value: float | None) -> str:
    """`better` or `worse`; nothing where there is no difference."""
    if not value:
        return ""
    return "better" if (value < 0) == lower_is_better(figure) else "worse"


def clusters_of(*benchmarks: Benchmark) -> Mapping[str, str]:
    """Question -> cluster, of those that share one."""
    return {question: name for one in benchmarks for question, name in one.clusters.items()}


def otherwise(mine: Evaluation, base: Evaluation) -> list[str]:
    """What was done otherwise, a line each: it may be what is compared, or a mistake."""
    told = (
        ("protocol", mine.protocol, base.protocol),
        # The primary figure is the first judge's.
        ("the first judge", *(next(iter(one.judges.items()), None) for one in (mine, base))),
    )
    found = [f"differ in {what}" for what, one, other in told if one != other]
    for name in shared(mine, base):
        for what in ("samples", "attack"):
            one, other = (getattr(evaluation.benchmarks[name], what) for evaluation in (mine, base))
            if one != other:
                found.append(f"differ in {what} of {name}: {one}, {other}")
    return found


def shared(mine: Evaluation, base: Evaluation) -> list[str]:
    """The benchmarks that both hold."""
    return [name for name in mine.benchmarks if name in base.benchmarks]
