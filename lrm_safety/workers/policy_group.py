"""The controller's side of the policy group: cut a batch over ranks, run the call on all of them, join the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from ..batching import plan_counted, plan_micro_batches
from ..checkpoints import Files
from ..errors import WorkerError
from ..rollouts import MicroBatch, MiniBatch, TokenIds, TokenScores, TrainingSequence, Update, UpdateResult
from ..weight_sync.shm import remove_abandoned, remove_folder, remove_run, run_name, version_folder
from .environment import environment
from .group import ANSWER_SECONDS, CAUSE_GRACE_SECONDS, WorkerGroup
from .placement import Placement
from .policy import PolicyWorker
from .rollout_group import RolloutGroup
from .specs import PolicySpec
from .watchdog import Watchdog


class PolicyGroup:
    """DeepSpeed ZeRO-3 ranks that hold and train the policy."""

    def __init__(
        self, spec: PolicySpec, placement: Placement, on_wait: Callable[[], None], watchdog: Watchdog | None = None
    ) -> None:
        num_ranks = spec.cluster.policy.num_workers
        self._spec = spec
        self._on_wait = on_wait
        self._limit = spec.cluster.call_timeout_seconds
        self._group = WorkerGroup(
            "policy",
            PolicyWorker,
            num_ranks,
            placement,
            environment("policy", spec.cluster),
            lambda rank: (spec, rank, num_ranks),
            on_wait,
            watchdog,
        )
        remove_abandoned()
        self._run_name = run_name()
        self._begun: list[list[Any]] = []
        """Tickets of which some rank may still compute."""
        self.weights_version = 0

    @property
    def num_ranks(self) -> int:
        """Trainer ranks."""
        return len(self._group)

    def start(self) -> None:
        """Join the ranks and load the model."""
        limit = self._spec.cluster.start_timeout_seconds
        address, port = self._group.meeting_point()
        self._group.call("start", address, port, timeout_seconds=limit)

    def logprobs(
        self, sequences: Sequence[TrainingSequence], temperature: float | None = None
    ) -> dict[int, TokenScores]:
        """Log-probs and entropies of every response under the present weights, by position in the rollout batch.

        At the spec's temperature unless another is given.
        """
        return {scores.index: scores for scores in self.result(self.submit(sequences, temperature))}

    def submit(self, sequences: Sequence[TrainingSequence], temperature: float | None = None) -> list[Any]:
        """Begin to score responses under the present weights; returns a ticket at once."""
        shares = share_out(self._spec, self.num_ranks, sequences)
        ticket = [self._group.submit(rank, "logprobs", share, temperature) for rank, share in enumerate(shares)]
        self._begun.append(ticket)
        return ticket

    def result(self, ticket: list[Any]) -> list[TokenScores]:
        """Scores of the submitted responses, found by their `index`."""
        ranks: list[list[TokenScores]] = self._group.gather(ticket, "logprobs", self._limit)
        self._begun = [one for one in self._begun if one is not ticket]
        return [scores for rank in ranks for scores in rank]

    def look(self) -> None:
        """Raise what a rank failed with at what nobody waits for yet: the others wait for that rank, and would count as hung."""
        self._begun = [ticket for ticket in self._begun if not self._group.raise_failure("logprobs", ticket, 0.0)]

    def update(
        self, mini_batches: Sequence[Sequence[TrainingSequence]], lrs: Sequence[float], kl_coef: float = 0.0
    ) -> list[Update]:
        """One optimiser step per mini-batch, every rank with the same number of micro-batches.

        `kl_coef` weighs the KL term where that is part of the loss (`algorithm.kl.placement`).
        """
        if self._spec.algorithm is None or self._spec.algorithm.kl.placement != "loss":
            kl_coef = 0.0
        per_rank: list[list[MiniBatch]] = [[] for _ in range(len(self._group))]
        for sequences, lr in zip(mini_batches, lrs, strict=True):
            whole = MiniBatch(
                micro_batches=[],
                global_tokens=sum(len(sequence.response_ids) for sequence in sequences),
                global_responses=len(sequences),
                lr=lr,
                kl_coef=kl_coef,
            )
            count = self._spec.trainer.micro_batch_sequences
            for rank, share in enumerate(share_out(self._spec, self.num_ranks, sequences, count)):
                per_rank[rank].append(replace(whole, micro_batches=share))
        results: list[list[UpdateResult]] = self._group.call_each(
            "update", [(share,) for share in per_rank], timeout_seconds=self._limit
        )
        return [
            Update(
                loss=sum(result.loss for result in ranks),
                gradient_norm=ranks[0].gradient_norm,
                lr=lr,
                scores={scores.index: scores for result in ranks for scores in result.scores},
                kl_loss=sum(result.kl_loss for result in ranks),
            )
            for ranks, lr in zip(zip(*results, strict=True), lrs, strict=True)
        ]

    def publish_weights(self, rollout_group: RolloutGroup) -> int:
        """Give the present weights to every engine under the next version; returns that version.

        The ranks gather a bucket of ZeRO-3 shards at a time, and an engine takes a bucket in one call: nothing is ever sent
        parameter by parameter.
        """
        self.weights_version += 1
        rollout_group.wake_weights()
        adapters = rollout_group.takes_adapters
        if rollout_group.backend in ("nccl", "ipc") and not adapters:
            self._send(rollout_group)
        else:
            rollout_group.load_weights(self.weights_version, partial(self._publish, adapters))
        rollout_group.wake_kv_cache()
        return self.weights_version

    @contextmanager
    def _publish(self, adapters: bool) -> Iterator[Iterator[Any]]:
        """One pass over the present weights, or over the adapters alone: see `rollout_group.Publish`. With the context Ray's
        objects lose their last reference, and files are removed, however it ends."""
        folder = version_folder(self._run_name, self.weights_version)
        streams = [self._group.stream(rank, "publish", str(folder), adapters) for rank in range(len(self._group))]
        passes = [stream.completed() for stream in streams]
        try:
            yield self._buckets(streams[0], passes)
        except WorkerError:
            # An engine cannot read what a failing rank yields: the rank is the cause then, not the engine.
            self._group.raise_failure("publish", passes, CAUSE_GRACE_SECONDS)
            raise
        finally:
            remove_folder(folder)

    def _buckets(self, stream: Any, passes: list[Any]) -> Iterator[Any]:
        """References to what rank 0 yields; `passes` are those to the end of every rank's pass."""
        deadline = time.monotonic() + self._limit
        while True:
            self._on_wait()
            if ray.wait([stream], timeout=1.0, fetch_local=False)[0]:
                try:
                    yield next(stream)
                except StopIteration:
                    break
            else:
                self._group.raise_failure("publish", passes, 0.0)
                if time.monotonic() > deadline:
                    raise self._group.silent(0, "publish", self._limit)
        self._group.gather(passes, "publish", self._limit)

    def _send(self, rollout_group: RolloutGroup) -> None:
        """CUDA: the ranks send through vLLM's own transfer, of which rank 0 speaks to the engines. Not run on a GPU yet."""
        if not rollout_group.connected:
            address, port = self._group.meeting_point(rollout_group.node_ids())
            info = {"call": rollout_group.calls(), "address": address, "port": port}
            self._group.call("connect_engines", info, timeout_seconds=self._limit)
            rollout_group.connected = True
        self._group.call("send_weights", self.weights_version, timeout_seconds=self._limit)

    def probe_scores(self, sequences: Sequence[TokenIds]) -> list[np.ndarray]:
        """Temperature-free log-probs of tokens 1..L-1 of whole sequences: the trainer's side of the weight-sync probe.

        Each sequence is read as a prompt of one token and a response of the rest.
        """
        wanted = [
            TrainingSequence(index=index, prompt_ids=ids[:1], response_ids=ids[1:])
            for index, ids in enumerate(sequences)
        ]
        scores = self.logprobs(wanted, temperature=1.0)
        return [scores[index].logprobs for index in range(len(sequences))]

    def save(self, folder: Path) -> dict[str, dict[str, int | str]]:
        """Every rank's ZeRO-3 and random-number state into `folder`; bytes and sha256 of the files, as their ranks saw them.

        Raises ClusterError where a rank sees no file that it wrote.
        """
        ranks: list[dict[str, dict[str, int | str]]] = self._group.call(
            "save", str(folder), timeout_seconds=self._limit
        )
        return {name: wrote for files in ranks for name, wrote in files.items()}

    def load(self, folder: Path, files: Files) -> None:
        """The state that `save` wrote, each rank's files compared with what it returned."""
        self._group.call("load", str(folder), dict(files), timeout_seconds=self._limit)

    def export(self, folder: Path) -> None:
        """A Hugging Face folder: safetensors, tokenizer, chat template."""
        self._group.call("export", str(folder), timeout_seconds=self._limit)

    def offload(self) -> None:
        """CUDA, colocated: leave the GPU to the engines."""
        self._group.call("offload", timeout_seconds=self._limit)

    def reload(self) -> None:
        """CUDA, colocated: take the GPU back for training."""
        self._group.call("reload", timeout_seconds=self._limit)

    def node_ids(self) -> set[str]:
        """The nodes that the workers run on."""
        return self._group.node_ids()

    def ask(self, question: Callable[..., Any], *arguments: Any, seconds: float = ANSWER_SECONDS) -> dict[int, Any]:
        """See `WorkerGroup.ask`."""
        return self._group.ask(question, *arguments, seconds=seconds)

    def end(self) -> None:
        """Kill the ranks and remove the published weights."""
        self._group.end()
        remove_run(self._run_name)


def share_out(
    spec: PolicySpec, num_ranks: int, sequences: Sequence[TrainingSequence], count: int | None = None
) -> list[list[MicroBatch]]:
    """[rank][micro-batch] under the token budget, or of `count` sequences each in the order given. Ranks that read rows together
    have the same ones, under the budget of all of them."""
    together = spec.trainer.sequence_parallel_size
    if count is not None:
        plan = plan_counted(len(sequences), num_ranks // together, count)
    else:
        plan = plan_micro_batches(
            [sequence.num_tokens for sequence in sequences],
            num_ranks // together,
            spec.trainer.micro_batch_tokens * together,
            packing=spec.model.packing,
        )
    shares = [[[sequences[position] for position in batch] for batch in share] for share in plan]
    return [share for share in shares for _ in range(together)]
