"""CUDA against the CPU on a tiny model: scores, one update, and vLLM's own weight transfer. `pytest -m gpu`.

Written without a GPU and never run on one.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_qwen
from tiny_tokenizers import word_tokenizer
from transformers import Qwen3ForCausalLM

from benchmarks.isolated import Isolated
from lrm_safety import miniature
from lrm_safety.modeling import packed_attention
from lrm_safety.modeling.load import one_attention_kernel
from lrm_safety.modeling.packed_attention import Borders, attend_by_sequence, attend_within
from lrm_safety.modeling.packing import pack
from lrm_safety.modeling.token_logprobs import TokenLogprobs
from lrm_safety.rewards.classifier import ClassifierScorer
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rollouts import GenerationRequest, MiniBatch, SamplingParameters, TrainingSequence
from lrm_safety.settings import (
    AlgorithmSettings,
    ClusterSettings,
    GroupSettings,
    KLSettings,
    ModelSettings,
    RewardModelSettings,
    RolloutSettings,
    Settings,
    TrainerSettings,
)
from lrm_safety.workers.environment import environment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: these tests compare one with the CPU"),
]

VOCABULARY = 128
TIMEOUT_SECONDS = 240
TOLERANCE = 2e-3
"""Log-probs in float32: CUDA's kernels add in another order, and vLLM may multiply in TF32."""
BFLOAT16_MEAN, BFLOAT16_MAX = 0.05, 0.5
"""Log-probs in bfloat16 against float32: 135 M parameters on the CPU differ by 0.032 in the mean and 0.28 at most."""
EMBEDDING_BYTES = 2 * VOCABULARY * 128
"""In bfloat16."""


def build_model() -> Qwen3ForCausalLM:
    return tiny_qwen(
        seed=3,
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=192,
        head_dim=64,
        initializer_range=0.1,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "model"
    build_model().save_pretrained(path)
    word_tokenizer(VOCABULARY).save_pretrained(path)  # the trainer exports it beside the weights
    return path


def settings_of(
    folder: Path,
    device: str,
    *,
    colocated: bool = False,
    dtype: str = "float32",
    workers: int = 1,
    bucket_bytes: int = 2**20,
) -> Settings:
    """`workers`: trainer ranks and engines, as many of each."""
    gpus = 0.0 if device == "cpu" else 0.4 if colocated else 1.0
    worker = GroupSettings(num_workers=workers, cpus_per_worker=0.5, gpus_per_worker=gpus, threads_per_worker=1)
    return Settings(
        model=ModelSettings(name="tiny", path=str(folder), family="plain", dtype=dtype, attention="sdpa"),
        algorithm=AlgorithmSettings(kl=KLSettings(placement="none"), correction="off"),
        # A large epsilon: AdamW divides by almost nothing otherwise, and the first step would only show signs.
        trainer=TrainerSettings(lr=1e-3, epsilon=1e-3, logprob_chunk_tokens=16),
        rollout=RolloutSettings(
            temperature=1.0,
            max_prompt_tokens=64,
            max_response_tokens=32,
            max_num_seqs=8,
            enforce_eager=True,
            kv_cache_bytes=256 * 2**20,
            stream_chunk_size=4,
            bucket_bytes=bucket_bytes,
        ),
        cluster=ClusterSettings(
            name="test",
            device=device,
            policy=worker,
            rollout=worker,
            colocate=[["policy", "rollout"]] if colocated else [],
            start_timeout_seconds=TIMEOUT_SECONDS,
            call_timeout_seconds=TIMEOUT_SECONDS,
        ),
    )


def sequences_of(count: int = 6) -> list[TrainingSequence]:
    generator = np.random.default_rng(1)

    def some(size: int) -> np.ndarray:
        return generator.integers(2, VOCABULARY, size).astype(np.int32)

    return [
        TrainingSequence(
            index, some(5 + index), some(9 + 3 * index), advantages=generator.normal(size=9 + 3 * index).astype("f4")
        )
        for index in range(count)
    ]


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [True, False])
def test_scores_and_gradients_equal_the_cpus(packing: bool) -> None:
    pairs = [(sequence.prompt_ids, sequence.response_ids) for sequence in sequences_of()]
    results = []
    for device in ("cpu", "cuda"):
        model = build_model().to(device)
        batch = pack(pairs, packing=packing).to(device)
        logprobs, entropy = TokenLogprobs(model, temperature=0.7, chunk_tokens=16)(batch)
        logprobs.sum().backward()
        gradient = model.get_input_embeddings().weight.grad
        results.append([tensor.detach().cpu().numpy() for tensor in (logprobs, entropy, gradient)])
    for cpu, cuda, tolerance in zip(*results, (1e-4, 1e-4, 1e-2), strict=True):
        np.testing.assert_allclose(cuda, cpu, atol=tolerance, rtol=1e-3)


