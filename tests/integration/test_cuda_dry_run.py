"""What only a GPU reaches, without a GPU: our calls against the real interfaces, and vLLM's own senders against its own
receivers, with threads for GPUs, queues for NCCL and a dictionary for memory handles.

It shows that the two ends agree on names, shapes, order, sizes and ranks. It shows nothing about kernels, streams or speed.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from real_interface import Interface
from safetensors.torch import load_file
from tiny_models import tiny_granite, tiny_qwen
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from lrm_safety.modeling.shapes import KNOWN
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.weight_sync.cuda import CudaSender
from lrm_safety.workers.engine_start import engine_arguments
from lrm_safety.workers.environment import engine_environment
from lrm_safety.workers.rollout import RolloutWorker
from lrm_safety.workers.specs import EngineSpec

CONF = Path(__file__).parents[2] / "conf"
NOT_ON_OUR_GPUS = {"miniature", "smollm2_135m", "endpoint"}
PRESETS = sorted({path.stem for path in CONF.glob("model/*.yaml")} - NOT_ON_OUR_GPUS)
LAYOUTS = {
    "split": (),
    "colocated": ("cluster=node_8gpu_colocated", "rollout=vllm_colocated"),
    "nodes": ("cluster=multinode_4x8gpu", "rollout.tensor_parallel_size=2"),
}
WAIT_SECONDS = 30.0


@cache
def compose(layout: str = "split", model: str = "deepseek_r1_distill_qwen_7b") -> Settings:
    return compose_settings(["experiment=star1", f"model={model}", *LAYOUTS[layout]])[0]


def with_model(layout: str, model: str) -> Settings:
    """Another model on a layout: composed apart, since a composition takes longer than what is tested."""
    return replace(deepcopy(compose(layout)), model=compose(model=model).model)


# ---- our calls against the real signatures ---------------------------------------------------------------------------


def test_what_a_rollout_worker_asks_of_its_engine_on_a_gpu() -> None:
    from vllm import LLM
    from vllm.v1.engine.llm_engine import LLMEngine

    engine = Interface(LLMEngine, has_unfinished_requests=False, step=[])
    llm = Interface(LLM, llm_engine=engine, reset_prefix_cache=True, get_weight_version="3")
    worker = RolloutWorker(EngineSpec.of(compose("colocated")), 0)
    worker._llm = llm
    worker.sleep()
    worker.wake(["weights"])
    worker.init_weight_transfer({"packed": True})
    worker.start_weight_update()
    worker.update_weights({"names": []})
    worker.finish_weight_update(3)
    worker.wake(["kv_cache"])
    worker._clear(["7"])
    assert worker.weights_version() == 3
    assert llm.calls == [
        "sleep",
        "wake_up",
        "init_weight_transfer_engine",
        "start_weight_update",
        "update_weights",
        "finish_weight_update",
        "reset_prefix_cache",
        "wake_up",
        "get_weight_version",
    ]
    assert engine.calls == ["has_unfinished_requests", "abort_request", "step"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vllm_knows_every_engine_argument(layout: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    signature = inspect.signature(EngineArgs)  # not EngineArgs itself, which looks for the model
    for model in PRESETS:
        arguments = signature.bind(**engine_arguments(EngineSpec.of(with_model(layout, model)))).arguments
        assert arguments["enable_sleep_mode"] == (layout == "colocated")
        assert arguments["tensor_parallel_size"] == (2 if layout == "nodes" else 1)
        assert arguments["weight_transfer_config"].backend == ("ipc" if layout == "colocated" else "nccl")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vllm_knows_every_variable_of_its_processes(layout: str) -> None:
    import vllm.envs

    given = {name for name in engine_environment(EngineSpec.of(compose(layout))) if name.startswith("VLLM_")}
    assert given <= set(vllm.envs.environment_variables)


@pytest.mark.parametrize(
    "module",
    [
        "vllm.v1.worker.gpu_worker",
        "vllm.v1.worker.gpu.model_runner",
        "vllm.v1.worker.gpu.sample.sampler",
        "vllm.v1.executor.uniproc_executor",
        "vllm.v1.executor.multiproc_executor",
        "vllm.v1.core.sched.async_scheduler",
        "vllm.device_allocator.cumem",
        "vllm.device_allocator.sleep_mode_backend",
        "vllm.distributed.device_communicators.pynccl",
        "vllm.distributed.weight_transfer.nccl_engine",
        "vllm.distributed.weight_transfer.ipc_engine",
        "vllm.model_executor.model_loader.reload",
    ],
)
def test_modules_that_only_cuda_reaches_can_be_imported(module: str) -> None:
    importlib.import_module(module)


def test_torch_knows_what_ranks_on_gpus_ask_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed finds a process group and makes none: its own would be bound to a device."""
    import deepspeed

    from lrm_safety.modeling import distributed

    joined: list[inspect.BoundArguments] = []
    signature = inspect.signature(torch.distributed.init_process_group)
    of_deepspeed = inspect.signature(deepspeed.init_distributed)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *args, **named: joined.append(signature.bind(*args, **named))
    )
    monkeypatch.setattr(deepspeed, "init_distributed", lambda **named: joined.append(of_deepspeed.bind(**named)))
    for name in ("DS_ACCELERATOR", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE"):
        monkeypatch.setenv(name, "")  # put back afterwards
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    distributed.join(compose("split").cluster, "127.0.0.1", port, rank=0, world_size=1)
    first, second = joined
    assert first.arguments["backend"] == second.arguments["dist_backend"] == "nccl"
    assert "device_id" not in first.arguments
    inspect.signature(torch.cuda.set_device).bind(0)
    inspect.signature(torch.cuda.empty_cache).bind()


def test_deepspeed_reads_our_configuration_for_a_gpu() -> None:
    """Gradients are reduced in float32, from a bucket of the size that the planner counts."""
    from deepspeed.runtime.config import get_communication_data_type
    from deepspeed.runtime.zero.config import get_zero_config

    from lrm_safety.lab.planning.memory import LIVE_PARAMETERS, REDUCE_BUCKET
    from lrm_safety.modeling.zero import deepspeed_config

    settings = compose()
    offload = replace(settings.trainer, offload_optimizer=True, offload_parameters=True)
    for trainer in (settings.trainer, offload):
        config = deepspeed_config(trainer, dtype="bfloat16", device="cuda")
        zero = get_zero_config(config)
        assert get_communication_data_type(config) == torch.float32
        assert config["data_types"] == {"grad_accum_dtype": "fp32"} and zero.overlap_comm
        assert zero.reduce_bucket_size == REDUCE_BUCKET and zero.max_live_parameters == LIVE_PARAMETERS
    assert zero.offload_optimizer.pin_memory and zero.offload_param.pin_memory


def test_a_node_has_an_address_for_the_others() -> None:
    from lrm_safety.workers.group import free_address

    host, port = free_address(None, loopback=False)
    assert host and port > 0


# ---- machines made of threads ----------------------------------------------------------------------------------------


class Here(threading.local):
    gpu = 0
    """Number of the GPU that this thread stands for."""


class Wire:
    """One NCCL communicator: what its rank 0 broadcasts, every other rank receives, in order."""

    def __init__(self) -> None:
        self._queues: dict[int, queue.Queue[torch.Tensor]] = {}
        self._lock = threading.Lock()
        self.sizes: list[int] = []

    def join(self, host: str, port: int, rank: int, world_size: int, device: Any) -> SimpleNamespace:
        with self._lock:
            assert rank not in self._queues, f"two members claim rank {rank}"
            assert 0 <= rank < world_size
            self._queues[rank] = queue.Queue()

        def broadcast(tensor: torch.Tensor, src: int, stream: Any = None) -> None:
            if rank == src:
                assert len(self._queues) == world_size, "not every rank has joined"
                self.sizes.append(tensor.numel())
                for other, waiting in self._queues.items():
                    if other != src:
                        waiting.put(tensor.clone())
                return
            received = self._queues[rank].get(timeout=WAIT_SECONDS)
            assert received.numel() == tensor.numel(), "sender and receiver cut the stream differently"
            tensor.copy_(received)

        return SimpleNamespace(broadcast=broadcast, destroy=lambda: None)


class Node:
    """Torch and vLLM of this process as a node of several GPUs, each a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_trainers: int) -> None:
        from torch.multiprocessing import reductions
        from vllm.distributed.weight_transfer import ipc_engine, nccl_common, packed_tensor

        self.here = Here()
        self.wire = Wire()
        self.handles: dict[int, tuple[int, torch.Tensor]] = {}
        self._barrier = threading.Barrier(num_trainers, timeout=WAIT_SECONDS)
        self._slots: list[Any] = [None] * num_trainers
        empty = torch.empty

        def on_cpu(*sizes: Any, **named: Any) -> torch.Tensor:
            if str(named.get("device", "")).startswith("cuda"):
                named["device"] = "cpu"
            return empty(*sizes, **named)

        stream = SimpleNamespace(synchronize=lambda: None)
        for owner, name, stand_in in (
            (torch, "empty", on_cpu),
            (torch.accelerator, "current_device_index", lambda: 0),
            (torch.accelerator, "synchronize", lambda *_: None),
            (torch.cuda, "synchronize", lambda *_: None),
            (torch.cuda, "stream", lambda _: contextlib.nullcontext()),
            (torch.cuda, "current_stream", lambda *_: stream),
            (torch.cuda, "ipc_collect", lambda: None),
            (torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=f"GPU-{self.here.gpu}")),
            (packed_tensor, "_get_streams", lambda device, count: (stream,) * count),
            (packed_tensor, "reduce_tensor", self._export),
            (ipc_engine, "reduce_tensor", self._export),
            (reductions, "rebuild_cuda_tensor", self._import),
            (nccl_common, "stateless_init_process_group", self.wire.join),
            (torch.distributed, "is_initialized", lambda: num_trainers > 1),
            (torch.distributed, "get_world_size", lambda *_: num_trainers),
            (torch.distributed, "all_gather_object", self._all_gather),
            (torch.distributed, "barrier", lambda *_: self._barrier.wait()),
        ):
            monkeypatch.setattr(owner, name, stand_in)

    def _export(self, tensor: torch.Tensor) -> tuple[None, tuple[Any, ...]]:
        key = len(self.handles)
        self.handles[key] = (self.here.gpu, tensor)
        return None, (key, 0, 0, 0, 0, 0, "device")  # the receiver lays its own device over place 6

    def _import(self, key: int, *rest: Any) -> torch.Tensor:
        gpu, tensor = self.handles[key]
        assert gpu == self.here.gpu, f"the engine of GPU {self.here.gpu} reads the memory of GPU {gpu}"
        return tensor

    def _all_gather(self, gathered: list[Any], mine: Any) -> None:
        self._slots[self.here.gpu] = mine
        self._barrier.wait()
        gathered[:] = self._slots
        self._barrier.wait()

    def on_gpus(self, count: int, work: Callable[[int], None]) -> None:
        """`work(i)` on GPU i, at the same time; raises the first failure."""
        failures: list[BaseException] = []

        def run(gpu: int) -> None:
            self.here.gpu = gpu
            try:
                work(gpu)
            except BaseException as error:
                failures.append(error)
                self._barrier.abort()

        threads = [threading.Thread(target=run, args=(gpu,), daemon=True) for gpu in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * WAIT_SECONDS)
        if failures:
            raise failures[0]
        assert not any(thread.is_alive() for thread in threads), "a GPU waits for ever"


@dataclass
class Engine:
    """An independent engine: on each of its GPUs vLLM's real receiver beside a model that remembers what it is given."""

    backend: str
    tensor_parallel_size: int
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)
    version: int = 0

    def __post_init__(self) -> None:
        from vllm.config import WeightTransferConfig
        from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
        from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

        receiver = IPCWeightTransferEngine if self.backend == "ipc" else NCCLWeightTransferEngine
        size = self.tensor_parallel_size
        self.weights = [{} for _ in range(size)]
        self._receivers = [
            receiver(
                WeightTransferConfig(backend=self.backend),
                SimpleNamespace(
                    model_config=None,
                    parallel_config=SimpleNamespace(data_parallel_index=0, world_size=size, rank=rank),
                ),
                torch.device("cuda", 0),
                SimpleNamespace(load_weights=self._taker(rank)),
            )
            for rank in range(size)
        ]

    def _taker(self, rank: int) -> Callable[[Any], None]:
        def take(pairs: Any) -> None:
            for name, tensor in pairs:
                assert name not in self.weights[rank], f"{name} came twice"
                self.weights[rank][name] = tensor.clone()

        return take

    def take(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A call of the trainer, as RolloutWorker and vLLM's worker hand it on."""
        if method == "start_weight_update":
            self.weights = [{} for _ in self.weights]
        elif method == "finish_weight_update":
            (self.version,) = arguments
        else:
            waiting = [
                threading.Thread(target=self._hand, args=(one, method, *arguments)) for one in self._receivers[1:]
            ]
            for thread in waiting:
                thread.start()
            self._hand(self._receivers[0], method, *arguments)
            for thread in waiting:
                thread.join(WAIT_SECONDS)

    @staticmethod
    def _hand(receiver: Any, method: str, info: dict[str, Any]) -> None:
        if method == "init_weight_transfer":
            receiver.init_transfer_engine(receiver.parse_init_info(info))
        else:
            assert method == "update_weights"
            receiver.update_weights(info)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "tied": tiny_qwen,
    "untied": lambda: tiny_qwen(tied=False),
    "granite": tiny_granite,
}
BUCKETS = {"smaller than a tensor": 600, "several tensors": 20_000, "everything": 2**20}


