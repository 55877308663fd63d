"""The trainer's end of vLLM's own CUDA backends, `nccl` and `ipc`. Not run on a GPU yet."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from .backends import SyncSettings, transfer_backend
from .source import ZeroThreeSource


class EngineCall(Protocol):
    """Calls a method of every rollout worker at once and waits for all of them.

    `arguments[i]` go to engine i. Raises the first failure. Must work in a thread of its own: under `nccl` the engines
    receive while the trainer sends.
    """

    def __call__(self, method: str, arguments: list[tuple[Any, ...]]) -> None: ...


class EngineClient:
    """vLLM's weight-sync client (four methods, by structure) for engines that are independent of each other.

    vLLM hands one and the same `rank_offset` to all, which is right for the data-parallel copies of one engine only:
    independent engines would claim the same NCCL ranks. Engine i gets 1 + i * tensor_parallel_size; the sender is 0.
    """

    def __init__(self, call: EngineCall, num_engines: int, tensor_parallel_size: int) -> None:
        self._call = call
        self._num_engines = num_engines
        self._tensor_parallel_size = tensor_parallel_size
        self.version = 0
        """Version that the next `finish_weight_update` states; vLLM's sender does not pass one on."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        infos = [dict(init_info) for _ in range(self._num_engines)]
        if "rank_offset" in init_info:
            for position, info in enumerate(infos):
                info["rank_offset"] = init_info["rank_offset"] + position * self._tensor_parallel_size
        self._call("init_weight_transfer", [(info,) for info in infos])

    def start_weight_update(self) -> None:
        self._call("start_weight_update", [()] * self._num_engines)

    def update_weights(self, update_info: Any) -> None:
        self._call("update_weights", [(update_info,)] * self._num_engines)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call("finish_weight_update", [(self.version,)] * self._num_engines)


class CudaSender:
    """Sends the policy's weights to the engines by `nccl` or `ipc`. Not run on a GPU yet.

    To be made, connected and called on EVERY trainer rank together; rank 0 alone speaks to the engines. After a failed
    `send` the engines may wait in NCCL for ever and hold half-written weights: they must be killed and started again.

    Args:
        model: the ZeRO-3 sharded policy (`engine.module`).
        settings: `rollout` names the backend, the engines' parallelism and the bucket's size. Under `ipc` the trainer's
            ranks must cover every GPU that an engine uses.
        rank: this trainer rank.
    """

    def __init__(self, model: nn.Module, settings: SyncSettings, rank: int) -> None:
        self._settings = settings
        self._rank = rank
        self._backend = transfer_backend(settings)
        bucket_bytes = settings.rollout.bucket_bytes
        self._source = ZeroThreeSource(model, bucket_bytes, rank, every_rank=self._backend == "ipc")
        self._client: EngineClient | None = None
        self._engine: Any = None

    def connect(self, info: dict[str, Any]) -> None:
        """Meet the engines; once more after an engine was replaced.

        Args:
            info: `call` (an EngineCall that reaches the rollout workers), and for `nccl` `address` and `port`, where
                rank 0 opens the rendezvous on its own node.
        """
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        if self._engine is not None:
            self._engine.shutdown()
        num_engines = self._settings.cluster.rollout.num_workers
        tensor_parallel_size = self._settings.rollout.tensor_parallel_size
        self._client = EngineClient(info["call"], num_engines, tensor_parallel_size)
        self._engine = WeightTransferTrainerFactory.trainer_init(
            self._trainer_info(info, world_size=1 + num_engines * tensor_parallel_size),
            client=self._client,
            source=self._source,
        )

    def send(self, version: int) -> None:
        """One update session on every engine; the engines then state `version` on their rollouts."""
        assert self._client is not None, "connect first"
        self._client.version = version
        self._engine.send_weights()

    def _trainer_info(self, info: dict[str, Any], world_size: int) -> Any:
        # vLLM's `ipc` producer refuses a tensor above its buffer, and that of `nccl` warns of one: the embedding of a 7B
        # model is larger than any bucket one would choose.
        buffer_bytes = max(self._settings.rollout.bucket_bytes, self._source.largest_tensor_bytes)
        if self._backend == "nccl":
            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

            return NCCLTrainerInitInfo(
                master_address=info["address"],
                master_port=info["port"],
                world_size=world_size,
                packed_buffer_size_bytes=buffer_bytes,
                rank=self._rank,
            )
        assert self._backend == "ipc", self._backend
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=buffer_bytes, rank=self._rank)