def scores_on(device: str, dtype: torch.dtype, *, packing: bool = True, attention: str = "sdpa") -> np.ndarray:
    """Log-probs of the sequences, all in one row or padded, as the trainer computes them."""
    model = build_model().to(device, dtype)
    model.set_attn_implementation(attention)
    one_attention_kernel()
    if packing and attention == "sdpa":
        assert attend_by_sequence(model)
    batch = pack([(one.prompt_ids, one.response_ids) for one in sequences_of()], packing=packing).to(device)
    with torch.no_grad():
        logprobs, _ = TokenLogprobs(model, temperature=0.7, chunk_tokens=16)(batch)
    return logprobs.float().cpu().numpy()


@pytest.mark.parametrize("packing", [True, False])
def test_bfloat16_is_near_the_cpus_float32(packing: bool) -> None:
    distance = np.abs(scores_on("cuda", torch.bfloat16, packing=packing) - scores_on("cpu", torch.float32))
    assert distance.mean() < BFLOAT16_MEAN and distance.max() < BFLOAT16_MAX


def test_packed_rows_in_bfloat16_equal_padded_ones() -> None:
    packed, padded = (scores_on("cuda", torch.bfloat16, packing=packing) for packing in (True, False))
    assert np.abs(packed - padded).mean() < BFLOAT16_MEAN


@pytest.mark.parametrize("window", [None, 7])
def test_packed_rows_with_windows_equal_those_by_sequence(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of torch's kernel for several lengths against one call a sequence, in bfloat16."""
    lengths = (40, 3, 25)
    generator = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, sum(lengths), 64, generator=generator, device="cuda", dtype=torch.bfloat16)
        for heads in (8, 2, 2)
    )
    borders = Borders.of(lengths, "cuda")
    assert packed_attention.has_varlen_kernel(query, value)
    at_once = attend_within(query, key, value, borders, scale=None, window=window)
    monkeypatch.setattr(packed_attention, "has_varlen_kernel", lambda query, value: False)
    by_sequence = attend_within(query, key, value, borders, scale=None, window=window)
    torch.testing.assert_close(at_once, by_sequence, atol=2e-2, rtol=2e-2)


def test_packed_rows_run_on_flash_attention() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        scores_on("cuda", torch.bfloat16)
        torch.cuda.synchronize()
    kernels = [event.key.lower() for event in profile.key_averages()]
    assert any("flash" in kernel for kernel in kernels), kernels
    assert not any("cudnn" in kernel for kernel in kernels), kernels


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash-attn is not installed")
def test_flash_attention_2_agrees_with_sdpa() -> None:
    flash = scores_on("cuda", torch.bfloat16, attention="flash_attention_2")
    assert np.abs(flash - scores_on("cuda", torch.bfloat16)).mean() < BFLOAT16_MEAN


