"""`python -m benchmarks.simulation`: the project's own controller on SIMULATED groups of 8 to 512 GPUs; no GPU computes anything.

The loop, what deals and pools requests, scores, advantages, metrics and records are those of a run; only the groups are stand-ins
that take their time by `Costs` (simulated_groups.py). What the controller computes is measured here and takes its time there.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lrm_safety.controller import Controller
from lrm_safety.evaluation.in_loop import InLoopEvaluation
from lrm_safety.interruption import Interruption
from lrm_safety.lab.planning.assumptions import Assumptions
from lrm_safety.modeling.shapes import KNOWN, kv_bytes_per_token, num_parameters
from lrm_safety.monitoring.progress import Phases
from lrm_safety.monitoring.recorder import Recorder
from lrm_safety.preparation import PreparedRun, prepare
from lrm_safety.rollouts import GenerationRequest
from lrm_safety.settings.compose import compose_settings
from lrm_safety.settings.paths import resolve

from .simulated_engines import Clock, EngineCosts, Lengths
from .simulated_groups import Costs, SimulatedGroups, sync_seconds

POLICY, REWARD = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "Skywork/Skywork-Reward-V2-Llama-3.1-8B"
"""Whose shapes the costs are of; what is trained is nothing."""
FREE = ("rollout.dispatch=as_slots_free",)
MODES: dict[str, tuple[str, ...]] = {
    "fixed": (),
    "as_slots_free": FREE,
    "oversampling": (*FREE, "algorithm.oversampling=1.25"),
    "staleness": (*FREE, "algorithm.max_staleness=1"),
    "all": (*FREE, "algorithm.oversampling=1.25", "algorithm.max_staleness=1"),
}
"""Ways to keep engines busy; `fixed` is the default of a run."""
SAMPLES = 4
"""Responses to a prompt."""


def assumed_costs(assumed: Assumptions) -> Costs:
    """What the planner takes for granted, for one H100 a worker: no figure of it was measured by this project."""
    policy, reward = KNOWN[POLICY], KNOWN[REWARD]
    operations = assumed.peak_tflops * 1e12 * assumed.utilisation
    bandwidth, parameters, context = assumed.memory_tb_per_second * 1e12, num_parameters(policy), 512
    read = 2 * parameters / operations
    engine = EngineCosts(
        step=assumed.decode_overhead_ms / 1000 + 2 * parameters / bandwidth,
        sequence=read + kv_bytes_per_token(policy) * context / bandwidth,
        read=read,
    )
    return Costs(engine, policy, reward, operations, operations, sync_seconds(policy, assumed.sync_gib_per_second))


@dataclass(frozen=True)
class Case:
    """One simulated run."""

    mode: str
    gpus: int
    """A multiple of 8; of each 8, 4 train, 2 generate, 1 is the reference, 1 the reward model."""
    responses_per_gpu: int = 64
    max_num_seqs: int = 64
    max_response_tokens: int = 4096
    iterations: int = 3
    overrides: tuple[str, ...] = ()

    @property
    def prompts(self) -> int:
        """Of a rollout batch."""
        return self.responses_per_gpu * self.gpus // SAMPLES

    def composed(self, folder: Path) -> list[str]:
        """The configuration. `folder` is written into."""
        nodes = self.gpus // 8
        # As many different prompts as are asked for, drawn ahead and in flight.
        rows = _rows(folder / "prompts.jsonl", self.prompts * 4)
        return [
            *("experiment=miniature", "rollout=vllm", "cluster=node_8gpu_split", "evaluation=none"),
            *(f"cluster.{group}.num_workers={n * nodes}" for group, n in _SPLIT.items()),
            *(f"data.path={rows}", f"run.directory={folder / 'run'}", f"rollout.max_num_seqs={self.max_num_seqs}"),
            *(f"algorithm.rollout_batch_size={self.prompts}", f"algorithm.samples_per_prompt={SAMPLES}"),
            *(
                f"algorithm.mini_batch_size={self.prompts * SAMPLES // 2}",
                f"schedule.max_updates={100 * self.iterations}",
            ),
            *(f"rollout.max_response_tokens={self.max_response_tokens}", "trainer.micro_batch_tokens=16384"),
            *("trainer.gradient_checkpointing=true", "checkpoint.best_metric=null", "checkpoint.every_updates=0"),
            *("tracking=disabled", "tracking.console=off", "tracking.log_text=false", "trainer.max_restarts=0"),
            *MODES[self.mode],
            *self.overrides,
        ]


_SPLIT = {"policy": 4, "rollout": 2, "reference": 1, "reward": 1}


@dataclass(frozen=True)
class Iteration:
    """What one iteration took, in simulated seconds."""

    seconds: float
    tokens: int
    """Of the responses that were learned from."""
    busy: dict[str, float]
    """Share of the seconds that a worker of each group was at work, in the mean."""
    sync: float
    controller: float
    """Processor seconds of the controller, measured."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class Result:
    """A case and its iterations, but for the first, which begins with nothing in flight."""

    case: Case
    iterations: list[Iteration]
    peak_gib: float
    """Of this process so far."""

    def share(self, of: Callable[[Iteration], float]) -> float:
        """Of the seconds of all iterations."""
        return sum(map(of, self.iterations)) / self.seconds

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.iterations)

    @property
    def tokens_per_second_and_gpu(self) -> float:
        return self.share(lambda one: one.tokens) / self.case.gpus

    def busy(self, group: str) -> float:
        return self.share(lambda one: one.busy[group] * one.seconds)


