"""An engine that is given new weights with requests under way: whose log-probs its tokens have, and what becomes of a failure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_process import EngineProcess, small_settings
from tiny_models import VOCABULARY, tiny_qwen
from transformers import PreTrainedModel

from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters, TokenIds
from lrm_safety.weight_sync.shm import write_buckets
from lrm_safety.weight_sync.source import ZeroThreeSource

STOP = 3
SAMPLING = SamplingParameters(temperature=0.7, top_p=1.0, top_k=0, max_response_tokens=32, stop_token_ids=(STOP,))
PROBE = np.arange(1, 20, dtype=np.int32)
LONGEST_SECONDS = 300.0


def policy(seed: int) -> PreTrainedModel:
    return tiny_qwen(
        seed=seed,
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    ).eval()


def requests() -> list[GenerationRequest]:
    """30 for an engine that runs 8 at one time."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 33, size=30)
    prompts = [generator.integers(6, VOCABULARY, size=int(size)).astype(np.int32) for size in sizes]
    return [GenerationRequest(i, i, ids, seed=i) for i, ids in enumerate(prompts)]


def logprobs(model: PreTrainedModel, ids: TokenIds, temperature: float) -> np.ndarray:
    """Of tokens 1..L-1."""
    whole = torch.from_numpy(ids).long()
    with torch.no_grad():
        every = torch.log_softmax(model(whole[None], use_cache=False).logits[0].double() / temperature, dim=-1)
    return every[:-1].gather(1, whole[1:, None]).squeeze(1).numpy()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedModel, list[str]]:
    """The weights to begin with, those that are published, and these as buckets."""
    old, new, folder = policy(0), policy(1), tmp_path_factory.mktemp("model")
    old.save_pretrained(folder / "old")
    return old, new, list(write_buckets(ZeroThreeSource(new, 20_000, 0), folder / "run" / "7", 0))


@pytest.fixture
def engine(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("served")
    models[0].save_pretrained(folder)
    with EngineProcess(small_settings(folder), continuous=True) as process:
        yield process


# Functions that run beside the engine, in its process.


def sample_through_a_sync(
    worker: Any, asked: list[GenerationRequest], paths: list[str]
) -> tuple[list[Rollout], int, list[np.ndarray]]:
    """Everything answered, how many requests were open at the sync, and the probe right after it."""
    answers = worker.answered(asked, SAMPLING, 0.0)
    end = time.monotonic() + LONGEST_SECONDS
    while len(answers) < 8 and time.monotonic() < end:
        answers += worker.answered([], SAMPLING, 1.0)
    worker.start_weight_update()
    answers += worker.answered([], SAMPLING, 1.0)
    num_open = len(asked) - len(answers)
    for path in paths:
        worker.load_bucket(path)
    assert worker.answered([], SAMPLING, 0.0) == [], "a step was made with weights that are half new"
    worker.finish_weight_update(7)
    probed = worker.probe([PROBE])
    while len(answers) < len(asked) and time.monotonic() < end:
        answers += worker.answered([], SAMPLING, 1.0)
    return answers, num_open, probed


def generate(worker: Any, asked: list[GenerationRequest]) -> list[Rollout]:
    return [rollout for chunk in worker.generate(asked, SAMPLING) for rollout in chunk]


def cancel_in_the_middle(worker: Any, asked: list[GenerationRequest]) -> tuple[list[Rollout], dict[int, int], bool]:
    """What was answered until 8 were, what was cancelled then, and whether the engine is idle after it."""
    answers = worker.answered(asked, SAMPLING, 0.0)
    end = time.monotonic() + LONGEST_SECONDS
    while len(answers) < 8 and time.monotonic() < end:
        answers += worker.answered([], SAMPLING, 1.0)
    cancelled = worker.cancel()
    assert worker.answered([], SAMPLING, 0.0) == []
    return answers, cancelled, not worker.busy and not worker._llm.llm_engine.has_unfinished_requests()


def fail(worker: Any, asked: list[GenerationRequest]) -> list[Rollout]:
    def step() -> None:
        raise RuntimeError("the kernel is gone")

    worker._llm.llm_engine.step = step
    return worker.answered(asked, SAMPLING, LONGEST_SECONDS)


def test_a_response_is_that_of_its_seed_beside_whatever_runs(engine: EngineProcess) -> None:
    """In another order other requests run beside each, in other rows; a rounded sum may exchange a token of one or two."""
    asked = requests()
    one, other = (
        {answer.request_id: answer for answer in engine.run(generate, order)} for order in (asked, asked[::-1])
    )
    same = [i for i in one if np.array_equal(one[i].response_ids, other[i].response_ids)]
    assert len(one) == len(other) == 30 and len(same) >= 28
    for i in same:
        np.testing.assert_allclose(one[i].logprobs, other[i].logprobs, atol=1e-4, rtol=0)

    answers, cancelled, is_idle = engine.run(cancel_in_the_middle, asked)
    assert is_idle and {answer.request_id for answer in answers}.isdisjoint(cancelled)
    assert len(answers) + len(cancelled) == 30 and len(cancelled) > 0
    for i, sampled in cancelled.items():
        assert 0 <= sampled <= len(one[i].response_ids)
    assert sum(sampled > 0 for sampled in cancelled.values()) <= 16, (
        "8 run at one time; others may have ended meanwhile"
    )
    assert sum(sampled > 0 for sampled in cancelled.values()) > 0
    again = {answer.request_id: answer for answer in engine.run(generate, asked)}
    assert all(np.array_equal(again[i].response_ids, one[i].response_ids) for i in one), "nothing of it is left"


def test_every_token_has_the_logprob_of_the_version_that_sampled_it(
    engine: EngineProcess, models: tuple[PreTrainedModel, PreTrainedModel, list[str]]
) -> None:
    old, new, paths = models
    asked = requests()
    answers, num_open, probed = engine.run(sample_through_a_sync, asked, paths)
    assert sorted(one.request_id for one in answers) == list(range(30))
    assert 0 < num_open < 30
    kinds = set()
    for one in answers:
        np.testing.assert_array_equal(one.prompt_ids, asked[one.request_id].prompt_ids)
        assert one.versions.dtype == np.int32 and len(one.versions) == len(one.response_ids)
        assert (np.diff(one.versions) >= 0).all()
        kinds.add(tuple(sorted(set(one.versions.tolist()))))
        ids, start = np.concatenate([one.prompt_ids, one.response_ids]), len(one.prompt_ids)
        by_old, by_new = (logprobs(model, ids, SAMPLING.temperature)[start - 1 :] for model in (old, new))
        np.testing.assert_allclose(one.logprobs, np.where(one.versions == 7, by_new, by_old), atol=1e-4, rtol=0)
    assert kinds == {(0,), (0, 7), (7,)}, "some before, some through, some after the sync"
    np.testing.assert_allclose(probed[0], logprobs(new, PROBE, 1.0), atol=1e-4, rtol=0)

    whole = engine.run(generate, asked[:5])
    assert sorted(one.request_id for one in whole) == list(range(5)) and {one.weights_version for one in whole} == {7}
    with pytest.raises(RuntimeError, match="the kernel is gone"):
        engine.run(fail, asked[:1])
    with pytest.raises(RuntimeError, match="the kernel is gone"):
        engine.run(fail, [])
