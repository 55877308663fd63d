"""From prompts to updated weights, side by side: this system, TRL (`make peers`), and the limit of bare vLLM and torch."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from lrm_safety.lab.reports.folders import read_series
from lrm_safety.preparation import PreparedRun
from lrm_safety.settings.compose import compose_settings

from .bare_loop import BareLoop
from .figures import Context, Measurement, NotInstalled, NotMeasured
from .lengths import star1_file
from .loop import Loop
from .rounds import Round, check_same_work, facts, rate_ratio
from .system import EXPERIMENTS
from .timing import interleave

PROMPTS, SAMPLES, UPDATES = 32, 2, 2
"""Of a rollout batch: 64 responses, half of them an update."""
KL_COEF = 0.05
WARM_UP = {"miniature": 2, "smollm2": 1}
LENGTH_TOLERANCE = {"miniature": 0.25, "smollm2": 0.15}
"""Relative difference of the sides' mean response lengths above which the work was not equal; the miniature learns meanwhile."""
LEAST_RESPONSE_TOKENS = {"miniature": 32, "smollm2": 64}
LIMIT_SECONDS = 1800
"""For one answer of the peer."""


def overrides_of(model: str, rounds: int) -> list[str]:
    """The ready-made experiment of a model as it stands but for what makes it RLOO on a batch that all sides can do, and for
    what belongs to no iteration (evaluation, checkpoints, tracker, console)."""
    batch = PROMPTS * SAMPLES
    local = star1_file() if model == "smollm2" else None
    return [
        *(f"experiment={EXPERIMENTS[model]}", "algorithm=rloo"),
        *(f"algorithm.rollout_batch_size={PROMPTS}", f"algorithm.samples_per_prompt={SAMPLES}"),
        *(f"algorithm.mini_batch_size={batch // UPDATES}", f"algorithm.kl.coef={KL_COEF}"),
        f"schedule.max_updates={UPDATES * rounds}",
        *("evaluation=none", "checkpoint.every_updates=0", "checkpoint.best_metric=null"),
        *("tracking=disabled", "tracking.console=off"),
        *([] if local is None else [f"data.path={local}"]),
    ]


def trl_work(run: PreparedRun, threads: int, folder: Path) -> dict[str, Any]:
    """What `trl_peer` is told: models, questions with the token ids that we read them as, and sizes. JSON."""
    settings = run.settings
    algorithm, trainer = settings.algorithm, settings.trainer
    (reward,) = settings.reward.models.values()
    return {
        "threads": threads,
        "folder": str(folder),
        "model": settings.model.path,
        "reward_model": reward.path,
        "questions": [row.question for row in run.prompts.rows],
        "prompts": [ids.tolist() for ids in run.rendered],
        "responses": algorithm.num_responses,
        "samples_per_prompt": algorithm.samples_per_prompt,
        "updates": algorithm.num_responses // algorithm.mini_batch_size,
        "max_response_tokens": run.sampling.max_response_tokens,
        "temperature": run.sampling.temperature,
        "kl_coef": algorithm.kl.coef,
        "lr": trainer.lr,
        "gradient_clip": trainer.gradient_clip,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "seed": settings.seed,
    }


class Peer:
    """A program of another environment that answers lines of JSON: first `work` with `ready`, then `round` with a round.

    A context manager; what it prints besides goes to `log`.
    """

    def __init__(self, command: list[str], work: dict[str, Any], environment: dict[str, str], log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | environment,
                cwd=Path(__file__).parent.parent,
            )
        self._work = work
        self._send(json.dumps(work))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ready(self) -> dict[str, str]:
        """Wait until it could begin; versions of what it runs on. Raises NotMeasured with its last words where it ends."""
        versions: dict[str, str] = self._answer()["ready"]
        return versions

    def round(self) -> Round:
        """One round. Raises NotMeasured as `ready` does."""
        self._send("round")
        return Round(**self._answer())

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NotMeasured(f"the peer ended: {self._last_words()} ({self._log})") from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # It writes whole lines, one an answer, so that none is left in Python's buffer.
        if not select.select([self._process.stdout], [], [], LIMIT_SECONDS)[0]:
            raise NotMeasured(f"no answer from the peer within {LIMIT_SECONDS} seconds ({self._log})")
        line = self._process.stdout.readline()
        if not line:
            raise NotMeasured(f"the peer ended: {self._last_words()} ({self._log})")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"


