"""LoRA adapters alone reach a real engine: what it computes, what it says of versions, and where it cannot take them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_process import EngineProcess, small_settings
from tiny_models import VOCABULARY, tiny_qwen
from transformers import PreTrainedModel, StableLmConfig, StableLmForCausalLM

from lrm_safety.modeling.lora import adapter_parameters, add_lora
from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.settings import LoraSettings, Settings
from lrm_safety.weight_sync import object_store
from lrm_safety.weight_sync.source import ZeroThreeSource
from lrm_safety.workers.specs import EngineSpec

SAMPLING = SamplingParameters(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=16, stop_token_ids=(0,))
TOLERANCE = 1e-4
"""Of one log-prob, as for whole weights (test_weight_sync.py)."""
BUCKET_BYTES = 20_000
LONGEST_SECONDS = 300.0
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "initializer_range": 0.1,
}
LORA = {
    "every layer": LoraSettings(rank=4, alpha=10.0),
    "parts of packed layers": LoraSettings(rank=16, alpha=8.0, target_modules=["q_proj", "v_proj", "up_proj"]),
}


def settings_of(folder: Path, lora: LoraSettings) -> Settings:
    settings = small_settings(folder)
    settings.trainer.lora = lora
    return settings


@pytest.fixture(scope="module", params=list(LORA))
def trainer_and_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PreTrainedModel, EngineProcess]]:
    lora = LORA[request.param]
    model = tiny_qwen(seed=1, tied=True, **SIZES).eval()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    with EngineProcess(settings_of(folder, lora)) as engine:
        add_lora(model, lora, name="tiny", seed=0)
        yield model.eval(), engine


def sequences() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, VOCABULARY, size=size).astype(np.int32) for size in (2, 17, 40)]


def logprobs(model: PreTrainedModel, sequence: np.ndarray) -> np.ndarray:
    ids = torch.from_numpy(sequence).long()
    with torch.no_grad():
        every = torch.log_softmax(model(ids[None], use_cache=False).logits[0].double(), dim=-1)
    return every[:-1].gather(1, ids[1:, None]).squeeze(1).numpy()


def largest_difference(engine: list[np.ndarray], model: PreTrainedModel) -> float:
    return max(float(np.abs(one - logprobs(model, ids)).max()) for one, ids in zip(engine, sequences(), strict=True))


def train(model: PreTrainedModel, seed: int, size: float = 0.1) -> None:
    """Move every A and B by its own random step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def published(model: PreTrainedModel) -> list[object_store.PackedBucket]:
    return [object_store.pack(bucket) for bucket in ZeroThreeSource(model, BUCKET_BYTES, 0, adapters=True).buckets()]


# Functions that run beside the engine, in its process.


def probe(worker: Any) -> list[np.ndarray]:
    return worker.probe(sequences())


def load(worker: Any, version: int, buckets: list[object_store.PackedBucket]) -> int:
    worker.start_weight_update()
    for bucket in buckets:
        worker.load_bucket(bucket)
    worker.finish_weight_update(version)
    return worker.weights_version()


def generate(worker: Any, requests: list[GenerationRequest]) -> list[Rollout]:
    return [rollout for chunk in worker.generate(requests, SAMPLING) for rollout in chunk]


