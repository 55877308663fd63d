"""Cost against work: ten times the batch, ten times the length, four engines instead of one, on the miniature.

What is compared is processor seconds a token, of the controller and all workers together, and memory a token, of workers, so that a
busy machine and its number of cores change nothing. An end token is unknown to the model, and every response has the length that
is asked for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lrm_safety.modeling.flops import attention_flops, forward_flops, generation_flops, update_flops
from lrm_safety.modeling.shapes import ModelShape, shape_of
from lrm_safety.preparation import resolved
from lrm_safety.settings.compose import compose_settings

from .figures import Context, Measurement
from .loop import Loop
from .rounds import Round
from .system import without_end_token

BATCH, LENGTH, TIMES, ENGINES = 64, 80, 10, 4
ROUNDS = 2
"""Recorded iterations of every size, after one that is not counted."""
POSITIONS = 2048
"""The miniature's rotary positions have no table; its configuration states 256."""


@dataclass(frozen=True)
class Size:
    """Work of one iteration."""

    batch: int = BATCH
    length: int = LENGTH
    engines: int = 1

    def overrides(self, policy: Path) -> list[str]:
        """One prompt a response, one update, one thread a worker. `policy`: the model without end token."""
        threads = [f"cluster.{group}.threads_per_worker=1" for group in ("policy", "rollout", "reference", "reward")]
        return [
            *("experiment=miniature", "reward=python_example", "evaluation=none", f"model.path={policy}", *threads),
            *(f"algorithm.rollout_batch_size={self.batch}", f"algorithm.mini_batch_size={self.batch}"),
            *(f"rollout.max_response_tokens={self.length}", f"cluster.rollout.num_workers={self.engines}"),
            *("rollout.max_num_seqs=32", "cluster.rollout.cpus_per_worker=0.1", "checkpoint.every_updates=0"),
            *("checkpoint.best_metric=null", "tracking=disabled", "tracking.console=off", "tracking.log_text=false"),
        ]


@dataclass(frozen=True)
class Cost:
    """Of the iterations of one size."""

    rounds: list[Round]
    processor_seconds: list[float]
    """Of each round, all processes together."""
    peak_bytes: Mapping[str, float]
    """Of a worker of each group. The controller lives on from size to size, and its peak would be that of the largest before."""

    @property
    def seconds_a_token(self) -> float:
        """Prompts' tokens among them."""
        pairs = zip(self.processor_seconds, self.rounds, strict=True)
        return median(seconds / (one.tokens + one.prompt_tokens) for seconds, one in pairs)


@cache
def cost(context: Context, size: Size) -> Cost:
    """Run a few iterations of a size."""
    context.systems.end()
    directory = context.directory / "scaling"
    settings = resolved(compose_settings(["experiment=miniature"])[0])
    policy = without_end_token(Path(settings.model.path), directory / "model")
    config = json.loads((policy / "config.json").read_text(encoding="utf-8"))
    (policy / "config.json").write_text(json.dumps(config | {"max_position_embeddings": POSITIONS}), encoding="utf-8")
    settings, _ = compose_settings(size.overrides(policy))
    rounds, seconds = [], []
    with Loop(settings, directory / f"{size.batch}-{size.length}-{size.engines}") as loop:
        loop.round()
        for _ in range(ROUNDS):
            before = _processor_seconds(loop)
            rounds.append(loop.round())
            seconds.append(_processor_seconds(loop) - before)
        memory = loop.controller.groups.usage().memory
    peaks = {
        name.split("/")[1].split("_")[0]: gib * 2**30 for name, gib in memory.items() if name.endswith("rss_peak_gib")
    }
    return Cost(rounds, seconds, peaks)


def _processor_seconds(loop: Loop) -> float:
    """Of this process and of every worker so far."""
    groups: Any = loop.controller.groups
    asked = [groups.policy, groups.rollout, groups.reward, groups.reference]
    told = [seconds for group in asked for seconds in group.ask(lambda worker: time.process_time()).values()]
    return time.process_time() + sum(told)


def operations(shape: ModelShape, prompt: float, response: int) -> tuple[float, float]:
    """Floating-point operations of one response from its sampling to its update, and those of them that are attention's."""
    lengths, outputs = [prompt + response], [response]
    passes = (
        generation_flops(shape, [round(prompt)], outputs, is_first=np.ones(1, dtype=bool)),
        2 * forward_flops(shape, lengths, outputs),  # the trainer's log-probs and the reference's
        update_flops(shape, lengths, outputs),
    )
    return sum(passes), 6 * attention_flops(shape, lengths)


def compared(name: str, larger: Size, *, linear: bool = True) -> Callable[[Context], Measurement]:
    """Processor seconds a token of a larger size / of the base; `linear`: the model's operations a token are the same."""

    def ratio(context: Context) -> Measurement:
        base, more = cost(context, Size()), cost(context, larger)
        measured = more.seconds_a_token / base.seconds_a_token
        details: dict[str, Any] = {
            "measured": measured,
            "seconds_a_token": [base.seconds_a_token, more.seconds_a_token],
        }
        if not linear:
            shape = shape_of(str(context.directory / "scaling" / "model"), "model.path")
            told = []
            for size, one in ((Size(), base), (larger, more)):
                prompt = one.rounds[0].prompt_tokens / one.rounds[0].responses
                whole, attention = operations(shape, prompt, size.length)
                told.append((whole / (prompt + size.length), attention / whole))
            details |= {"operations_a_token": [one[0] for one in told], "attention_share": [one[1] for one in told]}
            measured /= told[1][0] / told[0][0]
        tokens = [one.rounds[0].tokens + one.rounds[0].prompt_tokens for one in (base, more)]
        details["bytes_a_token_beyond_the_base"] = {
            group: (more.peak_bytes[group] - peak) / (tokens[1] - tokens[0]) for group, peak in base.peak_bytes.items()
        }
        details["peak_bytes"] = {"base": dict(base.peak_bytes), name: dict(more.peak_bytes)}
        return Measurement(measured, details)

    return ratio


batch = compared("batch", Size(batch=TIMES * BATCH))
length = compared("length", Size(length=TIMES * LENGTH), linear=False)
engines = compared("engines", Size(batch=ENGINES * BATCH, engines=ENGINES))
