"""Adapters against peft's own merge, plain formulas, and what must stay as it was."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.modeling.lora import adapter_parameters, add_lora, merged, target_layers, without_dropout
from lrm_safety.modeling.loss import parameter_groups
from lrm_safety.settings import LoraSettings, ModelSettings
from lrm_safety.weight_sync.source import ZeroThreeSource

IDS = torch.arange(1, 31).view(2, 15)


def adapt(model, seed: int = 7, **settings):
    add_lora(model, LoraSettings(**{"rank": 4, "alpha": 10.0, **settings}), name="tiny", seed=seed)
    return model


def perturb(model) -> None:
    """B away from zero, as training would move it."""
    torch.manual_seed(11)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("make", ["tiny_qwen", "tiny_granite"])
def test_new_adapters_change_nothing(make: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(make)()
    before = logits(model)
    assert torch.equal(logits(adapt(model)), before)
    assert adapter_parameters(model)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        ("tiny_qwen", {}),
        ("tiny_qwen", {"target_modules": ["q_proj", "mlp.down_proj"], "rank": 3, "alpha": 6.0}),
        ("tiny_granite", {}),
    ],
)
def test_streamed_weights_are_the_adapted_function(
    make: str, settings: dict, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The stream, loaded into a model that never had adapters, computes what the adapted model does."""
    model = request.getfixturevalue(make)()
    plain = copy.deepcopy(model)
    model.save_pretrained(tmp_path)
    perturb(adapt(model, **settings))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    source = ZeroThreeSource(model, 5_000, rank=0)
    streamed = dict(source)
    assert [(one.name, one.shape) for one in source.metadata()] == [(n, tuple(t.shape)) for n, t in streamed.items()]
    names = {described.name for described in ZeroThreeSource(plain, 5_000, rank=0).metadata()}
    assert set(streamed) == names, "the base model's names, each once"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == streamed.keys()
    save_file(streamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    expected = logits(model)
    torch.testing.assert_close(logits(reloaded), expected, atol=1e-5, rtol=1e-5)
    assert (logits(plain) - expected).abs().max() > 1e-2, "the adapters should matter"


def test_merging_agrees_with_peft(tiny_qwen) -> None:
    config = LoraConfig(r=4, lora_alpha=10, target_modules="all-linear", init_lora_weights=False)
    theirs = get_peft_model(tiny_qwen(), config)
    ours = adapt(tiny_qwen())
    values = {name.removeprefix("base_model.model."): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(values)
    streamed = dict(ZeroThreeSource(ours, 2**40, rank=0))
    expected = theirs.merge_and_unload().state_dict()
    assert streamed.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(streamed[name], value, atol=1e-6, rtol=1e-6, msg=name)


def test_merged_is_rounded_once() -> None:
    """In bfloat16: 1 + 0.5 * (0.01 * 0.01) + ... summed in float32 by hand; an intermediate rounding would lose it."""
    base = torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16)
    down = torch.tensor([[0.0078125, 3.0], [1.0, 0.00390625]], dtype=torch.bfloat16)
    up = torch.tensor([[1.0, 0.0078125]], dtype=torch.bfloat16)
    tensors = {"a.q.base_layer.weight": base, "a.q.lora_A.default.weight": down, "a.q.lora_B.default.weight": up}
    # row: 1 + 0.5 * (0.0078125 + 0.0078125) = 1.0078125; -2 + 0.5 * (3 + 0.000030517578125) = -0.4999847
    (name, value), *more = merged({**tensors, "a.norm.weight": base}, 0.5).items()
    assert name == "a.q.weight" and value.dtype == torch.bfloat16
    assert value.tolist() == [[1.0078125, -0.5]]
    assert [(other, tensor is base) for other, tensor in more] == [("a.norm.weight", True)]


def test_only_adapters_train(tiny_qwen) -> None:
    model = adapt(tiny_qwen(tied=True))
    groups = parameter_groups(model, weight_decay=0.1)
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in adapter_parameters(model).values()}
    # 2 layers of 7 linear layers: q 32+32, k and v 32+16, o 32+32, gate and up 32+48, down 48+32, times rank 4
    expected = 2 * 4 * (64 + 2 * 48 + 64 + 3 * 80)
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == expected
    frozen = {name: value.clone() for name, value in model.state_dict().items() if ".lora_" not in name}
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert all(after[name].abs().max() > 0 for name in after if ".lora_B." in name)


def test_a_is_drawn_from_the_seed_alone(tiny_qwen) -> None:
    first, second, third = tiny_qwen(), tiny_qwen(), tiny_qwen()
    torch.manual_seed(1)
    one = adapter_parameters(adapt(first))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = adapter_parameters(adapt(second))
    assert torch.equal(torch.get_rng_state(), state), "nobody else's numbers are drawn"
    assert all(torch.equal(one[name], other[name]) for name in one)
    third = adapter_parameters(adapt(third, seed=8))
    assert not any(torch.equal(one[name], third[name]) for name in one if ".lora_A." in name)


def test_dropout_is_for_updates_alone(tiny_qwen) -> None:
    model = adapt(tiny_qwen(), dropout=0.5).train()
    perturb(model)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=IDS, use_cache=False).logits

    assert not torch.equal(run(), run())
    with without_dropout(model):
        assert torch.equal(run(), run())
    assert not torch.equal(run(), run())


def test_bfloat16_adapters_have_the_weights_dtype(tiny_qwen) -> None:
    model = adapt(tiny_qwen().to(torch.bfloat16))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_mamba_mixers_output_is_left_alone(tiny_granite) -> None:
    model = adapt(tiny_granite())
    names = {name.partition(".lora_")[0] for name in adapter_parameters(model)}
    assert any(name.endswith("mamba.in_proj") for name in names)
    assert not any(name.endswith("mamba.out_proj") for name in names)
    assert any(name.endswith("self_attn.o_proj") for name in names)


@pytest.mark.parametrize("target", ["proj", "lm_head", "embed_tokens", "wq"])
def test_unknown_targets_are_named(tiny_qwen, tmp_path: Path, target: str) -> None:
    """Found from config.json alone, where preparation looks."""
    tiny_qwen().config.save_pretrained(tmp_path)
    model = ModelSettings(name="tiny", path=str(tmp_path), family="plain")
    target_layers(model, LoraSettings(rank=2, target_modules=["q_proj", "self_attn.o_proj"]))
    target_layers(model, LoraSettings(rank=2))
    with pytest.raises(ConfigError, match=rf"target_modules: {target} is no linear layer of .*down_proj, gate_proj"):
        target_layers(model, LoraSettings(rank=2, target_modules=["q_proj", target]))


def test_a_model_of_no_known_kind_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobody"}')
    with pytest.raises(ModelError, match="could not be built") as refused:
        target_layers(ModelSettings(name="x", path=str(tmp_path), family="plain"), LoraSettings(rank=2))
    assert "\n" not in str(refused.value)


def test_without_adapters_everything_passes_through() -> None:
    model = nn.Linear(2, 2)
    tensors = dict(model.state_dict(keep_vars=True))
    assert list(merged(tensors, 1.0).items()) == list(tensors.items())
