"""A plan beside what a run recorded: seconds of every phase, memory of every group."""

from __future__ import annotations

from dataclasses import dataclass

from .memory import GIB
from .observed import PHASES, Observed
from .plan import Plan


@dataclass(frozen=True)
class Compared:
    """One line: what was planned and what was seen, in one unit."""

    name: str
    planned: float
    seen: float

    @property
    def error(self) -> float | None:
        """Planned over seen, less 1; None where nothing was seen."""
        return self.planned / self.seen - 1 if self.seen else None


def seconds(planned: Plan, run: Observed) -> list[Compared]:
    """Of one iteration, and the whole of it."""
    lines = [Compared(name, planned.duration.phases[name], run.seconds(name)) for name in PHASES]
    return [*lines, Compared("iteration", planned.duration.iteration_seconds, run.iteration_seconds)]


def memory(planned: Plan, run: Observed) -> list[Compared]:
    """GiB of the largest worker of each group: on the CPU resident memory, on CUDA what torch had on the GPU, without its
    context."""
    on_gpu = run.settings.cluster.device == "cuda"
    lines = []
    for name, group in planned.groups.items():
        if name in run.peaks_gib:
            size = group.total - group.parts.get("CUDA context", 0) if on_gpu else group.total + group.host_bytes
            lines.append(Compared(name, size / GIB, run.peaks_gib[name]))
    return lines
