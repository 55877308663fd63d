"""Prompts in flight of a run that over-samples: which of them make a batch, and which wait for the next. No engines, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .rollouts import Rollout


@dataclass
class InFlight:
    """A prompt whose responses are sampled, or have been and nobody has learned from them."""

    prompt: int
    begun: int
    """Iteration for which it was drawn."""
    answers: list[Rollout] = field(default_factory=list)
    place: int | None = None
    """In the batch that comes next; None: not of it yet."""
    asked: bool = False
    """Engines know of it."""


class Pool:
    """A batch is the first `batch_size` prompts that are answered whole, in this order, but a prompt that `patience` batches
    have passed over is waited for: a place is kept for it. Every prompt is thus learned from once, and no later than `patience`
    iterations after the one that it was drawn for.

    At most 2 * batch_size prompts may be in flight, so that those which a batch passes over always fit into the next.
    """

    def __init__(self, batch_size: int, samples: int, patience: int) -> None:
        self._batch_size, self._samples, self._patience = batch_size, samples, patience
        self._iteration = 0
        self._next_number = 0
        self._in_flight: dict[int, InFlight] = {}
        """By the number that engines know it by, oldest first; taken ones are gone."""
        self._num_placed = 0
        self._num_kept = 0
        """Places of the next batch that are kept for those which are waited for."""
        self._all_looked_at = False
        """Since the last batch was taken: without a place are only those that can have none yet."""

    def __len__(self) -> int:
        """Prompts in flight."""
        return len(self._in_flight)

    def begin(self, iteration: int, prompts: Sequence[int]) -> list[Rollout]:
        """The batch of this iteration is next, and these prompts were drawn for it; what `answered` tells, of older ones."""
        self._iteration = iteration
        for prompt in prompts:
            self._add(prompt, iteration)
        return self._place_all()

    def to_ask(self) -> dict[int, InFlight]:
        """Prompts that engines do not know of, by their numbers, the oldest first; they are told of them now."""
        unknown = {number: one for number, one in self._in_flight.items() if not one.asked}
        for one in unknown.values():
            one.asked = True
        return unknown

    def answered(self, number: int, answer: Rollout) -> list[Rollout]:
        """Take one answer to a prompt; the responses that are now part of the next batch, `request_id` their position there."""
        one = self._in_flight[number]
        one.answers.append(answer)
        # Places that are taken or kept never become fewer: what found none before finds none now.
        return self._place(one) if self._all_looked_at else self._place_all()

    @property
    def is_full(self) -> bool:
        """Whether the next batch is whole."""
        return self._num_placed == self._batch_size

    def take(self) -> list[InFlight]:
        """Hand out the next batch, which is whole, in the order of its places; the one after it is then the next."""
        assert self.is_full, "a batch is taken before it is whole"
        taken = sorted(
            (one for one in self._in_flight.values() if one.place is not None), key=lambda one: one.place or 0
        )
        self._in_flight = {number: one for number, one in self._in_flight.items() if one.place is None}
        self._num_placed = 0
        self._all_looked_at = False
        self._iteration += 1
        return taken

    def forget(self) -> list[Rollout]:
        """All that is in flight is to be asked from the beginning again; the answers that it had. Called after `take`, before
        any other answer."""
        assert not self._num_placed, "a response of the next batch is forgotten"
        forgotten = [answer for one in self._in_flight.values() for answer in one.answers]
        for one in self._in_flight.values():
            one.answers, one.asked = [], False
        return forgotten

    def carried(self) -> list[list[int]]:
        """[prompt, iteration that it was drawn for] of all in flight. JSON."""
        return [[one.prompt, one.begun] for one in self._in_flight.values()]

    def restore(self, carried: Sequence[Sequence[int]]) -> None:
        """Begin with what `carried` told, without any answer."""
        for prompt, begun in carried:
            self._add(prompt, begun)

    def _add(self, prompt: int, begun: int) -> None:
        self._in_flight[self._next_number] = InFlight(prompt, begun)
        self._next_number += 1

    def _place_all(self) -> list[Rollout]:
        """Give places to what is whole, the oldest first."""
        unplaced = [one for one in self._in_flight.values() if one.place is None]
        self._num_kept = sum(map(self._is_due, unplaced))
        self._all_looked_at = True
        return [answer for one in unplaced for answer in self._place(one)]

    def _place(self, one: InFlight) -> list[Rollout]:
        """Give it a place if it is whole: where it is waited for, or there are more places than those that are waited for need."""
        if len(one.answers) < self._samples or self.is_full:
            return []
        if self._is_due(one):
            self._num_kept -= 1
        elif self._num_placed + self._num_kept >= self._batch_size:
            return []
        one.place = self._num_placed
        self._num_placed += 1
        first = one.place * self._samples
        in_order = sorted(one.answers, key=lambda answer: answer.request_id)
        return [replace(answer, request_id=first + sample) for sample, answer in enumerate(in_order)]

    def _is_due(self, one: InFlight) -> bool:
        return self._iteration - one.begun >= self._patience
