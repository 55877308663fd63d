"""The supervised loss against cross-entropy over whole logits with the prompt masked out."""

import numpy as np
import pytest
import torch

from lrm_safety.batching import plan_micro_batches
from lrm_safety.modeling.loss import supervised_loss
from lrm_safety.modeling.packing import pack
from lrm_safety.modeling.token_logprobs import TokenLogprobs

VOCABULARY = 97


def sequences(count=5):
    random = np.random.default_rng(2)
    sizes = [(int(random.integers(1, 8)), int(random.integers(1, 15))) for _ in range(count)]
    return [tuple(random.integers(0, VOCABULARY, size).astype(np.int32) for size in pair) for pair in sizes]


def masked_cross_entropy(model, pairs):
    """Padded rows, labels of -100 on prompts and padding, one mean over all that is left; float64."""
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.int64)
    labels = torch.full((len(pairs), width), -100)
    mask = torch.zeros(len(pairs), width, dtype=torch.int64)
    for row, (prompt, response) in enumerate(pairs):
        whole = torch.from_numpy(np.concatenate((prompt, response)).astype(np.int64))
        ids[row, : len(whole)] = whole
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
        mask[row, : len(whole)] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert logits.dtype == torch.float64
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


@pytest.mark.parametrize("packing", [True, False])
def test_equals_cross_entropy_however_the_update_is_cut(tiny_qwen, packing):
    """Two ranks whose gradients are averaged, several micro-batches that are summed; sampling temperature left aside."""
    pairs = sequences()
    model = tiny_qwen().double().eval()
    expected = masked_cross_entropy(model, pairs)
    expected.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    module = TokenLogprobs(model, temperature=0.6, chunk_tokens=4)
    num_tokens = sum(len(response) for _, response in pairs)
    plan = plan_micro_batches([len(p) + len(r) for p, r in pairs], 2, 24, packing=packing)
    assert sum(len(micro_batch) > 0 for rank in plan for micro_batch in rank) > 2
    total = 0.0
    for rank in plan:
        for micro_batch in rank:
            logprobs, _ = module(pack([pairs[position] for position in micro_batch], packing=packing), 1.0)
            loss = supervised_loss(logprobs, global_tokens=num_tokens, world_size=2) / 2  # the average over ranks
            loss.backward()
            total += loss.item()
    assert total == pytest.approx(expected.item(), abs=1e-6)
    assert total > 1.0
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=2e-6, rtol=1e-4, msg=name)


def test_by_hand():
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    loss = supervised_loss(logprobs, global_tokens=7, world_size=2)
    loss.backward()
    assert loss.item() == pytest.approx(2 * 3.5 / 7)
    assert logprobs.grad.tolist() == pytest.approx([-2 / 7] * 3)


def test_a_dummy_is_zero_with_a_gradient_path():
    logprobs = torch.ones(1, requires_grad=True)
    loss = supervised_loss(logprobs[:0], global_tokens=5, world_size=2)
    loss.backward()
    assert loss.item() == 0.0 and logprobs.grad.tolist() == [0.0]
