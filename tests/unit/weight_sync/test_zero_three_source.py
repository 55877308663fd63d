"""The weight source over plain models: names, shapes, buckets. Sharded ones: tests/integration/test_weight_sync.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from tiny_models import tiny_model, tiny_qwen
from transformers import GraniteMoeForCausalLM, PreTrainedModel

from lrm_safety.modeling.lora import add_lora
from lrm_safety.settings import LoraSettings
from lrm_safety.weight_sync.source import ZeroThreeSource

ONE_BUCKET = 2**40


def qwen(*, tied: bool = True) -> PreTrainedModel:
    return tiny_qwen(seed=0, tied=tied, vocab_size=64, hidden_size=16, num_hidden_layers=3)


def granite() -> PreTrainedModel:
    return tiny_model(GraniteMoeForCausalLM, seed=0, num_local_experts=4, num_experts_per_tok=2)


def saved(model: PreTrainedModel, folder: Path) -> dict[str, torch.Tensor]:
    """What transformers itself writes for this model: the names and values a checkpoint has."""
    model.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("make", [qwen, lambda: qwen(tied=False), granite], ids=["tied", "untied", "experts"])
def test_yields_what_a_checkpoint_holds(make, tmp_path: Path) -> None:
    model = make()
    expected = saved(model, tmp_path)
    got = list(ZeroThreeSource(model, 20_000, rank=0))
    assert len(got) == len(expected)
    assert {name for name, _ in got} == set(expected)
    for name, tensor in got:
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("make", [qwen, granite], ids=["tied", "experts"])
def test_metadata_agrees_with_iteration_element_for_element(make, rank: int) -> None:
    source = ZeroThreeSource(make(), 10_000, rank)
    got = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in source]
    assert [(described.name, described.dtype, described.shape) for described in source.metadata()] == got
    assert source.num_bytes == sum(torch.Size(shape).numel() * 4 for _, _, shape in got)


def test_a_tied_head_is_left_out() -> None:
    names = [described.name for described in ZeroThreeSource(qwen(), ONE_BUCKET, 0).metadata()]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert "lm_head.weight" in [d.name for d in ZeroThreeSource(qwen(tied=False), ONE_BUCKET, 0).metadata()]


def test_only_rank_0_holds_tensors_unless_asked() -> None:
    model = qwen()
    assert all(tensor.device.type == "meta" for _, tensor in ZeroThreeSource(model, ONE_BUCKET, 1))
    assert all(tensor.device.type == "cpu" for _, tensor in ZeroThreeSource(model, ONE_BUCKET, 1, every_rank=True))


def test_layers_are_whole_and_buckets_respect_the_limit() -> None:
    model = qwen()
    layer_bytes = sum(p.numel() * 4 for p in model.model.layers[0].parameters())
    limit = 2 * layer_bytes + 100
    buckets = list(ZeroThreeSource(model, limit, 0).buckets())
    home: dict[str, int] = {}
    for position, bucket in enumerate(buckets):
        assert sum(tensor.numel() * 4 for _, tensor in bucket) <= limit
        for name, _ in bucket:
            if ".layers." in name:
                layer = name.split(".")[2]
                assert home.setdefault(layer, position) == position
    assert len(home) == 3
    # By hand: the embedding (4,096 B) does not leave room for two layers, so layers 0 / 1+2 or 0+1 / 2 share buckets.
    assert len(buckets) == 2
    assert len(list(ZeroThreeSource(model, ONE_BUCKET, 0).buckets())) == 1
    # A layer above the limit still goes out, alone: embedding, 3 layers, final norm.
    assert len(list(ZeroThreeSource(model, 1, 0).buckets())) == 5


def test_tensors_are_copies_that_training_cannot_change() -> None:
    model = qwen()
    (bucket,) = ZeroThreeSource(model, ONE_BUCKET, 0).buckets()
    before = {name: tensor.clone() for name, tensor in bucket}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for name, tensor in bucket:
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
        assert tensor.is_contiguous()
        assert not tensor.requires_grad


@pytest.mark.parametrize("make", [qwen, granite])
def test_lent_tensors_are_the_same_and_cost_no_copy(make) -> None:
    model = make()
    source = ZeroThreeSource(model, 10_000, 0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    for lent, kept in zip(source.buckets(lent=True), source.buckets(), strict=True):
        assert [name for name, _ in lent] == [name for name, _ in kept]
        for (_, tensor), (_, copy) in zip(lent, kept, strict=True):
            torch.testing.assert_close(tensor, copy, rtol=0, atol=0)
            assert tensor.is_contiguous()
            assert not tensor.requires_grad
            assert tensor.untyped_storage().data_ptr() in weights
            assert copy.untyped_storage().data_ptr() not in weights


def test_every_pass_reads_the_present_weights() -> None:
    model = qwen()
    source = ZeroThreeSource(model, ONE_BUCKET, 0)
    first = dict(source)["model.norm.weight"]
    with torch.no_grad():
        model.model.norm.weight.fill_(3.0)
    assert dict(source)["model.norm.weight"].unique().tolist() == [3.0]
    assert first.unique().tolist() == [1.0]


def test_persistent_buffers_travel_and_transient_ones_do_not() -> None:
    model = qwen()
    model.model.norm.register_buffer("correction", torch.full((2,), 5.0))
    model.model.norm.register_buffer("cache", torch.zeros(2), persistent=False)
    tensors = dict(ZeroThreeSource(model, ONE_BUCKET, 0))
    assert tensors["model.norm.correction"].tolist() == [5.0, 5.0]
    assert not [name for name in tensors if name.endswith(("cache", "inv_freq"))]


def test_adapters_alone_are_what_peft_would_save() -> None:
    model = qwen()
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(0)
    expected = get_peft_model_state_dict(get_peft_model(qwen(), config))
    add_lora(model, LoraSettings(rank=4), name="tiny", seed=0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if ".lora_" in name:
                tensor.copy_(expected[f"base_model.model.{name.replace('.default', '')}"])
    source = ZeroThreeSource(model, 3_000, 0, adapters=True)
    got = dict(source)
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    described = [(one.name, one.dtype, one.shape) for one in source.metadata()]
    assert described == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in got.items()]
    assert source.num_bytes == sum(tensor.numel() * 4 for tensor in expected.values())
    assert len(list(source.buckets())) == 3  # a layer's are not cut
    assert all(tensor.device.type == "meta" for _, tensor in ZeroThreeSource(model, 3_000, 1, adapters=True))
