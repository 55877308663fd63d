from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
import yaml

import lrm_safety
from lrm_safety.evaluation.run import prepare
from lrm_safety.lab.analysis.models import Reader
from lrm_safety.modeling.load import freeze, load_causal_lm
from lrm_safety.modeling.packed_attention import attend_by_sequence
from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.settings import ModelSettings
from lrm_safety.settings.compose import compose_evaluation

POLICY = Path(lrm_safety.__file__).parent / "miniature" / "assets" / "policy"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tiny_qwen():
    """Random Qwen3 whose distributions are far from uniform."""
    return freeze(tiny_models.tiny_qwen(seed=3, tied=False, initializer_range=0.3))


@pytest.fixture
def reader_of():
    """A reader whose batches and chunks are small enough that every text list needs several."""

    def make(model, *, packing=True):
        if packing:
            attend_by_sequence(model)
        return Reader(model, packing=packing, device="cpu", micro_batch_tokens=40, chunk_tokens=5)

    return make


@pytest.fixture
def policy_settings():
    return ModelSettings(name="miniature", path=str(POLICY), family="miniature", dtype="float32", attention="sdpa")


@pytest.fixture(scope="session")
def other_policy(tmp_path_factory) -> Path:
    """The miniature's policy with its weights disturbed: the same tokenizer, other distributions."""
    folder = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(POLICY, folder)
    model = load_causal_lm(ModelSettings(name="m", path=str(POLICY), family="miniature", dtype="float32"), "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def evaluations(tmp_path_factory, other_policy) -> dict[str, Path]:
    """Folders as `lrm-safety evaluate` writes them, of the shipped policy and of the disturbed one: eight responses to
    each of three benchmarks."""
    root = tmp_path_factory.mktemp("evaluations")
    return {
        name: write_evaluation(root / name, ["evaluation=miniature", f"model.path={path}"])
        for name, path in (("base", POLICY), ("other", other_policy))
    }


@pytest.fixture(scope="session")
def attacked(tmp_path_factory) -> Path:
    """The shipped policy's responses to forbidden prompts whose trace was begun for it."""
    change = ["evaluation=miniature", "~evaluation.benchmarks.arithmetic", "~evaluation.benchmarks.benign",
              "evaluation.benchmarks.safety.attack=compliant_trace"]  # fmt: skip
    return write_evaluation(tmp_path_factory.mktemp("attacked") / "base", change)


def write_evaluation(folder: Path, overrides: list[str]) -> Path:
    """Responses sampled at temperature 1, by transformers in the engine's place."""
    settings, resolved = compose_evaluation(
        ["model=miniature", "evaluation.limit=8", "run.device=cpu", f"run.directory={folder}", *overrides]
    )
    prepared = prepare(settings, folder)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    prepared.responses.open(prepared.planned)
    model = freeze(load_causal_lm(prepared.subject.model, "cpu"))
    prepared.responses.complete(prepared.planned, Sampler(model), prepared.subject.sampling, lambda *_: None)
    return folder


class Sampler:
    """An engine of transformers."""

    def __init__(self, model) -> None:
        self.model = model

    def generate_batches(self, batches, sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        for batch in batches:
            yield from self.generate(list(batch), sampling)

    def generate(self, requests: list[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        for request in requests:
            torch.manual_seed(request.seed)
            prompt = torch.from_numpy(request.prompt_ids.astype(np.int64))[None]
            written = self.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1.0, top_k=0,
                max_new_tokens=sampling.max_response_tokens, eos_token_id=list(sampling.stop_token_ids),
            )[0, prompt.shape[1] :].numpy()  # fmt: skip
            stopped = int(written[-1]) in sampling.stop_token_ids
            yield [
                Rollout(
                    request.request_id, request.prompt_index, request.prompt_ids, written.astype(np.int32),
                    np.zeros(len(written), dtype=np.float32), "stop" if stopped else "length", 0,
                )
            ]  # fmt: skip