def simulate(
    case: Case, costs: Costs, length_of: Callable[[GenerationRequest], int], clock: Clock | None = None
) -> Result:
    """Run a case on this machine's processor; nothing of it stays on disk."""
    clock = clock or Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings, _ = compose_settings(case.composed(folder))
        run = prepare(settings, folder / "run")
        run.directory.mkdir(exist_ok=True)
        with Recorder(
            run.directory,
            "simulation",
            run.settings.tracking,
            run.schedule.limits,
            {},
            batches=run.settings.algorithm.records_batches,
        ) as recorder:
            recorder.phases = Phases(_Silent(), clock.now)
            groups = SimulatedGroups(run, costs, length_of, clock)
            controller = Controller(run, groups, recorder, Interruption(), _no_evaluation(run))
            controller.begin()
            iterations = [_step(controller, groups, clock) for _ in range(case.iterations)]
    return Result(case, iterations[1:], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


class _Silent:
    def phase(self, name: str | None) -> None:
        """Nobody looks."""


def _no_evaluation(run: PreparedRun) -> InLoopEvaluation:
    return InLoopEvaluation(run.settings, run.family, run.tokenizer, run.parser, run.sampling, run.num_embeddings)


def _step(controller: Controller, groups: SimulatedGroups, clock: Clock) -> Iteration:
    told: dict[str, float] = {}
    controller.recorder.watch = told.update
    began, computed = clock.now(), clock.computed()
    controller.step()
    seconds = clock.now() - began
    responses = controller.settings.algorithm.num_responses
    return Iteration(
        seconds=seconds,
        tokens=round(told["response/length_mean"] * responses),
        busy={group: told[f"speed/busy_{group}"] * told["time/iteration_seconds"] / seconds for group in _SPLIT},
        sync=told["time/sync_seconds"],
        controller=clock.computed() - computed,
        metrics=told,
    )


def _rows(file: Path, count: int) -> Path:
    """So many prompts: those of the miniature, again and again under other ids."""
    source = Path(resolve("package:lrm_safety/miniature/assets/prompts/train.jsonl", "data.path"))
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(lines[i % len(lines)] | {"id": str(i)}) + "\n" for i in range(count))
    return file


COLUMNS = (
    *("GPUs", "engines", "mode", "max_num_seqs", "iteration s", "tokens/s/GPU", "trainers busy", "engines busy"),
    *("sync", "controller s", "ms a response", "controller", "peak GiB"),
)


def row(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    case = result.case
    count = len(result.iterations)
    own = sum(one.controller for one in result.iterations) / count
    return (
        *(str(case.gpus), str(case.gpus // 4), case.mode, str(case.max_num_seqs), f"{result.seconds / count:.1f}"),
        *(f"{result.tokens_per_second_and_gpu:.0f}", f"{result.busy('policy'):.0%}", f"{result.busy('rollout'):.0%}"),
        f"{result.share(lambda one: one.sync):.1%}",
        *(f"{own:.1f}", f"{1000 * own / (case.prompts * SAMPLES):.2f}"),
        *(f"{result.share(lambda one: one.controller):.1%}", f"{result.peak_gib:.1f}"),
    )


def cases(gpus: Iterable[int], modes: Sequence[str], places: Sequence[int], iterations: int) -> list[Case]:
    """Every mode on the smallest number of GPUs with every number of places, then the other numbers with the first of them."""
    first, *others = sorted(gpus)
    small = [Case(mode, first, max_num_seqs=n, iterations=iterations) for n in places for mode in modes]
    return small + [Case(mode, n, max_num_seqs=places[0], iterations=iterations) for n in others for mode in modes]


def main(arguments: list[str] | None = None) -> int:
    """Simulate and show; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 32, 128, 512], help="multiples of 8")
    parser.add_argument("--modes", nargs="+", default=["fixed", "all"], choices=list(MODES))
    parser.add_argument("--responses-per-gpu", type=int, default=64, help="of a rollout batch; a multiple of 4")
    parser.add_argument("--max-num-seqs", type=int, nargs="+", default=[64])
    parser.add_argument("--iterations", type=int, default=3, help="the first is not counted")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    options = parser.parse_args(arguments)
    if wrong := [n for n in options.gpus if n < 8 or n % 8]:
        parser.error(f"--gpus {wrong[0]}: must be a multiple of 8")
    if options.responses_per_gpu < 4 or options.responses_per_gpu % 4:
        parser.error(f"--responses-per-gpu {options.responses_per_gpu}: must be a multiple of 4")
    if options.iterations < 2:
        parser.error("--iterations: must be at least 2")
    costs, lengths = assumed_costs(Assumptions()), Lengths(400, 0.9, 4096)
    table = Table(title="SIMULATED: the controller is real, the groups are stand-ins", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "mode" else "right")
    console, results = Console(stderr=True), []
    for case in cases(options.gpus, options.modes, options.max_num_seqs, options.iterations):
        results.append(simulate(replace(case, responses_per_gpu=options.responses_per_gpu), costs, lengths))
        console.print(", ".join(map(" ".join, zip(COLUMNS, row(results[-1]), strict=True))), soft_wrap=True)
        table.add_row(*row(results[-1]))
    Console(width=160).print(table)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps([_plain(one) for one in results], indent=1) + "\n", encoding="utf-8")
    return 0


def _plain(result: Result) -> dict[str, Any]:
    return {"simulated": True, **asdict(result)}


if __name__ == "__main__":
    sys.exit(main())
