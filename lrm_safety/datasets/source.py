"""The order in which prompts are drawn: seeded, fair, and resumable to the very next prompt."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrm_safety.errors import ConfigError, DataError


class PromptSource:
    """Draws batches of prompt indices, pass after pass over the set.

    Each pass is a permutation shuffled by (seed, pass number) with PCG64, whose stream numpy keeps the same on every
    platform. What a pass leaves over is carried into the next batch, so every prompt is drawn k times before any is
    drawn k + 1 times. A batch that spans two passes takes the rest of the old pass, then the new pass in its order but
    for the prompts it already holds; those keep their places in the new pass and wait for the following batches. A
    batch therefore never holds a prompt twice.

    Raises ConfigError unless 1 <= batch_size <= num_prompts.
    """

    def __init__(self, num_prompts: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= num_prompts:
            raise ConfigError(
                f"rollout batch of {batch_size} prompts does not fit a set of {num_prompts}: "
                "it must be at least 1 and at most the number of prompts"
            )
        if seed < 0:
            raise ConfigError(f"seed={seed} must not be negative")
        self._num_prompts = num_prompts
        self._batch_size = batch_size
        self._seed = seed
        self._num_passes_started = 0
        self._remaining: list[int] = []

    def next_batch(self) -> list[int]:
        """`batch_size` different indices in `range(num_prompts)`."""
        batch = self._remaining[: self._batch_size]
        self._remaining = self._remaining[self._batch_size :]
        if missing := self._batch_size - len(batch):
            shuffled = self._next_pass()
            held = set(batch)
            taken = [index for index in shuffled if index not in held][:missing]
            batch += taken
            held = set(taken)
            self._remaining = [index for index in shuffled if index not in held]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Everything the next batch depends on, as JSON-able values."""
        return {
            "num_prompts": self._num_prompts,
            "seed": self._seed,
            "num_passes_started": self._num_passes_started,
            "remaining": list(self._remaining),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken; the batch size may differ from the one it was taken with.

        Raises DataError when the state belongs to another number of prompts or another seed.
        """
        for name, ours in (("num_prompts", self._num_prompts), ("seed", self._seed)):
            if state[name] != ours:
                raise DataError(
                    f"the checkpoint's prompt order has {name}={state[name]}, this run has {ours}: "
                    "resume with the data set and seed it was started with"
                )
        self._num_passes_started = state["num_passes_started"]
        self._remaining = list(state["remaining"])

    def _next_pass(self) -> list[int]:
        # A generator of its own for each pass: the order of pass n needs no replay of the passes before it.
        entropy = np.random.SeedSequence([self._seed, self._num_passes_started])
        self._num_passes_started += 1
        return np.random.Generator(np.random.PCG64(entropy)).permutation(self._num_prompts).tolist()
