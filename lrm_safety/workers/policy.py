"""One ZeRO-3 rank of the policy group: log-probs, updates, weight publishing, checkpoints, export."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..checkpoints import GENERATORS
from ..errors import ClusterError, DataError
from ..files import changed_file, describe_files, storage_problem
from ..modeling import distributed
from ..modeling.configuration import load_tokenizer
from ..modeling.distributed import load_generators, save_generators
from ..modeling.host_memory import HostBuffers
from ..modeling.lora import without_dropout
from ..modeling.loss import policy_loss, supervised_loss
from ..modeling.packing import num_tokens, pack_sequences, score_micro_batches, split_scores
from ..progress import PROGRESS, tells_phases
from ..quick_imports import release
from ..rollouts import MicroBatch, MiniBatch, TokenScores, UpdateResult
from ..weight_sync.backends import is_colocated, transfer_backend
from .specs import PolicySpec

if TYPE_CHECKING:
    from ..weight_sync.object_store import PackedBucket

STATE_TAG = "zero3"


@tells_phases
class PolicyWorker:
    """Every method except `memory` is collective: all ranks call it, with equally many micro-batches."""

    def __init__(self, spec: PolicySpec, rank: int, world_size: int) -> None:
        self.spec = spec
        self.rank = rank
        self.world_size = world_size
        self._takes_turns = is_colocated(spec.cluster)
        self._host, self._offloaded = HostBuffers(), False
        self._sender: Any = None

    def start(self, address: str, port: int) -> None:
        """Join the other ranks and load the policy."""
        spec = self.spec
        self.device = distributed.prepare_process(spec.cluster, spec.seed + self.rank)
        distributed.join(spec.cluster, address, port, self.rank, self.world_size)
        # Imported here because DeepSpeed chooses its accelerator on import, from what `join` has set.
        from ..modeling.zero import policy_engine

        release()
        self.tokenizer = load_tokenizer(spec.model)
        self.engine = policy_engine(
            spec.model,
            spec.trainer,
            spec.cluster.device,
            temperature=spec.temperature,
            seed=spec.seed,
            sequence=distributed.sequence_group(spec.cluster, spec.trainer.sequence_parallel_size),
        )
        self.model = self.engine.module.model
        # Under a name of its own: DeepSpeed's optimiser, whose partitions hold the float32 master weights.
        self.optimizer = self.engine.optimizer

    def logprobs(self, micro_batches: list[MicroBatch], temperature: float | None = None) -> list[TokenScores]:
        """Score sequences under the current weights, without gradients.

        `temperature` replaces the usual one for this call: 1 compares with an engine's prompt log-probs.
        Ranks that read rows together are given the same sequences, and the first of them answers.
        """
        with without_dropout(self.model):
            scores = score_micro_batches(
                lambda batch: self.engine(batch, temperature),
                micro_batches,
                packing=self.spec.model.packing,
                device=self.device,
            )
        self._leave_gpu()
        return scores if self._answers else []

    def update(self, mini_batches: list[MiniBatch]) -> list[UpdateResult]:
        """One optimiser step per mini-batch, in order: on the policy loss, or, without an algorithm, on the responses' likelihood.

        A loss or gradient that is not finite on any rank skips the step: that result's `gradient_norm` is nan on
        every rank, and weights and optimiser stay as they were. The next mini-batch goes on from them.
        Ranks that read rows together are given the same micro-batches; the loss and the scores are the first one's answer.
        """
        return [self._update(mini_batch) for mini_batch in mini_batches]

    def _update(self, mini_batch: MiniBatch) -> UpdateResult:
        # A micro-batch that several ranks read together counts once.
        num_real = sum(map(bool, mini_batch.micro_batches)) / self.spec.trainer.sequence_parallel_size
        num_micro_batches = distributed.all_reduce_sum(num_real, self.device) / self.world_size
        scores: list[TokenScores] = []
        total, kl_total = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for sequences in PROGRESS.pieces(mini_batch.micro_batches, "tokens", num_tokens):
            batch = pack_sequences(sequences, packing=self.spec.model.packing, device=self.device)
            logprobs, entropy = self.engine(batch)
            if self.spec.algorithm is None:
                loss = supervised_loss(logprobs, global_tokens=mini_batch.global_tokens, world_size=self.world_size)
            else:
                loss, kl_term = policy_loss(
                    logprobs,
                    sequences,
                    mini_batch,
                    self.spec.algorithm,
                    num_micro_batches=num_micro_batches,
                    world_size=self.world_size,
                )
                kl_total += kl_term / self.world_size
            self.engine.backward(loss, scale_wrt_gas=False)
            total += loss.detach() / self.world_size
            scores += split_scores(sequences, logprobs, entropy)
        loss_value = float(total)
        norm = self._step(mini_batch.lr, loss_value)
        return UpdateResult(loss_value, norm, scores, float(kl_total)) if self._answers else UpdateResult(0.0, norm)

    @property
    def _answers(self) -> bool:
        """Whether this rank is the first of those that read rows together."""
        return self.rank % self.spec.trainer.sequence_parallel_size == 0

    def _step(self, lr: float, loss: float) -> float:
        """Step unless a rank's loss is not finite; returns the global gradient norm before clipping, or nan.

        ZeRO-3 itself skips a step whose gradient norm is not finite and reports the norm as infinite.
        """
        if distributed.all_reduce_sum(float(not math.isfinite(loss)), self.device) > 0:
            # Forgets the gradients of this mini-batch: the next backward pass starts from none.
            self.optimizer.zero_grad()
            return math.nan
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with PROGRESS.piece("steps"):
            self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        return norm if math.isfinite(norm) else math.nan

    def publish(self, folder: str, adapters: bool = False) -> Iterator[str | PackedBucket]:
        """`shm` and `object_store`, and `adapters` alone: gather the weights a bucket at a time, and on rank 0 yield each as
        engines take it: the path of a file in `folder`, or the bucket itself, which Ray puts into its store; the other ranks
        yield nothing."""
        from ..weight_sync import object_store, shm
        from ..weight_sync.source import ZeroThreeSource

        assert self.spec.engines is not None
        source = ZeroThreeSource(self.model, self.spec.engines.rollout.bucket_bytes, self.rank, adapters=adapters)
        if not adapters and transfer_backend(self.spec.engines) == "shm":
            yield from shm.write_buckets(source, folder, self.rank)
        else:
            for bucket in source.buckets(lent=True):  # Ray has made its copy when a yield returns
                if self.rank == 0:
                    yield object_store.pack(bucket)
        self._leave_gpu()

    def connect_engines(self, info: dict[str, Any]) -> None:
        """CUDA: open the channel over which `send_weights` reaches the rollout engines, or open it anew."""
        from ..weight_sync.cuda import CudaSender

        if self._sender is None:
            assert self.spec.engines is not None
            self._sender = CudaSender(self.model, self.spec.engines, self.rank)
        self._sender.connect(info)

    def send_weights(self, version: int) -> None:
        """CUDA: send the weights through the channel of `connect_engines`."""
        self._sender.send(version)
        self._leave_gpu()

    def _leave_gpu(self) -> None:
        """Colocated: give back what a sync or a pass without gradients leaves behind, for engines that wake beside it.

        After such a pass ZeRO-3 keeps gathered what the backward pass of an update would read again.
        """
        if self._takes_turns:
            self.engine.empty_partition_cache()

    def save(self, folder: str) -> dict[str, dict[str, int | str]]:
        """Write this rank's ZeRO-3 state (weights, optimiser) and random number generators into `folder`; returns bytes and
        sha256 of its files, by name.

        Frozen weights, which LoRA has, are left out: they are those of `model.path`.

        Raises ClusterError that names the disk where it has no room, and where a file is gone that was written.
        """
        root = Path(folder)
        try:
            self.engine.save_checkpoint(folder, tag=STATE_TAG, save_latest=False, exclude_frozen_parameters=True)
            save_generators(_generator_file(folder, self.rank))
        except Exception as error:  # torch says RuntimeError, DeepSpeed's writers say others
            if problem := storage_problem(root, self._state_bytes()):
                raise ClusterError(
                    f"the checkpoint cannot be written: {socket.gethostname()}, {problem}; make room, or lower "
                    "checkpoint.keep_last; the same command goes on from the last whole checkpoint"
                ) from error
            raise
        torch.distributed.barrier()
        return described(root, self.rank)

    def _state_bytes(self) -> int:
        """About what this rank writes: float32 masters and AdamW's two moments, and the weights."""
        masters = sum(master.numel() for master in self.optimizer.fp32_partitioned_groups_flat)
        return masters * (12 + (4 if self.spec.model.dtype == "float32" else 2))

    def load(self, folder: str, files: dict[str, dict[str, int | str]] | None = None) -> None:
        """Continue where `save` stood; `files` is what the checkpoint's manifest says of all ranks' files, of which this rank
        first reads those that it needs (None: they are taken as they are).

        Exactly with as many ranks as wrote it. Of another number each takes over its part of weights and optimiser, to the bit;
        generators of a rank that was not there before stay as they are.

        Raises:
            DataError: the folder is not such a checkpoint, or is incomplete or changed.
        """
        from ..modeling.resharding import load_from_other_ranks, sources, trained_sizes
        from ..modeling.zero import weights_only

        root = Path(folder)
        written_by = len(list(root.glob(f"{GENERATORS}*.pt")))
        if written_by == 0:
            raise DataError(f"{folder} holds no trainer state")
        names = [path.name for path in root.rglob("*")]
        # Of all ranks, whichever this one reads: all refuse together, and none waits for another that has refused.
        if lacking := sorted({kind for rank in range(written_by) for kind in _lacking(names, rank)}):
            raise DataError(
                f"{folder} has no complete trainer state (no {', '.join(lacking)} of every rank): resume from an earlier checkpoint"
            )
        needed = sources(trained_sizes(self.engine), written_by, self.rank, self.world_size)
        if changed := changed_file(
            root, {name: wrote for name, wrote in (files or {}).items() if _rank_of(name) in needed}
        ):
            raise DataError(f"checkpoint {folder} is torn, as seen from {socket.gethostname()}: {changed}")
        try:
            with weights_only():
                if written_by == self.world_size:
                    loaded, _ = self.engine.load_checkpoint(
                        folder, tag=STATE_TAG, load_module_strict=not self.spec.trainer.lora.rank
                    )
                else:
                    load_from_other_ranks(self.engine, root / STATE_TAG, written_by)
                    loaded = folder
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise DataError(f"the trainer state in {folder} cannot be read: {error}") from error
        if loaded is None:
            raise DataError(f"{folder} has no complete trainer state: resume from an earlier checkpoint")
        if self.rank < written_by:
            load_generators(_generator_file(folder, self.rank))

    def export(self, folder: str) -> None:
        """Rank 0 writes the policy as a Hugging Face folder."""
        from ..modeling.export import export_model

        export_model(self.model, self.tokenizer, self.spec.model.path, folder, self.rank)
        torch.distributed.barrier()

    def offload(self) -> None:
        """CUDA: move master weights and AdamW's moments to host memory, about 12 of ZeRO-3's 18 bytes a parameter.

        DeepSpeed's own offloading of states refuses torch's AdamW. Nothing to do on the CPU, nor when they live there.
        """
        if self.device.type == "cuda" and not self.spec.trainer.offload_optimizer and not self._offloaded:
            self._host.move_out(self._optimizer_tensors())
            distributed.release_cached_memory()
            self._offloaded = True

    def reload(self) -> None:
        """CUDA: undo `offload`."""
        if self._offloaded:
            self._host.move_back(self._optimizer_tensors(), self.device)
            self._offloaded = False

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """Masters and moments, by names that outlive a loaded checkpoint."""
        masters = self.optimizer.fp32_partitioned_groups_flat
        tensors = {f"master {number}": master for number, master in enumerate(masters)}
        for number, state in enumerate(self.optimizer.optimizer.state.values()):
            tensors |= {f"{name} {number}": value for name, value in state.items() if isinstance(value, Tensor)}
        return tensors

    def memory(self) -> dict[str, float]:
        """`rss_gib`, `rss_peak_gib` and on CUDA `cuda_peak_gib` of this process."""
        return distributed.memory_usage()


