"""Supervised updates of two real ZeRO-3 ranks against a plain AdamW loop over masked cross-entropy in one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trainer_ranks import (
    Ranks,
    build_folder,
    build_spec,
    by_index,
    exported,
    make_sequences,
    mini_batches_of,
    plain_optimizer,
    plain_scores,
    plain_step,
    run_updates,
)
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Two ranks without an algorithm, and without engines whose temperature they would use."""
    from lrm_safety.workers.policy import PolicyWorker

    folder = tmp_path_factory.mktemp("sft")
    build_folder(folder / "model", "tied-packed")
    spec = replace(build_spec(folder / "model", "tied-packed"), algorithm=None, engines=None)
    with Ranks(folder, PolicyWorker, spec) as ranks:
        ranks.call("save", str(folder / "initial"))
        yield ranks


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
    return plain_step(model, optimizer, total / num_tokens, lr)


def test_updates_equal_a_plain_loop_in_one_process(ranks):
    """Three updates; the last has fewer rows than ranks, so that one rank runs a dummy only."""
    ranks.call("load", str(ranks.folder / "initial"))
    updates = [(rows(7), 1e-2), (rows(5, seed=7), 3e-3), (rows(1, seed=9), 1e-3)]
    results = run_updates(ranks, *(mini_batches_of(sequences, lr) for sequences, lr in updates))
    weights = exported(ranks, "updated")

    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    optimizer = plain_optimizer(model)
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
    losses = [sum(result[0].loss for result in run_updates(ranks, batch)) for batch in batches[:4]]
    ranks.call("save", str(ranks.folder / "middle"))
    losses += [sum(result[0].loss for result in run_updates(ranks, batch)) for batch in batches[4:]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.8 * losses[0]
    through = exported(ranks, "through")
    ranks.call("load", str(ranks.folder / "middle"))
    run_updates(ranks, *batches[4:])
    again = exported(ranks, "again")
    assert all(torch.equal(through[name], again[name]) for name in through)


def test_a_row_that_is_no_number_leaves_everything_as_it_was(ranks):
    ranks.call("load", str(ranks.folder / "initial"))
    before = exported(ranks, "before")
    broken = mini_batches_of(rows(4), 1e-2)
    for share in broken:
        share.global_tokens = 1e-320  # the loss overflows
    results = run_updates(ranks, broken)
    assert all(np.isnan(result[0].gradient_norm) for result in results)
    assert all(torch.equal(before[name], value) for name, value in exported(ranks, "unchanged").items())