@pytest.fixture(scope="module", params=list(MODELS))
def model_and_checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """A bfloat16 model, and what its checkpoint holds: the names and tensors that vLLM's loaders expect."""
    torch.manual_seed(0)
    model = MODELS[request.param]().to(torch.bfloat16)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, load_file(folder / "model.safetensors")


def connected(node: Node, settings: Settings, model: PreTrainedModel, trainers: int, send: int) -> list[Engine]:
    """Every trainer rank connects and sends `send` times to the engines of the settings, which are returned."""
    from lrm_safety.weight_sync.backends import transfer_backend

    backend, size = transfer_backend(settings), settings.rollout.tensor_parallel_size
    engines = [Engine(backend, size) for _ in range(settings.cluster.rollout.num_workers)]

    def call(method: str, arguments: list[tuple[Any, ...]]) -> None:
        node.on_gpus(len(engines), lambda i: engines[i].take(method, arguments[i]))

    # Each rank has its own copy, as it has its own GPU.
    models = [deepcopy(model) for _ in range(trainers)]

    def rank(number: int) -> None:
        sender = CudaSender(models[number], settings, number)
        sender.connect({"call": call, "address": "127.0.0.1", "port": 1})
        for version in range(1, send + 1):
            sender.send(version)

    node.on_gpus(trainers, rank)
    return engines


