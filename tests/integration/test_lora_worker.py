"""Adapters on two real ZeRO-3 ranks against one process with peft's layers, and what leaves the ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_sft_worker import rows
from trainer_ranks import (
    RANKS,
    Ranks,
    assert_exported_alike,
    build_folder,
    build_spec,
    by_index,
    exported,
    make_sequences,
    micro_batches_of,
    mini_batches_of,
    plain_policy_update,
    plain_scores,
    run_updates,
)
from transformers import AutoModelForCausalLM

from lrm_safety.modeling.lora import adapter_parameters, add_lora
from lrm_safety.modeling.zero import weights_only
from lrm_safety.settings import LoraSettings
from lrm_safety.workers.policy import PolicyWorker

EXACT = LoraSettings(rank=4, alpha=8.0)
NOISY = LoraSettings(rank=3, alpha=8.0, dropout=0.3)


class InspectedWorker(PolicyWorker):
    def inspect(self):
        """Elements that train, that the optimiser holds on this rank, and a checksum of this rank's frozen shards."""
        trained = sum(p.ds_numel for p in self.model.parameters() if p.requires_grad)
        held = sum(group.numel() for group in self.optimizer.fp32_partitioned_groups_flat)
        frozen = [p.ds_tensor.double() for p in self.model.parameters() if not p.requires_grad]
        whole = sum(p.ds_numel for p in self.model.parameters() if not p.requires_grad)
        return trained, held, sum(map(torch.numel, frozen)), whole, [float(p.sum()) for p in frozen]


