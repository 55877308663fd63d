"""Rows split over real gloo ranks against the same rows on one: log-probs, gradients, updates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sequence_ranks import SequenceRank, learn
from trainer_ranks import (
    Ranks,
    build_folder,
    build_spec,
    by_index,
    exported,
    make_sequences,
    micro_batches_of,
    mini_batches_of,
    plain_optimizer,
    plain_policy_update,
    plain_scores,
    run_updates,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    MixtralForCausalLM,
    Phi3ForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    Qwen3MoeForCausalLM,
)

ARCHITECTURES = {
    "qwen3": (Qwen3ForCausalLM, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2ForCausalLM, {"num_key_value_heads": 4}),
    "llama of one key-value head": (LlamaForCausalLM, {"num_key_value_heads": 1}),
    "llama of 12 heads on 3": (
        LlamaForCausalLM,
        {"hidden_size": 48, "num_attention_heads": 12, "num_key_value_heads": 3},
    ),
    "mistral with a window": (MistralForCausalLM, {"sliding_window": 5}),
    "gemma3 with windows in some layers": (
        Gemma3ForCausalLM,
        {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
    ),
    "granite": (GraniteForCausalLM, {"attention_multiplier": 0.3, "logits_scaling": 2.0}),
    "phi3": (Phi3ForCausalLM, {"pad_token_id": 0, "eos_token_id": 1}),
    "mixtral": (MixtralForCausalLM, {"num_local_experts": 4, "sliding_window": None}),
    "qwen3 with experts": (
        Qwen3MoeForCausalLM,
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
}


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory):
    with Ranks(tmp_path_factory.mktemp("ranks"), SequenceRank, None, request.param) as started:
        yield started


def rows(sizes, seed=0):
    random = np.random.default_rng(seed)
    return [(random.integers(0, 97, p).astype(np.int32), random.integers(0, 97, r).astype(np.int32)) for p, r in sizes]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_over_ranks_is_the_row_on_one(ranks, name):
    """33 tokens, which neither two nor four divide; sequences that lie over two and over three ranks."""
    architecture, sizes = ARCHITECTURES[name]
    pairs = rows([(3, 5), (1, 1), (7, 12), (2, 2)])
    logprobs, entropy, gradients = learn(architecture, sizes, pairs, None)
    for own_logprobs, own_entropy, own_gradients in ranks.call("learn", architecture, sizes, pairs):
        torch.testing.assert_close(own_logprobs, logprobs, atol=2e-6, rtol=0)
        torch.testing.assert_close(own_entropy, entropy, atol=2e-6, rtol=0)
        assert own_gradients.keys() == gradients.keys()
        for key, gradient in gradients.items():
            scale = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(own_gradients[key] / scale, gradient / scale, atol=5e-6, rtol=0, msg=key)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1


@pytest.mark.parametrize("sizes", [[], [(1, 1)], [(30, 2)], [(1, 31)]])
def test_ranks_that_predict_nothing(ranks, sizes):
    """A dummy, fewer tokens than ranks, responses on the last rank alone."""
    architecture, _ = ARCHITECTURES["qwen3"]
    logprobs, _, gradients = learn(architecture, {}, rows(sizes), None)
    for own_logprobs, own_entropy, own_gradients in ranks.call("learn", architecture, {}, rows(sizes)):
        assert own_logprobs.shape == own_entropy.shape == logprobs.shape
        torch.testing.assert_close(own_logprobs, logprobs, atol=2e-6, rtol=0)
        for key, gradient in gradients.items():
            torch.testing.assert_close(own_gradients[key], gradient, atol=1e-5, rtol=1e-5, msg=key)


def test_each_rank_gets_its_heads_of_all_tokens_and_its_tokens_back(ranks):
    count = len(ranks.call("pairs"))
    query = torch.arange(8 * 12 * 3.0).view(1, 8, 12, 3)
    key = -torch.arange(2 * 12 * 3.0).view(1, 2, 12, 3)
    value = 0.5 - torch.arange(2 * 12 * 5.0).view(1, 2, 12, 5)
    for rank, ((own_query, own_key, own_value), tokens) in enumerate(ranks.call("exchange", query, key, value)):
        assert torch.equal(own_query, query[:, rank * 8 // count : (rank + 1) * 8 // count])
        # The key-value head that these query heads read: the first of two for the first half of the ranks.
        head = rank * 2 // count
        assert torch.equal(own_key, key[:, head : head + 1]) and torch.equal(own_value, value[:, head : head + 1])
        assert torch.equal(tokens, query[:, :, rank * 12 // count : (rank + 1) * 12 // count].transpose(1, 2))


def test_groups_are_neighbours(ranks):
    for rank, (position, size, members) in enumerate(ranks.call("pairs")):
        assert (position, size) == (rank % 2, 2) and members == [rank - position, rank - position + 1]


def test_a_part_of_a_long_row_keeps_its_part_of_the_memory(ranks):
    """Borders and gathered log-probs are whole on every rank; next to the activations of 1,600 tokens they are nothing."""
    for alone, together in ranks.call("kept", rows([(100, 1500)])):
        count = len(ranks.call("pairs"))
        assert together / alone == pytest.approx(1 / count, rel=0.05)


@pytest.fixture(scope="module", params=[2, 4])
def trainers(request, tmp_path_factory):
    """ZeRO-3 ranks that read rows in twos: one group, and two."""
    from lrm_safety.workers.policy import PolicyWorker

    folder = tmp_path_factory.mktemp("trainers")
    build_folder(folder / "model", "untied-packed")
    spec = build_spec(folder / "model", "untied-packed", sequence_parallel_size=2)
    with Ranks(folder, PolicyWorker, spec, request.param) as started:
        started.count = request.param
        started.call("save", str(folder / "initial"))
        yield started


def of_groups(sequences, count, *, budget=30):
    """[rank][micro-batch], the same for the two ranks of a group."""
    shares = micro_batches_of(sequences, budget, count // 2)
    return [share for share in shares for _ in range(2)]


def test_updates_of_ranks_in_twos_are_those_of_one_process(trainers):
    """Two updates, with clipping, a KL term and correction, then the scores under the new weights; the checkpoint between them
    goes on bit for bit."""
    trainers.call("load", str(trainers.folder / "initial"))
    sequences, later = make_sequences(7), make_sequences(6, seed=3)
    scores = by_index(trainers.call_each("logprobs", [(share,) for share in of_groups(sequences, trainers.count)]))
    model = AutoModelForCausalLM.from_pretrained(trainers.folder / "model", dtype=torch.float32)
    for sequence in sequences:
        with torch.no_grad():
            logprobs, entropy = plain_scores(model, sequence, 0.8)
        np.testing.assert_allclose(scores[sequence.index].logprobs, logprobs.numpy(), atol=1e-5)
        np.testing.assert_allclose(scores[sequence.index].entropy, entropy.numpy(), atol=1e-5)
    near = {name: {s.index: scores[s.index].logprobs + shift for s in sequences} for name, shift in NEAR.items()}
    sequences = [replace(s, **{name: values[s.index] for name, values in near.items()}) for s in sequences]

    optimizer = plain_optimizer(model)
    for number, (batch, lr, kl_coef) in enumerate([(sequences, 1e-2, 0.7), (later, 3e-3, 0.0)]):
        if number:
            trainers.call("save", str(trainers.folder / "between"))
        results = [result for (result,) in run_updates(trainers, mini_batches(batch, lr, kl_coef, trainers.count))]
        loss, norm = plain_policy_update(model, optimizer, batch, lr, kl_coef)
        assert sum(result.loss for result in results) == pytest.approx(loss, abs=1e-5)
        assert [result.gradient_norm for result in results] == pytest.approx([norm] * trainers.count, rel=1e-4)
        assert all(not result.scores and result.loss == 0 for result in results[1::2])
    weights = exported(trainers, "updated")
    model.save_pretrained(trainers.folder / "plain")
    for name, value in load_file(trainers.folder / "plain" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0, msg=name)

    trainers.call("load", str(trainers.folder / "between"))
    run_updates(trainers, mini_batches(later, 3e-3, 0.0, trainers.count))
    again = exported(trainers, "again")
    assert all(torch.equal(weights[name], again[name]) for name in weights)


NEAR = {"old_logprobs": 0.1, "rollout_logprobs": -0.2, "reference_logprobs": 0.3}
"""How far the log-probs of others lie from the policy's."""


def mini_batches(sequences, lr, kl_coef, count):
    """One mini-batch, a share for each rank."""
    (whole,) = mini_batches_of(sequences, lr, kl_coef, count=1)
    return [replace(whole, micro_batches=share) for share in of_groups(sequences, count)]