def described(root: Path, rank: int) -> dict[str, dict[str, int | str]]:
    """Bytes and sha256 of a rank's files of a checkpoint, by name; those without a rank in their names are rank 0's.

    Raises ClusterError where one that it has just written is gone: a checkpoint without it would look whole.
    """
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and _rank_of(path.name) == rank]
    lacking = _lacking([path.name for path in files], rank)
    try:
        found = describe_files(root, files)
    except FileNotFoundError as error:
        found, lacking = {}, [Path(error.filename or root).name]
    if lacking:
        raise ClusterError(
            f"checkpoint {root}: what trainer rank {rank} wrote there is gone ({', '.join(lacking)}): was run.directory removed? "
            "The same command goes on from the last whole checkpoint"
        )
    return found


def _lacking(names: list[str], rank: int) -> list[str]:
    """Of the files that every rank writes of its state, those that are not among these."""
    own = [name for name in names if _rank_of(name) == rank]
    return [
        kind for kind in (GENERATORS, "model_states.pt", "optim_states.pt") if not any(kind in name for name in own)
    ]


def _rank_of(name: str) -> int:
    """Whose file of a checkpoint it is; 0 where the name has no rank."""
    found = re.search(r"rank_?(\d+)", Path(name).name)
    return int(found[1]) if found else 0


def _generator_file(folder: str, rank: int) -> Path:
    return Path(folder) / f"{GENERATORS}{rank:05d}.pt"