@pytest.mark.parametrize("packing", [True, False])
def test_reward_scores_equal_the_cpus(packing: bool) -> None:
    """The miniature's reward model in bfloat16, whose head is float32's, against float32 on the CPU."""
    assets = Path(miniature.__file__).parent / "assets"
    rows = [json.loads(line) for line in (assets / "prompts/supervised.jsonl").read_text().splitlines()[:64]]
    subjects = []
    for row in rows:
        trace, answer = row["response"].removeprefix("<think>\n").split("\n</think>\n\n")
        subjects.append(Conversation(row["question"], trace, answer, row["response"], "complete"))

    def scores(device: str, dtype: str) -> np.ndarray:
        model = RewardModelSettings(path=str(assets / "reward"), dtype=dtype, max_tokens=256, packing=packing)
        return ClassifierScorer("miniature", model, device).score_texts(subjects, "full")

    expected = scores("cpu", "float32")
    np.testing.assert_allclose(scores("cuda", "bfloat16"), expected, atol=0.05 * np.ptp(expected))


# ---- one update ------------------------------------------------------------------------------------------------------


class Trainer:
    """A trainer rank alone in its process."""

    def __init__(self, settings: Settings) -> None:
        from lrm_safety.workers.policy import PolicyWorker
        from lrm_safety.workers.specs import PolicySpec

        self._lr = settings.trainer.lr
        self._worker = PolicyWorker(PolicySpec.of(settings), 0, 1)
        self._worker.start("127.0.0.1", 29511)

    def learn(self) -> tuple[np.ndarray, Any, np.ndarray]:
        """Log-probs, the result of one update, and log-probs again after the weights were away."""
        sequences = sequences_of()
        tokens = sum(len(sequence.response_ids) for sequence in sequences)
        mini_batch = MiniBatch([sequences[:4], sequences[4:]], tokens, len(sequences), lr=self._lr)
        before = self._logprobs(sequences)
        (result,) = self._worker.update([mini_batch])
        self._worker.offload()
        self._worker.reload()
        return before, result, self._logprobs(sequences)

    def _logprobs(self, sequences: list[TrainingSequence]) -> np.ndarray:
        scores = sorted(self._worker.logprobs([sequences]), key=lambda one: one.index)
        return np.concatenate([one.logprobs for one in scores])


def policy_results(settings: Settings) -> tuple[np.ndarray, Any, np.ndarray]:
    with Isolated(Trainer, settings, environment=environment("policy", settings.cluster)) as trainer:
        return trainer.call("learn")


def test_an_update_does_what_it_does_on_the_cpu(folder: Path) -> None:
    cpu_before, cpu, cpu_after = policy_results(settings_of(folder, "cpu"))
    cuda_before, cuda, cuda_after = policy_results(settings_of(folder, "cuda"))
    np.testing.assert_allclose(cuda_before, cpu_before, atol=TOLERANCE)
    assert cuda.loss == pytest.approx(cpu.loss, abs=1e-4)
    assert cuda.gradient_norm == pytest.approx(cpu.gradient_norm, rel=1e-2)
    assert np.abs(cpu_after - cpu_before).max() > 20 * TOLERANCE  # the step is large enough to tell
    np.testing.assert_allclose(cuda_after, cpu_after, atol=10 * TOLERANCE)


# ---- weights from the trainer to an engine ---------------------------------------------------------------------------


@contextmanager
def groups_of(settings: Settings) -> Iterator[tuple[Any, Any]]:
    """Policy and rollout group, as a run starts them; the trainer moves out before an engine measures the GPU."""
    import ray

    from lrm_safety.workers.groups import join_ray
    from lrm_safety.workers.placement import release, reserve
    from lrm_safety.workers.policy_group import PolicyGroup
    from lrm_safety.workers.rollout_group import RolloutGroup
    from lrm_safety.workers.specs import EngineSpec, PolicySpec

    started: list[Any] = []
    join_ray(settings.cluster)
    try:
        place = reserve(["policy", "rollout"], settings.cluster)
        policy = PolicyGroup(PolicySpec.of(settings), place["policy"], lambda: None)
        started.append(policy)
        policy.start()
        policy.offload()
        rollout = RolloutGroup(EngineSpec.of(settings), place["rollout"], lambda: None)
        started.append(rollout)
        rollout.start()
        yield policy, rollout
        release(list({id(one.placement_group): one.placement_group for one in place.values()}.values()))
    finally:
        for group in started:
            group.end()
        ray.shutdown()


