"""The rollout worker on a real engine: answers, log-probs, streaming, interruption, and exact repetition."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_process import EngineProcess, small_settings
from tiny_models import VOCABULARY, tiny_qwen
from transformers import Qwen3ForCausalLM

from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.settings import Settings
from lrm_safety.workers.specs import EngineSpec

STOP = (3, 5)
SAMPLING = SamplingParameters(temperature=0.7, top_p=1.0, top_k=0, max_response_tokens=32, stop_token_ids=STOP)


def requests(count: int, batch: int = 0) -> list[GenerationRequest]:
    generator = np.random.default_rng(batch)
    return [
        GenerationRequest(
            request_id=index,
            prompt_index=100 + index,
            prompt_ids=generator.integers(6, VOCABULARY, size=int(generator.integers(1, 33))).astype(np.int32),
            seed=1000 * batch + index,
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Qwen3ForCausalLM, Settings]:
    model = tiny_qwen(
        seed=0,
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    ).eval()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return model, small_settings(folder)


@pytest.fixture(scope="module")
def engine(model: tuple[Qwen3ForCausalLM, Settings]) -> Iterator[EngineProcess]:
    with EngineProcess(model[1]) as process:
        yield process


# Functions that run beside the engine, in its process.


def generate(worker: Any, *arguments: Any) -> list[list[Rollout]]:
    return list(worker.generate(*arguments))


def meeting_place(worker: Any) -> str:
    """What the file is at which the engine's process group met."""
    method = worker._llm.llm_engine.model_executor.driver_worker.worker.distributed_init_method
    return os.readlink(method.removeprefix("file://"))


def generate_and_count(worker: Any, *arguments: Any) -> list[tuple[int, int]]:
    """(size of the chunk, requests that the engine still works on) for every chunk."""
    engine = worker._llm.llm_engine
    return [(len(chunk), engine.get_num_unfinished_requests()) for chunk in worker.generate(*arguments)]


def generate_one_chunk_and_close(worker: Any, *arguments: Any) -> tuple[list[Rollout], int]:
    stream = worker.generate(*arguments)
    chunk = next(stream)
    stream.close()
    return chunk, worker._llm.llm_engine.get_num_unfinished_requests()


def generate_twice_at_once(worker: Any, *arguments: Any) -> None:
    stream = worker.generate(*arguments)
    next(stream)
    try:
        next(worker.generate(*arguments))
    finally:
        stream.close()


def start_another(worker: Any, settings: Settings) -> None:
    type(worker)(EngineSpec.of(settings), 1).start()


def call(worker: Any, method: str, *arguments: Any) -> Any:
    return getattr(worker, method)(*arguments)


def test_every_request_is_answered_once_and_in_full(engine: EngineProcess) -> None:
    asked = requests(30)
    chunks = engine.run(generate, asked, SAMPLING)
    assert [len(chunk) for chunk in chunks] == [4] * 7 + [2]
    rollouts = {rollout.request_id: rollout for chunk in chunks for rollout in chunk}
    assert sorted(rollouts) == list(range(30))
    reasons = set()
    for request in asked:
        rollout = rollouts[request.request_id]
        reasons.add(rollout.finish_reason)
        assert rollout.prompt_index == request.prompt_index
        np.testing.assert_array_equal(rollout.prompt_ids, request.prompt_ids)
        assert rollout.response_ids.dtype == np.int32
        assert rollout.logprobs.dtype == np.float32
        assert rollout.response_ids.shape == rollout.logprobs.shape
        assert rollout.weights_version == 0
        assert not set(rollout.response_ids[:-1].tolist()) & set(STOP)
        if rollout.finish_reason == "stop":
            assert rollout.response_ids[-1] in STOP  # the stop token is part of the response
        else:
            assert len(rollout.response_ids) == SAMPLING.max_response_tokens
            assert rollout.response_ids[-1] not in STOP
    assert reasons == {"stop", "length"}


def test_logprobs_are_those_of_the_sampled_distribution(
    engine: EngineProcess, model: tuple[Qwen3ForCausalLM, Settings]
) -> None:
    chunks = engine.run(generate, requests(12, batch=1), SAMPLING)
    for rollout in (rollout for chunk in chunks for rollout in chunk):
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.response_ids])).long()
        with torch.no_grad():
            logits = model[0](ids[None], use_cache=False).logits[0].double()
        every = torch.log_softmax(logits / SAMPLING.temperature, dim=-1)
        start = len(rollout.prompt_ids)
        expected = every[start - 1 : -1].gather(1, ids[start:, None]).squeeze(1)
        np.testing.assert_allclose(rollout.logprobs, expected.numpy(), atol=1e-4, rtol=0)


def test_finished_responses_leave_while_others_generate(engine: EngineProcess) -> None:
    counts = engine.run(generate_and_count, requests(30), SAMPLING)
    assert counts[0][0] == 4
    assert counts[0][1] > 15  # at most a few have finished besides the first chunk
    assert counts[-1][1] == 0


