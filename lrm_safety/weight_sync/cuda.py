"""The trainer's end of vLLM's own CUDA backends, `nccl` and `ipc`. Not run on a GPU yet."""

from __future__ import annotations

from typing import Any, Protocol

from .source import ZeroThreeSource


class EngineCall(Protocol):
    """Calls a method of every rollout worker at once and waits for all of them.

    `arguments[i]` go to engine i. Raises the first failure. May be called from another thread than the one that made it:
    under `nccl` the engines receive while the trainer sends.
    """

    def __call__(self, method: str, arguments: list[tuple[Any, ...]]) -> None: ...


class EngineClient:
    """vLLM's weight-sync client (four methods, by structure) for engines that are independent of each other.

    vLLM hands one and the same `rank_offset` to all, which is right for the data-parallel copies of one engine only:
    independent engines would claim the same NCCL ranks. Engine i gets 1 + i * tensor_parallel_size; the sender is rank 0.
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
    """Sends the source's weights to the engines by `nccl` or `ipc`. Not run on a GPU yet.

    To be made on EVERY trainer rank, which then call `send` together; rank 0 alone speaks to the engines. After a failed
    `send` the engines may wait in NCCL for ever and hold half-written weights: they must be killed and started again.

    Args:
        backend: `nccl`, or `ipc` when trainer ranks and engines share GPUs (the trainer's ranks must then cover every
            GPU that an engine uses, and the source be made with `every_rank=True`).
        source: the policy's weights; its `metadata()` sizes the engines' receive buffers.
        rank: this trainer rank.
        call: reaches the rollout workers; used on rank 0 only.
        num_engines, tensor_parallel_size: independent engines, and GPUs of each.
        address, port: where rank 0 opens the NCCL rendezvous (unused by `ipc`).
        bucket_bytes: size of the packed transfer buffer; two of them exist at a time.
    """

    def __init__(
        self,
        backend: str,
        source: ZeroThreeSource,
        rank: int,
        call: EngineCall,
        *,
        num_engines: int,
        tensor_parallel_size: int,
        address: str,
        port: int,
        bucket_bytes: int,
    ) -> None:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        self._client = EngineClient(call, num_engines, tensor_parallel_size)
        world_size = 1 + num_engines * tensor_parallel_size
        info = _trainer_info(backend, rank, address, port, world_size, bucket_bytes)
        self._engine = WeightTransferTrainerFactory.trainer_init(info, client=self._client, source=source)  # type: ignore[arg-type]

    def send(self, version: int) -> None:
        """One update session on every engine; the engines then state `version` on their rollouts."""
        self._client.version = version
        self._engine.send_weights()

    def close(self) -> None:
        """Leave the communicator."""
        self._engine.shutdown()


def _trainer_info(backend: str, rank: int, address: str, port: int, world_size: int, bucket_bytes: int) -> Any:
    if backend == "nccl":
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        return NCCLTrainerInitInfo(
            master_address=address,
            master_port=port,
            world_size=world_size,
            packed_buffer_size_bytes=bucket_bytes,
            rank=rank,
        )
    assert backend == "ipc", backend
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

    return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=bucket_bytes, rank=rank)