def test_engine_computes_what_the_trainer_computes(trainer_and_engine: tuple[PreTrainedModel, EngineProcess]) -> None:
    """Before an adapter, with one, with the next one in its place, and with the first one again."""
    model, engine = trainer_and_engine
    requests = [GenerationRequest(i, i, ids[:16], seed=i) for i, ids in enumerate(sequences())]
    assert largest_difference(engine.run(probe), model) < TOLERANCE  # B is zero
    assert {rollout.weights_version for rollout in engine.run(generate, requests)} == {0}
    seen = []
    for version in (3, 4):
        train(model, seed=version)
        assert largest_difference(engine.run(probe), model) > 1e-2
        buckets = published(model)
        assert len(buckets) > 1
        if version == 3:
            first = buckets
        assert engine.run(load, version, buckets) == version
        seen.append(engine.run(probe))
        assert largest_difference(seen[-1], model) < TOLERANCE
        rollouts = engine.run(generate, requests)
        assert {rollout.weights_version for rollout in rollouts} == {version}
        for rollout in rollouts:
            whole = np.concatenate([rollout.prompt_ids, rollout.response_ids])
            mine = logprobs(model, whole)[len(rollout.prompt_ids) - 1 :]
            np.testing.assert_allclose(rollout.logprobs, mine, atol=TOLERANCE, rtol=0)
    assert engine.run(load, 5, first) == 5
    for one, two in zip(engine.run(probe), seen[0], strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_sync_that_lacks_an_adapter_fails(trainer_and_engine: tuple[PreTrainedModel, EngineProcess]) -> None:
    model, engine = trainer_and_engine
    buckets = published(model)
    name = next(iter(buckets[-1]))
    buckets[-1] = {other: tensor for other, tensor in buckets[-1].items() if other != name}
    version = engine.run(held_version)
    with pytest.raises(
        RuntimeError, match=rf"InvariantError: weight sync: 1 adapters are missing or too many, such as {name}"
    ):
        engine.run(load, 99, buckets)
    assert engine.run(held_version) == version


def held_version(worker: Any) -> int:
    return worker.weights_version()


def test_a_family_without_lora_in_vllm_says_so(
    trainer_and_engine: tuple[PreTrainedModel, EngineProcess], tmp_path: Path
) -> None:
    StableLmForCausalLM(
        StableLmConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    ).save_pretrained(tmp_path)
    settings = settings_of(tmp_path, LoraSettings(rank=4))
    assert trainer_and_engine[1].run(start_beside, settings) == "vLLM applies none to StableLmForCausalLM"
    settings.trainer.lora.rank = 513
    assert "trainer.lora.rank=513 is above 512" in trainer_and_engine[1].run(start_beside, settings)


def start_beside(worker: Any, settings: Settings) -> str | None:
    """What another worker says, which does not get as far as an engine of its own."""
    return type(worker)(EngineSpec.of(settings), 0).start()


def sample_through_a_sync(
    worker: Any, requests: list[GenerationRequest], buckets: list[list[object_store.PackedBucket]]
) -> list[Rollout]:
    """Answers to requests that are given the first adapters before they begin and the second when some have ended."""
    load(worker, 1, buckets[0])
    answers = worker.answered(requests, SAMPLING, 0.0)
    end = time.monotonic() + LONGEST_SECONDS
    while len(answers) < 8 and time.monotonic() < end:
        answers += worker.answered([], SAMPLING, 1.0)
    load(worker, 2, buckets[1])
    while len(answers) < len(requests) and time.monotonic() < end:
        answers += worker.answered([], SAMPLING, 1.0)
    return answers


def test_tokens_of_requests_under_way_are_of_the_adapters_of_their_version(tmp_path: Path) -> None:
    lora = LORA["every layer"]
    model = tiny_qwen(seed=1, tied=True, **SIZES).eval()
    model.save_pretrained(tmp_path)
    add_lora(model, lora, name="tiny", seed=0)
    models = []
    for seed in (1, 2):
        train(model, seed)
        models.append(copy.deepcopy(model).eval())
    generator = np.random.default_rng(1)
    prompts = [
        generator.integers(6, VOCABULARY, size=int(size)).astype(np.int32) for size in generator.integers(1, 33, 30)
    ]
    requests = [GenerationRequest(i, i, ids, seed=i) for i, ids in enumerate(prompts)]
    with EngineProcess(settings_of(tmp_path, lora), continuous=True) as engine:
        answers = engine.run(sample_through_a_sync, requests, [published(one) for one in models])
    assert sorted(one.request_id for one in answers) == list(range(30))
    for one in answers:
        ids, start = np.concatenate([one.prompt_ids, one.response_ids]), len(one.prompt_ids)
        first, second = (logprobs(each, ids)[start - 1 :] for each in models)
        np.testing.assert_allclose(one.logprobs, np.where(one.versions == 2, second, first), atol=TOLERANCE, rtol=0)
    kinds = {tuple(sorted(set(one.versions.tolist()))) for one in answers}
    assert kinds == {(1,), (1, 2), (2,)}, "some before, some through, some after the sync"
