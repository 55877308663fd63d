"""New weights reach a real engine: log-probs before, after and back again; shards of two ZeRO-3 ranks."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_process import EngineProcess, small_settings
from safetensors.torch import load_file
from tiny_models import VOCABULARY, tiny_granite, tiny_qwen
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
)

from lrm_safety.rollouts import GenerationRequest, SamplingParameters
from lrm_safety.weight_sync.shm import write_buckets
from lrm_safety.weight_sync.source import ZeroThreeSource

SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "initializer_range": 0.1,
}
SAMPLING = SamplingParameters(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=8, stop_token_ids=(0,))
BUCKET_BYTES = 50_000
"""Several buckets for every model here."""


def qwen(*, tied: bool) -> PreTrainedModel:
    return tiny_qwen(**SIZES, tied=tied)


def granite() -> PreTrainedModel:
    # vLLM pads experts of another width on the CPU, and cannot load weights over them.
    return tiny_granite(**SIZES, intermediate_size=64)


MODELS = {"tied": lambda: qwen(tied=True), "untied": lambda: qwen(tied=False), "granite": granite}


@pytest.fixture(scope="module", params=list(MODELS))
def trainer_and_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PreTrainedModel, EngineProcess]]:
    torch.manual_seed(1)
    model = MODELS[request.param]().eval()
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    with EngineProcess(small_settings(folder)) as engine:
        yield model, engine


def sequences() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, VOCABULARY, size=size).astype(np.int32) for size in (2, 17, 40)]


def trainer_logprobs(model: PreTrainedModel) -> list[np.ndarray]:
    results = []
    for sequence in sequences():
        ids = torch.from_numpy(sequence).long()
        with torch.no_grad():
            every = torch.log_softmax(model(ids[None], use_cache=False).logits[0].double(), dim=-1)
        results.append(every[:-1].gather(1, ids[1:, None]).squeeze(1).numpy())
    return results


def largest_difference(one: list[np.ndarray], two: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))


def probe(worker: Any) -> list[np.ndarray]:
    return worker.probe(sequences())


def load(worker: Any, version: int, paths: list[str]) -> int:
    worker.start_weight_update()
    for path in paths:
        worker.load_bucket(path)
    worker.finish_weight_update(version)
    return worker.weights_version()


def generate(worker: Any, requests: list[GenerationRequest]) -> list[Any]:
    return [rollout for chunk in worker.generate(requests, SAMPLING) for rollout in chunk]


def perturb(model: PreTrainedModel, seed: int) -> None:
    """Move every parameter by its own random step, so that a tensor left behind shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def test_engine_holds_what_the_trainer_holds(
    trainer_and_engine: tuple[PreTrainedModel, EngineProcess], tmp_path: Path
) -> None:
    model, engine = trainer_and_engine
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    requests = [GenerationRequest(i, i, ids[:16], seed=i) for i, ids in enumerate(sequences())]
    probe_first = engine.run(probe)
    assert largest_difference(probe_first, trainer_logprobs(model)) < 1e-4
    assert {rollout.weights_version for rollout in engine.run(generate, requests)} == {0}

    perturb(model, seed=2)
    expected = trainer_logprobs(model)
    assert largest_difference(engine.run(probe), expected) > 1e-2
    paths = list(write_buckets(ZeroThreeSource(model, BUCKET_BYTES, 0), tmp_path / "run" / "7", 0))
    assert len(paths) > 1
    assert engine.run(load, 7, paths) == 7
    assert largest_difference(engine.run(probe), expected) < 1e-4

    rollouts = engine.run(generate, requests)
    assert {rollout.weights_version for rollout in rollouts} == {7}
    for rollout in rollouts:
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.response_ids])).long()
        with torch.no_grad():
            every = torch.log_softmax(model(ids[None], use_cache=False).logits[0].double(), dim=-1)
        start = len(rollout.prompt_ids)
        mine = every[start - 1 : -1].gather(1, ids[start:, None]).squeeze(1).numpy()
        np.testing.assert_allclose(rollout.logprobs, mine, atol=1e-4, rtol=0)

    model.load_state_dict(first)
    back = list(write_buckets(ZeroThreeSource(model, 2**30, 0), tmp_path / "run" / "8", 0))
    assert engine.run(load, 8, back) == 8
    again = engine.run(probe)
    assert largest_difference(again, probe_first) < 1e-6


def test_two_zero_three_ranks_publish_what_a_checkpoint_holds(tmp_path: Path) -> None:
    """Sharded experts, a Mamba layer and a tied head: the files equal the checkpoint, whichever bucket holds what."""
    torch.manual_seed(3)
    granite().save_pretrained(tmp_path / "model")
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port = probe_socket.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=publish_shards, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
    assert [process.exitcode for process in ranks] == [0, 0]
    files = sorted((tmp_path / "run" / "1").glob("*.safetensors"))
    assert len(files) > 1
    published = {name: tensor for path in files for name, tensor in load_file(path).items()}
    expected = load_file(tmp_path / "model" / "model.safetensors")
    assert set(published) == set(expected)
    for name, tensor in published.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def publish_shards(rank: int, port: int, folder: Path) -> None:
    """One rank: load under ZeRO-3, write the buckets, check that the metadata agrees and the shards are released."""
    os.environ |= {
        "DS_ACCELERATOR": "cpu",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would compile C++ for a minute
    deepspeed.init_distributed(dist_backend="gloo")
    config = {
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "train_micro_batch_size_per_gpu": 1,
    }
    keep = HfDeepSpeedConfig(config)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    engine, *_ = deepspeed.initialize(model=model, config=config)
    assert all(parameter.ds_tensor.numel() < parameter.ds_numel for parameter in engine.module.parameters())
    source = ZeroThreeSource(engine.module, BUCKET_BYTES, rank)
    paths = list(write_buckets(source, folder / "run" / "1", rank))
    assert bool(paths) == (rank == 0)
    described = [(item.name, item.dtype, item.shape) for item in source.metadata()]
    assert described == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in source]
    assert all(parameter.numel() == 0 for parameter in engine.module.parameters())
    del keep
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # gloo's threads abort a process that ends with them still running