def trl_python(folder: Path) -> Path:
    """The interpreter of the peers' environment. Raises NotInstalled where there is none."""
    python = folder / "bin" / "python"
    if not python.is_file():
        raise NotInstalled("TRL is not installed: run `make peers` first")
    return python


def trl_ratio(model: str) -> Callable[[Context], Measurement]:
    """Tokens/s of ours / of TRL's, from the first prompt to the last update."""

    def ratio(context: Context) -> Measurement:
        trl_python(context.peers)
        return _measurement(context, model, "trl")

    return ratio


def limit_ratio(model: str) -> Callable[[Context], Measurement]:
    """Tokens/s of ours / of bare vLLM and torch one after the other."""
    return lambda context: _measurement(context, model, "bare")


def sync_fraction(model: str) -> Callable[[Context], Measurement]:
    """Share of an iteration of that comparison in which weights go to the engine, version and probe checked: median of rounds."""

    def fraction(context: Context) -> Measurement:
        _side_by_side(context, model)
        series = read_series(context.directory / "peers" / model / "metrics.jsonl")
        rounds = context.rounds_of(model)
        sync, whole = (
            [seconds for _, seconds in series[f"time/{phase}_seconds"][-rounds:]] for phase in ("sync", "iteration")
        )
        fractions = [one / of for one, of in zip(sync, whole, strict=True)]
        return Measurement(median(fractions), {"fractions": fractions, "seconds": sync})

    return fraction


def _measurement(context: Context, model: str, other: str) -> Measurement:
    taken, versions = _side_by_side(context, model)
    pair = {name: taken[name] for name in ("ours", other)}
    check_same_work(pair, LENGTH_TOLERANCE[model])
    for name, rounds in pair.items():
        if (least := min(one.tokens / one.responses for one in rounds)) < LEAST_RESPONSE_TOKENS[model]:
            raise NotMeasured(
                f"{name}: responses of {least:.0f} tokens, fewer than {LEAST_RESPONSE_TOKENS[model]}: such work says nothing"
            )
    return Measurement(rate_ratio(taken["ours"], taken[other]), facts(taken) | {"versions": versions})


@cache
def _side_by_side(context: Context, model: str) -> tuple[dict[str, list[Round]], dict[str, str]]:
    """Rounds of all sides in turns, TRL's among them where it is installed; and TRL's versions."""
    context.systems.end()
    rounds, warm_up = context.rounds_of(model), WARM_UP[model]
    settings, _ = compose_settings([*overrides_of(model, warm_up + rounds), *context.systems.overrides])
    directory = context.directory / "peers" / model
    with ExitStack() as stack:
        loop = stack.enter_context(Loop(settings, directory))
        bare = stack.enter_context(BareLoop(loop.run, context.threads))
        sides = {"ours": loop.round, "bare": bare.round}
        versions: dict[str, str] = {}
        try:
            command = [str(trl_python(context.peers)), "-m", "benchmarks.trl_peer"]
        except NotInstalled:
            pass
        else:
            work = trl_work(loop.run, context.threads, directory / "trl")
            variables = {"OMP_NUM_THREADS": str(context.threads), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
            trl = stack.enter_context(Peer(command, work, variables, directory / "trl.log"))
            versions = trl.ready()
            sides["trl"] = trl.round
        bare.wait()
        taken = interleave(sides, warm_up=warm_up, rounds=rounds)
    for name, side in taken.items():
        one = side[-1]
        print(
            f"{model}, {name}: {one.responses} responses, {one.tokens} tokens, {one.prompt_tokens} of prompts, "
            f"{one.updates} updates in {one.seconds:.2f} s: {one.tokens_per_second:.1f} tokens/s",
            file=sys.stderr,
        )
    return taken, versions