@pytest.mark.timeout(2 * TIMEOUT_SECONDS)
@pytest.mark.parametrize("bucket_bytes", [2**20, EMBEDDING_BYTES // 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("backend", "workers"), [("ipc", 1), ("ipc", 2), ("nccl", 1), ("nccl", 2)])
def test_engines_hold_the_updated_weights(
    folder: Path, backend: str, workers: int, dtype: str, bucket_bytes: int
) -> None:
    """`ipc`: trainer ranks and engines take turns on their GPUs. `nccl`: each has its own. The bucket may be smaller than
    the embedding."""
    needed = workers if backend == "ipc" else 2 * workers
    if torch.cuda.device_count() < needed:
        pytest.skip(f"{workers} trainer ranks and engines need {needed} GPUs under {backend}")
    settings = settings_of(
        folder, "cuda", colocated=backend == "ipc", dtype=dtype, workers=workers, bucket_bytes=bucket_bytes
    )
    exact = dtype == "float32"
    sequences = sequences_of()
    probe = [np.concatenate((sequence.prompt_ids, sequence.response_ids)) for sequence in sequences]
    requests = [GenerationRequest(i, i, sequence.prompt_ids, seed=i) for i, sequence in enumerate(sequences)]
    sampling = SamplingParameters(1.0, 1.0, 0, max_response_tokens=8, stop_token_ids=(1,))
    with groups_of(settings) as (policy, rollout):
        assert rollout.backend == backend
        before = np.concatenate(rollout.probe(probe)[0])
        for version in (1, 2):
            rollout.sleep()
            policy.reload()
            (update,) = policy.update([[replace(sequence) for sequence in sequences]], [1e-3 if exact else 1e-2], 0.0)
            assert np.isfinite(update.gradient_norm)
            expected = np.concatenate(policy.probe_scores(probe))
            policy.offload()
            assert policy.publish_weights(rollout) == version
            assert rollout.weights_versions() == [version] * workers
            for engine in rollout.probe(probe):
                distance = np.abs(np.concatenate(engine) - expected)
                assert distance.mean() < (TOLERANCE if exact else BFLOAT16_MEAN)
                assert distance.max() < (10 * TOLERANCE if exact else BFLOAT16_MAX)
        moved = np.abs(np.concatenate(rollout.probe(probe)[0]) - before).mean()
        assert moved > 2 * (TOLERANCE if exact else BFLOAT16_MEAN)
        rollouts = [one for chunk in rollout.generate(requests, sampling) for one in chunk]
        assert {one.weights_version for one in rollouts} == {2}
        assert sorted(one.request_id for one in rollouts) == list(range(len(requests)))
        assert all("KV cache" in line and "GPU in use" in line for line in rollout.describe())


@pytest.mark.timeout(2 * TIMEOUT_SECONDS)
def test_an_engine_sleeps_while_another_fills_the_gpu(folder: Path) -> None:
    """Asleep it leaves nearly all it took; awake again, after its memory was somebody else's, it answers the same."""
    settings = settings_of(folder, "cuda", colocated=True)
    _, total = torch.cuda.mem_get_info()
    settings.rollout.kv_cache_bytes = int(0.5 * total)
    probe = [np.concatenate((sequence.prompt_ids, sequence.response_ids)) for sequence in sequences_of()]
    with groups_of(settings) as (policy, rollout):
        policy.publish_weights(rollout)
        before = np.concatenate(rollout.probe(probe)[0])
        awake, _ = torch.cuda.mem_get_info()
        rollout.sleep()
        asleep, _ = torch.cuda.mem_get_info()
        assert asleep - awake > 0.45 * total
        ballast = torch.full((int(0.9 * asleep),), 7, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        del ballast
        torch.cuda.empty_cache()
        assert policy.publish_weights(rollout) == 2
        np.testing.assert_allclose(np.concatenate(rollout.probe(probe)[0]), before, atol=TOLERANCE)