def test_repeats_bit_for_bit_whatever_the_engines_did_before(
    engine: EngineProcess, model: tuple[Qwen3ForCausalLM, Settings]
) -> None:
    """Exact resume: a new process gives the same tokens, log-probs and order as an engine with a history."""
    asked = requests(30, batch=7)
    engine.run(generate_one_chunk_and_close, requests(13, batch=2), SAMPLING)
    engine.run(call, "probe", [request.prompt_ids for request in requests(5, batch=3) if len(request.prompt_ids) > 1])
    engine.run(generate, asked[3:8], SAMPLING)  # the same prompts: their prefixes must not be read from the cache
    with EngineProcess(model[1]) as fresh:
        batches = [one.run(generate, asked, SAMPLING) for one in (engine, fresh, engine)]
    first, *others = [[rollout for chunk in batch for rollout in chunk] for batch in batches]
    for other in others:
        assert [rollout.request_id for rollout in first] == [rollout.request_id for rollout in other]
        for one, two in zip(first, other, strict=True):
            np.testing.assert_array_equal(one.response_ids, two.response_ids)
            np.testing.assert_array_equal(one.logprobs.view(np.int32), two.logprobs.view(np.int32))


def test_seeds_alone_tell_equal_prompts_apart(engine: EngineProcess) -> None:
    prompt = np.arange(10, 20, dtype=np.int32)
    asked = [GenerationRequest(index, 0, prompt, seed) for index, seed in enumerate([1, 2, 1, 3])]
    endless = replace(SAMPLING, stop_token_ids=())
    got = {r.request_id: r.response_ids.tolist() for chunk in engine.run(generate, asked, endless) for r in chunk}
    assert got[0] == got[2]
    assert len({tuple(got[index]) for index in (0, 1, 3)}) == 3


def test_closing_early_leaves_a_clean_engine(engine: EngineProcess) -> None:
    chunk, unfinished = engine.run(generate_one_chunk_and_close, requests(30), SAMPLING)
    assert len(chunk) == 4
    assert unfinished == 0
    chunks = engine.run(generate, requests(9), SAMPLING)
    assert sorted(rollout.request_id for chunk in chunks for rollout in chunk) == list(range(9))


def test_a_refused_request_takes_the_batch_out_again(engine: EngineProcess) -> None:
    too_long = GenerationRequest(5, 5, np.full(80, 7, np.int32), seed=0)
    with pytest.raises(RuntimeError, match="length 80"):
        engine.run(generate, [*requests(5), too_long], SAMPLING)
    assert len(engine.run(generate, requests(4), SAMPLING)[0]) == 4


def test_misuse_is_refused(engine: EngineProcess) -> None:
    with pytest.raises(RuntimeError, match=r"InvariantError: .*same request_id"):
        engine.run(generate, [requests(1)[0]] * 2, SAMPLING)
    with pytest.raises(RuntimeError, match=r"InvariantError: .*still generates"):
        engine.run(generate_twice_at_once, requests(30), SAMPLING)


def test_prompts_beyond_one_steps_token_budget(engine: EngineProcess, model: tuple[Qwen3ForCausalLM, Settings]) -> None:
    """Seeded requests whose prefill would be cut in two crash vLLM on the CPU: it must not cut them."""
    settings = small_settings(Path(model[1].model.path))
    settings.rollout.max_num_batched_tokens = 70
    with EngineProcess(settings) as narrow:
        chunks = narrow.run(generate, requests(20), SAMPLING)
    assert sorted(rollout.request_id for chunk in chunks for rollout in chunk) == list(range(20))


def test_lengths_above_the_models_limit_are_a_users_mistake(
    engine: EngineProcess, model: tuple[Qwen3ForCausalLM, Settings]
) -> None:
    settings = small_settings(Path(model[1].model.path))
    settings.rollout.max_response_tokens = 64
    with pytest.raises(RuntimeError, match=r"ConfigError: .*max_model_len"):
        engine.run(start_another, settings)


def test_greedy_sampling_takes_the_likeliest_token(
    engine: EngineProcess, model: tuple[Qwen3ForCausalLM, Settings]
) -> None:
    greedy = SamplingParameters(temperature=0.0, top_p=1.0, top_k=0, max_response_tokens=6, stop_token_ids=STOP)
    (rollout,) = engine.run(generate, requests(1), greedy)[0]
    ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.response_ids])).long()
    with torch.no_grad():
        best = model[0](ids[None], use_cache=False).logits[0].argmax(-1)
    assert best[len(rollout.prompt_ids) - 1 : -1].tolist() == rollout.response_ids.tolist()


def test_an_engine_tells_what_it_is(engine: EngineProcess, model: tuple[Qwen3ForCausalLM, Settings]) -> None:
    """Key and value of 2 layers x 1 head x 32, float32: 512 bytes a token. A sequence of the longest length, 64, takes a
    whole block of 128 tokens, and vLLM counts the tokens of such sequences."""
    rollout = model[1].rollout
    told = engine.run(call, "describe")
    tokens = int(re.match(r"KV cache ([\d,]+) tokens", told)[1].replace(",", ""))  # type: ignore[index]
    assert tokens == rollout.kv_cache_bytes // (512 * 128) * 64  # type: ignore[operator]
    full = tokens / (rollout.max_prompt_tokens + rollout.max_response_tokens)
    assert f"{full:.1f} responses of full length; attention CPU_ATTN; eager" in told


def test_an_engine_leaves_no_file_in_the_temporary_folder_however_it_ends(engine: EngineProcess) -> None:
    assert engine.run(meeting_place).startswith("/memfd:")


def test_memory_is_reported_by_the_engine(engine: EngineProcess) -> None:
    assert 0.1 < engine.run(call, "memory")["rss_gib"] < 8
    engine.run(call, "sleep")  # nothing to do on the CPU
    engine.run(call, "wake", ["weights"])