def start(folder, flavour, lora, dtype="float32", count=RANKS, **changes):
    if not (folder / "model").exists():
        build_folder(folder / "model", flavour)
    spec = build_spec(folder / "model", flavour, dtype=dtype, lora=lora)
    return Ranks(folder, InspectedWorker, replace(spec, **changes), count)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Float32 with gradient checkpointing, no dropout."""
    with start(tmp_path_factory.mktemp("lora"), "untied-packed", EXACT) as ranks:
        ranks.call("save", str(ranks.folder / "initial"))
        yield ranks


def test_updates_equal_one_process_with_peft_layers(ranks):
    """Before the first update the policy is the reference; then loss, gradient and merged weights of a plain loop."""
    ranks.call("load", str(ranks.folder / "initial"))
    before = ranks.call("inspect")
    base = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    scores = by_index(ranks.call_each("logprobs", [(share,) for share in micro_batches_of(make_sequences(7))]))
    for sequence in make_sequences(7):
        with torch.no_grad():
            np.testing.assert_allclose(
                scores[sequence.index].logprobs, plain_scores(base, sequence, 0.8)[0].numpy(), atol=1e-5
            )

    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    add_lora(model, EXACT, name="tiny", seed=0)
    optimizer = torch.optim.AdamW(adapter_parameters(model).values(), betas=(0.9, 0.95), eps=1e-4, weight_decay=0.1)
    updates = [(make_sequences(7), 3e-2), (make_sequences(1, seed=3), 1e-2), (make_sequences(5, seed=7), 1e-2)]
    results = run_updates(ranks, *(mini_batches_of(sequences, lr) for sequences, lr in updates))
    for number, (sequences, lr) in enumerate(updates):
        loss, norm = plain_policy_update(model, optimizer, sequences, lr, 0.0)
        assert sum(result[number].loss for result in results) == pytest.approx(loss, abs=1e-5)
        for result in results:
            assert result[number].gradient_norm == pytest.approx(norm, rel=1e-4)

    weights = exported(ranks, "updated")
    original = load_file(ranks.folder / "model" / "model.safetensors")
    assert weights.keys() == original.keys()
    for name, value in original.items():
        layer = dict(model.named_modules()).get(name.removesuffix(".weight"))
        if hasattr(layer, "lora_A"):
            up, down = layer.lora_B["default"].weight.double(), layer.lora_A["default"].weight.double()
            expected = (value.double() + 2.0 * (up @ down)).float()
            torch.testing.assert_close(weights[name], expected, atol=1e-5, rtol=0, msg=name)
            assert (weights[name] - value).abs().max() > 1e-3
        else:
            assert torch.equal(weights[name], value), name

    assert ranks.call("inspect") == before, "the frozen shards are what they were"
    for trained, held, frozen, whole, _ in before:
        # As in the unit test: 2 layers, rank 4; each rank holds half, and half of what is frozen.
        assert trained == 2 * 4 * (64 + 2 * 48 + 64 + 3 * 80)
        assert held == trained // 2 and frozen == pytest.approx(whole / 2, rel=0.01)


def test_streamed_weights_equal_the_export_and_load_as_a_plain_model(ranks):
    ranks.call("load", str(ranks.folder / "initial"))
    run_updates(ranks, mini_batches_of(make_sequences(6), 3e-2))
    paths, _ = ranks.call("publish", str(ranks.folder / "version"))
    published = {name: tensor for path in paths for name, tensor in load_file(path).items()}
    weights = exported(ranks, "published")
    assert published.keys() == weights.keys()
    assert all(torch.equal(published[name], weights[name]) for name in weights)

    scores = by_index(ranks.call_each("logprobs", [(share,) for share in micro_batches_of(make_sequences(4))]))
    plain = AutoModelForCausalLM.from_pretrained(ranks.folder / "published", dtype=torch.float32).eval()
    assert not any("lora" in name for name, _ in plain.named_parameters())
    base = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, ranks.folder / "published" / "adapter").eval()
    for sequence in make_sequences(4):
        for model in (plain, adapted):
            with torch.no_grad():
                logprobs, _ = plain_scores(model, sequence, 0.8)
            np.testing.assert_allclose(scores[sequence.index].logprobs, logprobs.numpy(), atol=1e-5)


def test_saved_state_continues_bit_for_bit_with_dropout(tmp_path):
    """Supervised, bfloat16, a tied head, padded rows; the checkpoint holds adapters alone, and one rank takes them over."""
    batches = [mini_batches_of(rows(6), 3e-2) for _ in range(4)]
    with start(tmp_path, "tied-padded", NOISY, dtype="bfloat16", algorithm=None, engines=None) as ranks:
        losses = [sum(result[0].loss for result in run_updates(ranks, batch)) for batch in batches[:2]]
        ranks.call("save", str(tmp_path / "middle"))
        stopped = exported(ranks, "stopped")
        assert_exported_alike(ranks.spec, tmp_path / "middle", ranks.folder / "stopped")
        losses += [sum(result[0].loss for result in run_updates(ranks, batch)) for batch in batches[2:]]
        through = exported(ranks, "through")
        ranks.call("load", str(tmp_path / "middle"))
        again = [sum(result[0].loss for result in run_updates(ranks, batch)) for batch in batches[2:]]
        resumed = exported(ranks, "resumed")
    assert losses[-1] < losses[0]
    assert again == losses[2:]
    assert all(torch.equal(through[name], resumed[name]) for name in through)
    with start(tmp_path, "tied-padded", NOISY, "bfloat16", 1, algorithm=None, engines=None) as alone:
        alone.call("load", str(tmp_path / "middle"))
        same = exported(alone, "stopped-1")
        assert all(torch.equal(stopped[name], same[name]) for name in stopped)
        assert len(run_updates(alone, mini_batches_of(rows(6), 3e-2, count=1))) == 1
    model = load_file(tmp_path / "model" / "model.safetensors")
    assert any(not torch.equal(through[name].float(), model[name].bfloat16().float()) for name in through)

    saved = tmp_path / "middle" / "zero3"
    (file,) = saved.glob("*_rank_0_mp_rank_00_model_states.pt")
    with weights_only():
        state = torch.load(file)
    assert not state["frozen_param_fragments"]
    assert all(".lora_" in name for shapes in state["param_shapes"] for name in shapes)
