"""SIMULATED: the four groups as the controller asks them, with stand-ins that take their time and compute nothing.

What a real group does in the controller's process (dealing requests, cutting micro-batches) is done here by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from lrm_safety.batching import plan_micro_batches
from lrm_safety.checkpoints import Files
from lrm_safety.modeling.flops import forward_flops, update_flops
from lrm_safety.modeling.shapes import ModelShape, num_parameters
from lrm_safety.preparation import PreparedRun
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.scorer import Scores
from lrm_safety.rollouts import (
    GenerationRequest,
    Rollout,
    SamplingParameters,
    TokenIds,
    TokenScores,
    TokenValues,
    TrainingSequence,
    Update,
)
from lrm_safety.settings import Settings
from lrm_safety.workers.protocols import Usage
from lrm_safety.workers.request_queue import RequestQueue

from .simulated_engines import Clock, Ended, EngineCosts, SimulatedEngine

LOGPROB = -1.0
"""Of every token, by whomever: engines, trainer and reference agree, so that the self-checks pass."""
LOOK_SECONDS = 1.0
"""How often a wait of the controller looks at what else has come, as Ray's waits in workers/ do."""


@dataclass(frozen=True)
class Costs:
    """What takes how long. Assumed, nowhere measured here."""

    engine: EngineCosts
    policy: ModelShape
    reward: ModelShape
    training: float
    """Floating-point operations of the model's own a second (peak times MFU) of one GPU that trains."""
    scoring: float
    """The same of one that scores."""
    sync: float
    """Seconds of a weight sync, to however many engines."""


class Words:
    """Responses to take token ids from: a trace, its end, an answer."""

    def __init__(self, run: PreparedRun) -> None:
        text = " The user asks about it. Wait, this could hurt people. But I can explain. Plan: answer."
        encode = run.tokenizer.encode
        self._words = encode(text, add_special_tokens=False)
        self._close = encode("</think>", add_special_tokens=False)
        self._stop = run.sampling.stop_token_ids[0]

    def response(self, length: int, *, finished: bool) -> TokenIds:
        """int32 [length]; one that is long enough has a trace of four fifths."""
        ids = np.resize(np.asarray(self._words, dtype=np.int32), length)
        if length > 5 * len(self._close):
            start = length * 4 // 5 - len(self._close)
            ids[start : start + len(self._close)] = self._close
        if finished:
            ids[-1] = self._stop
        return ids


