"""Supervised updates of two real ZeRO-3 ranks against a plain AdamW loop over masked cross-entropy in one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_policy_worker import (
    Ranks,
    build_folder,
    build_spec,
    by_index,
    exported,
    make_sequences,
    mini_batches_of,
    plain_scores,
)
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Two ranks without an algorithm, and without engines whose temperature they would use."""
    from lrm_safety.workers.policy import PolicyWorker

    folder = tmp_path_factory.mktemp("sft")
    build_folder(folder / "model", "tied-packed")
    ranks = Ranks(PolicyWorker, replace(build_spec(folder / "model", "tied-packed"), algorithm=None, engines=None))
    ranks.folder = folder
    ranks.call("save", str(folder / "initial"))
    yield ranks
    ranks.end()


def supervised(ranks, *mini_batches):
    """Each argument is one mini-batch as a list over ranks."""
    return ranks.call_each("update", [(list(of_rank),) for of_rank in zip(*mini_batches, strict=True)])


def rows(count, seed=0):
    """Sequences without advantages, of very different lengths."""
    sequences = make_sequences(count, seed=seed)
    for sequence in sequences:
        sequence.advantages = None
    return sequences


def plain_update(model, optimizer, sequences, lr):
    """Cross-entropy with labels of -100 on prompts, one sequence at a time, over the update's response tokens."""
    num_tokens = sum(len(sequence.response_ids) for sequence in sequences)
    total = 0.0
    for sequence in sequences:
        whole = torch.from_numpy(np.concatenate((sequence.prompt_ids, sequence.response_ids)).astype(np.int64))
        labels = whole.clone()
        labels[: len(sequence.prompt_ids)] = -100
        logits = model(input_ids=whole[None], use_cache=False).logits[0, :-1].double()
        total = total + torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
    total = total / num_tokens
    optimizer.zero_grad()
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return total.item(), norm.item()


def test_updates_equal_a_plain_loop_in_one_process(ranks):
    """Three updates; the last has fewer rows than ranks, so that one rank runs a dummy only."""
    ranks.call("load", str(ranks.folder / "initial"))
    updates = [(rows(7), 1e-2), (rows(5, seed=7), 3e-3), (rows(1, seed=9), 1e-3)]
    results = supervised(ranks, *(mini_batches_of(sequences, lr) for sequences, lr in updates))
    weights = exported(ranks, "updated")

    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-4)
    with torch.no_grad():
        first = {one.index: plain_scores(model, one, 1.0) for one in updates[0][0]}
    for number, (sequences, lr) in enumerate(updates):
        loss, norm = plain_update(model, optimizer, sequences, lr)
        assert sum(result[number].loss for result in results) == pytest.approx(loss, abs=1e-5)
        for result in results:
            assert result[number].gradient_norm == pytest.approx(norm, rel=1e-4)
    model.save_pretrained(ranks.folder / "plain")
    expected = load_file(ranks.folder / "plain" / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0, msg=name)

    reported = by_index(result[0].scores for result in results)
    for index, (logprobs, entropy) in first.items():
        np.testing.assert_allclose(reported[index].logprobs, logprobs.numpy(), atol=1e-5)
        np.testing.assert_allclose(reported[index].entropy, entropy.numpy(), atol=1e-5)


def test_saved_state_continues_bit_for_bit_and_the_loss_falls(ranks):
    ranks.call("load", str(ranks.folder / "initial"))
    batches = [mini_batches_of(rows(6), 1e-2) for _ in range(8)]
    losses = [sum(result[0].loss for result in supervised(ranks, batch)) for batch in batches[:4]]
    ranks.call("save", str(ranks.folder / "middle"))
    losses += [sum(result[0].loss for result in supervised(ranks, batch)) for batch in batches[4:]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.8 * losses[0]
    through = exported(ranks, "through")
    ranks.call("load", str(ranks.folder / "middle"))
    supervised(ranks, *batches[4:])
    again = exported(ranks, "again")
    assert all(torch.equal(through[name], again[name]) for name in through)


def test_a_row_that_is_no_number_leaves_everything_as_it_was(ranks):
    ranks.call("load", str(ranks.folder / "initial"))
    before = exported(ranks, "before")
    broken = mini_batches_of(rows(4), 1e-2)
    for share in broken:
        share.global_tokens = 1e-320  # the loss overflows
    results = supervised(ranks, broken)
    assert all(np.isnan(result[0].gradient_norm) for result in results)
    assert all(torch.equal(before[name], value) for name, value in exported(ranks, "unchanged").items())
