"""Training: gradients however they are accumulated, a model that learns, an export that scores the same."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_base import toy_rows, write_language_model, write_rows
from transformers import AutoModelForSequenceClassification

from lrm_safety.errors import ConfigError, InvariantError, ModelError
from lrm_safety.lab.reward_training.train import (
    RewardTrainer,
    epoch_order,
    load_for_training,
    open_base,
    prepare,
    train,
)
from lrm_safety.results import RewardTraining
from lrm_safety.rewards.classifier import ClassifierScorer
from lrm_safety.settings import RewardModelSettings
from lrm_safety.settings.reward_training import (
    PairSettings,
    RewardBaseSettings,
    RewardTrainerSettings,
    RewardTrainingSettings,
)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("base"))


def settings_for(folder: Path, rows: Path, **trainer: object) -> RewardTrainingSettings:
    values = {"batch_size": 8, "lr": 3e-3, "epochs": 3, "warmup_fraction": 0.0, "evaluate_every_updates": 5} | trainer
    return RewardTrainingSettings(
        base=RewardBaseSettings(name="tiny", path=str(folder), dtype="float32", max_tokens=128),
        pairs=PairSettings(path=str(rows), held_out_fraction=0.25),
        trainer=RewardTrainerSettings(**values),  # type: ignore[arg-type]
    )


def trained(settings: RewardTrainingSettings, directory: Path) -> tuple[RewardTraining, list[dict]]:
    directory.mkdir()
    seen: list[dict] = []
    results = train(prepare(settings, "cpu"), directory, seen.append)
    return results, seen


@pytest.mark.parametrize("budget", [1, 150, 100_000])
def test_gradients_do_not_depend_on_micro_batches(base_folder: Path, tmp_path: Path, budget: int) -> None:
    """Against plain transformers, one text at a time."""
    rows = [{**row, "margin": 0.1 * i} for i, row in enumerate(toy_rows(9))]
    settings = settings_for(base_folder, write_rows(tmp_path / "p.jsonl", rows), micro_batch_tokens=budget)
    settings.pairs.margin_field = "margin"
    settings.trainer.label_smoothing = 0.1
    prepared = prepare(settings, "cpu")
    model, head_is_new = load_for_training(prepared.base, "cpu", seed=0)
    assert head_is_new
    pairs = prepared.train.pairs
    trainer = RewardTrainer(model, settings.trainer, "float32", 10)
    loss, margins = trainer.accumulate(pairs)
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for pair, margin in zip(pairs, margins, strict=True):
        chosen, rejected = (model(input_ids=torch.tensor([ids])).logits[0, 0] for ids in (pair.chosen, pair.rejected))
        assert (chosen - rejected).item() == pytest.approx(margin, abs=1e-5)
        lead = chosen - rejected - pair.margin
        one = 0.9 * torch.log1p(torch.exp(-lead)) + 0.1 * torch.log1p(torch.exp(lead))
        (one / len(pairs)).backward()
        total += one.item() / len(pairs)
    assert loss == pytest.approx(total, abs=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=2e-6, rtol=1e-4)


def test_a_language_model_becomes_a_reward_model(base_folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "p.jsonl", toy_rows(64))
    settings = settings_for(base_folder, rows)
    results, seen = trained(settings, tmp_path / "run")
    assert results.head_is_new and results.num_updates == 18 == len(seen)
    assert [line["pairs"] for line in seen] == [8] * 18
    assert np.mean([line["loss"] for line in seen[:3]]) > 0.5
    assert np.mean([line["loss"] for line in seen[-3:]]) < 0.2
    assert results.held_out.accuracy.value is not None and results.held_out.accuracy.value >= 0.9
    assert results.held_out.num_prompts == 16
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == seen
    assert [line["update"] for line in lines if "held_out/accuracy" in line] == [5, 10, 15]
    expected = [3e-3 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * u / 17))) for u in range(18)]
    assert [line["lr"] for line in lines] == pytest.approx(expected)
    # The export is a reward model like any other, and its figures are those of the scorer.
    scorer = ClassifierScorer(
        "m",
        RewardModelSettings(path=str(tmp_path / "run" / "export"), dtype="float32", max_tokens=128),
        "cpu",
    )
    held_out = prepare(settings, "cpu").split.held_out
    margins = scorer.score_texts([p.chosen for p in held_out], "full") - scorer.score_texts(
        [p.rejected for p in held_out], "full"
    )
    assert results.held_out.mean_margin == pytest.approx(margins.mean(), abs=1e-5)
    assert results.held_out.accuracy.value == pytest.approx((margins > 0).mean())
    assert results.largest_difference_of_export < 1e-4
    assert RewardTraining.read(tmp_path / "run") == results


def test_the_same_training_twice_has_the_same_bits(base_folder: Path, tmp_path: Path) -> None:
    settings = settings_for(base_folder, write_rows(tmp_path / "p.jsonl", toy_rows(20)), epochs=1)
    weights = []
    for name in ("one", "two"):
        trained(settings, tmp_path / name)
        weights.append(load_file(tmp_path / name / "export" / "model.safetensors"))
        torch.randn(3)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    trained(replace(settings, seed=1), tmp_path / "three")
    other = load_file(tmp_path / "three" / "export" / "model.safetensors")
    assert not torch.equal(weights[0]["score.weight"], other["score.weight"])


def test_a_reward_model_is_trained_further(base_folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "p.jsonl", toy_rows(20))
    trained(settings_for(base_folder, rows, epochs=1), tmp_path / "first")
    export = tmp_path / "first" / "export"
    results, _ = trained(settings_for(export, rows, max_updates=1, lr=0.0), tmp_path / "second")
    assert not results.head_is_new and results.num_updates == 1
    before, after = (load_file(one / "model.safetensors") for one in (export, tmp_path / "second" / "export"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bfloat16_export_and_gradient_checkpointing(base_folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "p.jsonl", toy_rows(16))
    settings = settings_for(base_folder, rows, epochs=1, gradient_checkpointing=True)
    settings.base.dtype = "bfloat16"
    results, _ = trained(settings, tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "export", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert results.largest_difference_of_export < 0.1


def test_base_without_a_padding_token(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path / "base", pad=False)
    rows = write_rows(tmp_path / "p.jsonl", toy_rows(16))
    results, _ = trained(settings_for(folder, rows, epochs=1), tmp_path / "run")
    config = json.loads((tmp_path / "run" / "export" / "config.json").read_text())
    assert config["pad_token_id"] is not None
    assert results.largest_difference_of_export < 1e-4


def test_orders_differ_by_pass_and_seed() -> None:
    orders = [tuple(epoch_order(20, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4 and all(sorted(order) == list(range(20)) for order in orders)
    assert epoch_order(20, 1, 1) == list(orders[3])


def test_a_loss_that_is_not_finite_stops_before_the_step(base_folder: Path, tmp_path: Path) -> None:
    settings = settings_for(base_folder, write_rows(tmp_path / "p.jsonl", toy_rows(16)))
    prepared = prepare(settings, "cpu")
    model, _ = load_for_training(prepared.base, "cpu", seed=0)
    with torch.no_grad():
        model.score.weight[0, 0] = float("nan")
    body = model.model.layers[0].mlp.up_proj.weight.clone()
    with pytest.raises(InvariantError, match=r"update 1: loss nan.*trainer\.lr"):
        RewardTrainer(model, settings.trainer, "float32", 4).update(prepared.train.pairs)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, body)


def test_what_a_user_can_mend(base_folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "p.jsonl", toy_rows(16))
    settings = settings_for(base_folder, rows)
    long = replace(settings, base=replace(settings.base, max_tokens=129))
    with pytest.raises(ConfigError, match=r"base\.max_tokens=129: the model reads at most 128"):
        load_for_training(open_base(long.base), "cpu", 0)
    with pytest.raises(ConfigError, match=r"base\.max_tokens=10: leaves no pair to train on"):
        prepare(replace(settings, base=replace(settings.base, max_tokens=10)), "cpu")
    plain = write_rows(tmp_path / "plain.jsonl", toy_rows(8)[::2])
    with pytest.raises(ConfigError, match=r"pairs\.view=trace: leaves no pair to train on; 3 of 3 read the same"):
        prepare(replace(settings, pairs=replace(settings.pairs, path=str(plain), view="trace")), "cpu")
    with pytest.raises(ConfigError, match=r"base\.path=nowhere"):
        open_base(replace(settings.base, path="nowhere"))
    bare = shutil.copytree(base_folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        open_base(replace(settings.base, path=str(bare)))


def test_padding_stands_on_the_right_and_is_masked(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A causal model would not notice a wrong mask; an encoder would."""
    settings = settings_for(base_folder, write_rows(tmp_path / "p.jsonl", toy_rows(4)))
    model, _ = load_for_training(open_base(settings.base), "cpu", seed=0)
    seen: list[dict] = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: seen.append(inputs) or forward(**inputs))
    RewardTrainer(model, settings.trainer, "float32", 1).scores([[5, 6, 7], [8]])
    pad = model.config.pad_token_id
    assert seen[0]["input_ids"].tolist() == [[5, 6, 7], [8, pad, pad]]
    assert seen[0]["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_norms_and_biases_do_not_decay(base_folder: Path, tmp_path: Path) -> None:
    """As in the policy's training: AdamW without gradients multiplies what decays by 1 - lr * weight_decay."""
    settings = settings_for(base_folder, write_rows(tmp_path / "p.jsonl", toy_rows(8)))
    model, _ = load_for_training(open_base(settings.base), "cpu", 0)
    trainer = RewardTrainer(model, replace(settings.trainer, weight_decay=0.5, lr=0.1), "float32", 4)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer._optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if before[name].dim() > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)