class SimulatedRollout:
    """Engines, in turn and continuously: `RolloutGroup` and `ContinuousRolloutGroup`."""

    def __init__(self, settings: Settings, clock: Clock, engines: list[SimulatedEngine], words: Words) -> None:
        rollout = settings.rollout
        self._clock, self.engines, self._words, self._settings = clock, engines, words, rollout
        self._queue = RequestQueue(len(engines), rollout.max_num_seqs if rollout.dispatch == "as_slots_free" else None)
        self._kept: list[tuple[int, list[Rollout]]] = []
        """What ended before somebody asked, by engine."""

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """Each engine has its share from the beginning."""
        size = self._settings.stream_chunk_size
        ended: list[list[Rollout]] = [[] for _ in self.engines]
        owed = [len(requests[engine :: len(self.engines)]) for engine in range(len(self.engines))]
        with self._clock.apart():
            self._advance()
            for index, engine in enumerate(self.engines):
                engine.add(requests[index :: len(self.engines)])
        while sum(owed):
            with self._clock.apart():
                self._clock.skip_to(min(engine.next_end for engine in self.engines))
                chunks = []
                for index, some in self._advance():
                    ended[index] += some
                    owed[index] -= len(some)
                    while len(ended[index]) >= size or (ended[index] and not owed[index]):
                        chunks.append(ended[index][:size])
                        del ended[index][:size]
            yield from chunks

    def begin(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> None:
        self._queue.add(requests)
        self._deal()

    def answered(self, seconds: float = 0.0) -> list[Rollout]:
        with self._clock.apart():
            told, self._kept = self._kept + self._advance(), []
            if not told and seconds:
                self._clock.skip_to(min(self._clock.now() + seconds, *(one.next_end for one in self.engines), math.inf))
                told = self._advance()
        for engine, rollouts in told:
            self._queue.answered(engine, rollouts)
        self._deal()
        return [rollout for _, rollouts in told for rollout in rollouts]

    def cancel(self) -> dict[int, int]:
        with self._clock.apart():
            late, self._kept = self._kept + self._advance(), []
            sampled = {one.request_id: len(one.response_ids) for _, some in late for one in some}
            for engine in self.engines:
                sampled |= engine.cancel()
        self._queue.clear()
        return sampled

    def replace_lost(self) -> None:
        """None dies."""

    def weights_versions(self) -> list[int]:
        return [engine.version for engine in self.engines]

    def probe(self, sequences: Sequence[TokenIds]) -> list[list[TokenValues]]:
        return [[np.full(len(ids) - 1, LOGPROB, dtype=np.float32) for ids in sequences] for _ in self.engines]

    def describe(self) -> list[str]:
        return [f"{len(self.engines)} SIMULATED engines"]

    def publish(self, version: int, until: float) -> None:
        """No engine makes a step before `until`."""
        with self._clock.apart():
            self._kept += self._advance()
            for engine in self.engines:
                engine.publish(version, until)

    def take_work(self) -> list[float]:
        """Of each engine, see `SimulatedEngine.take_work`."""
        with self._clock.apart():
            self._kept += self._advance()
        return [engine.take_work() for engine in self.engines]

    def _deal(self) -> None:
        for engine, share in enumerate(self._queue.deal()):
            if share:
                with self._clock.apart():
                    self.engines[engine].add(share)

    def _advance(self) -> list[tuple[int, list[Rollout]]]:
        """Bring all engines up to now: what those let go that let something go."""
        now = self._clock.now()
        told = [(index, engine.advance(now)) for index, engine in enumerate(self.engines)]
        return [(index, [self._rollout(one) for one in ended]) for index, ended in told if ended]

    def _rollout(self, one: Ended) -> Rollout:
        finished = one.length < self._settings.max_response_tokens
        return Rollout(
            request_id=one.request.request_id,
            prompt_index=one.request.prompt_index,
            prompt_ids=one.request.prompt_ids,
            response_ids=self._words.response(one.length, finished=finished),
            logprobs=np.full(one.length, LOGPROB, dtype=np.float32),
            finish_reason="stop" if finished else "length",
            weights_version=one.spans[0][1],
            taken_over=one.spans[1:],
        )


class SimulatedTrainer:
    """ZeRO-3 ranks: the slowest one's operations, micro-batches cut as `PolicyGroup` cuts them."""

    def __init__(self, settings: Settings, costs: Costs, wait: Callable[[float], None], clock: Clock) -> None:
        self._settings, self._costs, self._wait, self._clock = settings, costs, wait, clock
        self.weights_version = 0
        self._work = self._free = 0.0

    @property
    def num_ranks(self) -> int:
        return self._settings.cluster.policy.num_workers

    def logprobs(self, sequences: Sequence[TrainingSequence]) -> dict[int, TokenScores]:
        return {one.index: one for one in self.result(self.submit(sequences))}

    def submit(self, sequences: Sequence[TrainingSequence]) -> tuple[float, list[TokenScores]]:
        ends = self._begin(self._slowest(sequences, forward_flops))
        with self._clock.apart():
            return ends, [_scores(one) for one in sequences]

    def result(self, ticket: tuple[float, list[TokenScores]]) -> list[TokenScores]:
        self._wait(ticket[0])
        return ticket[1]

    def update(
        self, mini_batches: Sequence[Sequence[TrainingSequence]], lrs: Sequence[float], kl_coef: float = 0.0
    ) -> list[Update]:
        again = self._settings.trainer.gradient_checkpointing
        seconds = 0.0
        for sequences in mini_batches:
            seconds += self._slowest(sequences, update_flops, forward_flops if again else None)
        self._wait(self._begin(seconds))
        with self._clock.apart():
            return [
                Update(0.0, 1.0, lr, {one.index: one for one in map(_scores, sequences)})
                for sequences, lr in zip(mini_batches, lrs, strict=True)
            ]

    def probe_scores(self, sequences: Sequence[TokenIds]) -> list[TokenValues]:
        return [np.full(len(ids) - 1, LOGPROB, dtype=np.float32) for ids in sequences]

    def save(self, folder: Path) -> Files:
        raise NotImplementedError("a simulation saves nothing")

    def load(self, folder: Path, files: Files) -> None:
        raise NotImplementedError("a simulation saves nothing")

    def export(self, folder: Path) -> None:
        raise NotImplementedError("a simulation saves nothing")

    def take_work(self) -> list[float]:
        """Of each rank: all are inside the same calls."""
        work, self._work = self._work, 0.0
        return [work] * self.num_ranks

    def _slowest(self, sequences: Sequence[TrainingSequence], *passes: Callable[..., float] | None) -> float:
        """Seconds of the rank that has most to do."""
        plan = plan_micro_batches(
            [one.num_tokens for one in sequences],
            self.num_ranks,
            self._settings.trainer.micro_batch_tokens,
            packing=self._settings.model.packing,
        )
        with self._clock.apart():
            operations = [0.0]
            for rank in plan:
                mine = [sequences[position] for batch in rank for position in batch]
                lengths, outputs = [one.num_tokens for one in mine], [len(one.response_ids) for one in mine]
                operations.append(sum(one(self._costs.policy, lengths, outputs) for one in passes if one and mine))
            return max(operations) / self._costs.training

    def _begin(self, seconds: float) -> float:
        """When what takes so long will have been done, after what was begun before."""
        self._work += seconds
        self._free = max(self._free, self._clock.now()) + seconds
        return self._free


def _scores(sequence: TrainingSequence) -> TokenScores:
    size = len(sequence.response_ids)
    return TokenScores(sequence.index, np.full(size, LOGPROB, np.float32), np.full(size, 0.5, np.float32))


class SimulatedScorers:
    """Workers that score chunks one after the other, each chunk given to the next worker in turn."""

    def __init__(self, num_workers: int, costs: Costs, wait: Callable[[float], None], clock: Clock) -> None:
        self._free, self._work = [0.0] * num_workers, [0.0] * num_workers
        self._costs, self._wait, self._clock = costs, wait, clock
        self._turns = cycle(range(num_workers))

    def take_work(self) -> list[float]:
        """Of each worker, seconds of the chunks that were given to it since this was asked last."""
        work, self._work = self._work, [0.0] * len(self._work)
        return work

    def _begin(self, operations: float) -> float:
        """When a chunk of so many will have been scored."""
        worker, seconds = next(self._turns), operations / self._costs.scoring
        self._free[worker] = max(self._free[worker], self._clock.now()) + seconds
        self._work[worker] += seconds
        return self._free[worker]


class SimulatedReference(SimulatedScorers):
    def submit(self, sequences: Sequence[TrainingSequence]) -> tuple[float, list[TokenScores]]:
        with self._clock.apart():
            lengths, outputs = [one.num_tokens for one in sequences], [len(one.response_ids) for one in sequences]
            ends = self._begin(forward_flops(self._costs.policy, lengths, outputs))
            return ends, [_scores(one) for one in sequences]

    def result(self, ticket: tuple[float, list[TokenScores]]) -> list[TokenScores]:
        self._wait(ticket[0])
        return ticket[1]


class SimulatedReward(SimulatedScorers):
    """Scores are standard normal, the same whenever a text is scored."""

    def submit(
        self, conversations: list[Conversation], prefixes: list[list[Conversation]] | None = None
    ) -> tuple[float, Scores]:
        with self._clock.apart():
            lengths = [(len(one.prompt) + len(one.full)) // 4 for one in conversations]  # about four characters a token
            ends = self._begin(forward_flops(self._costs.reward, lengths, 0))
            total = np.random.default_rng(lengths).normal(size=len(lengths)).astype(np.float32)
            return ends, Scores(total, {"simulated/full": total}, 0, 0, 0, 0)

    def result(self, ticket: tuple[float, Scores]) -> Scores:
        self._wait(ticket[0])
        return ticket[1]


class SimulatedGroups:
    """What the controller runs on; see `LearningGroups`."""

    def __init__(
        self, run: PreparedRun, costs: Costs, length_of: Callable[[GenerationRequest], int], clock: Clock
    ) -> None:
        settings = run.settings
        self.cluster, self._clock, self._costs = settings.cluster, clock, costs
        self._look: Callable[[], None] = lambda: None
        places = settings.rollout.max_num_seqs
        engines = [SimulatedEngine(places, costs.engine, length_of) for _ in range(self.cluster.rollout.num_workers)]
        self.rollout = SimulatedRollout(settings, clock, engines, Words(run))
        self.policy = SimulatedTrainer(settings, costs, self._wait, clock)
        self.reward = SimulatedReward(self.cluster.reward.num_workers, costs, self._wait, clock)
        self.reference = SimulatedReference(self.cluster.reference.num_workers, costs, self._wait, clock)

    def cards(self) -> Mapping[str, str | None]:
        return dict.fromkeys(("policy", "rollout", "reward", "reference"))

    def usage(self) -> Usage:
        groups = {"policy": self.policy, "rollout": self.rollout, "reward": self.reward, "reference": self.reference}
        return Usage({}, {name: group.take_work() for name, group in groups.items()})

    def begin_profile(self) -> None:
        raise NotImplementedError("a simulation has nothing to profile")

    def end_profile(self, folder: Path, label: str) -> None:
        raise NotImplementedError("a simulation has nothing to profile")

    def begin_training(self) -> None:
        """Groups are apart."""

    def end_training(self) -> None:
        """Groups are apart."""

    def publish_weights(self) -> int:
        self.policy.weights_version += 1
        ends = self._clock.now() + self._costs.sync
        self.rollout.publish(self.policy.weights_version, ends)
        self._wait(ends)
        return self.policy.weights_version

    def while_waiting(self, call: Callable[[], None]) -> None:
        self._look = call

    def _wait(self, moment: float) -> None:
        """Until then, with a look about once a second."""
        while (now := self._clock.now()) < moment:
            self._clock.skip_to(min(moment, now + LOOK_SECONDS))
            self._look()


def sync_seconds(policy: ModelShape, gib_per_second: float) -> float:
    """bfloat16 weights, broadcast."""
    return 2 * num_parameters(policy) / (gib_per_second * 2**30)