@pytest.mark.parametrize("bucket", list(BUCKETS))
@pytest.mark.parametrize("layout", ["nccl", "nccl, tensor parallel", "ipc"])
def test_engines_hold_the_trainers_checkpoint(
    model_and_checkpoint: tuple[PreTrainedModel, dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    bucket: str,
) -> None:
    """Two trainer ranks, two engines, bfloat16: bit for bit, twice in a row, whatever the bucket."""
    model, checkpoint = model_and_checkpoint
    settings = deepcopy(compose("colocated" if layout == "ipc" else "split"))
    settings.cluster.policy.num_workers = settings.cluster.rollout.num_workers = 2
    settings.rollout.tensor_parallel_size = 2 if "parallel" in layout else 1
    settings.rollout.bucket_bytes = BUCKETS[bucket]
    node = Node(monkeypatch, num_trainers=2)
    engines = connected(node, settings, model, trainers=2, send=2)
    for engine in engines:
        assert engine.version == 2
        for held in engine.weights:
            assert held.keys() == checkpoint.keys()
            for name, tensor in checkpoint.items():
                assert held[name].dtype == tensor.dtype and torch.equal(held[name], tensor), name
    if layout != "ipc":
        assert sorted(node.wire._queues) == list(range(1 + 2 * settings.rollout.tensor_parallel_size))


def test_a_rank_that_is_claimed_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM tells every engine the same offset; without EngineClient's correction two engines meet on rank 1."""
    from lrm_safety.weight_sync import cuda

    class Uncorrected(cuda.EngineClient):
        def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
            self._call("init_weight_transfer", [(init_info,)] * self._num_engines)

    settings = deepcopy(compose("split"))
    node = Node(monkeypatch, num_trainers=1)
    monkeypatch.setattr(cuda, "EngineClient", Uncorrected)
    with pytest.raises(AssertionError, match="two members claim rank 1"):
        connected(node, settings, tiny_qwen(), trainers=1, send=1)


def test_engine_client_is_what_vllm_expects() -> None:
    from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient

    from lrm_safety.weight_sync.cuda import EngineClient

    assert isinstance(EngineClient(lambda method, arguments: None, 1, 1), VLLMWeightSyncClient)


# ---- the shipped models' real sizes ----------------------------------------------------------------------------------


@pytest.fixture
def meta_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """A GPU whose memory has sizes and no contents; yields what is exported to engines."""
    from vllm.distributed.weight_transfer import packed_tensor

    Node(monkeypatch, num_trainers=1)
    exported: list[torch.Tensor] = []
    empty = torch.empty

    def export(tensor: torch.Tensor) -> tuple[None, tuple[Any, ...]]:
        exported.append(tensor)
        return None, (0,) * 7

    monkeypatch.setattr(torch, "empty", lambda *sizes, **named: empty(*sizes, **named | {"device": "meta"}))
    monkeypatch.setattr(packed_tensor, "reduce_tensor", export)
    yield exported


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("bucket_bytes", [None, 2**20])
def test_every_shipped_model_passes_through_ipc(
    name: str, bucket_bytes: int | None, meta_memory: list[torch.Tensor]
) -> None:
    """vLLM's real producer with the model's real embedding, which may be larger than a bucket."""
    settings = with_model("colocated", name)
    settings.rollout.bucket_bytes = bucket_bytes or settings.rollout.bucket_bytes
    shape = KNOWN[settings.model.path]
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                intermediate_size=shape.intermediate,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                num_hidden_layers=1,
                tie_word_embeddings=shape.tied,
            )
        ).to(torch.bfloat16)
    handed: list[int] = []

    def call(method: str, arguments: list[tuple[Any, ...]]) -> None:
        if method == "update_weights":
            handed.append(sum(arguments[0][0]["tensor_sizes"]))

    sender = CudaSender(model, settings, 0)
    sender.connect({"call": call})
    sender.send(1)
    embedding = 2 * shape.vocabulary * shape.hidden
    (buffer,) = meta_memory
    assert buffer.numel() == max(settings.rollout.bucket_bytes, embedding)
    assert sum(handed) == sum(2 * parameter.numel() for parameter in model.parameters())
    assert max(handed) <= buffer.numel()
