"""Rows split over real gloo ranks against the same rows on one: log-probs, gradients, updates."""

import numpy as np
import pytest
import torch
from sequence_ranks import SequenceRank, learn
from trainer_ranks import Ranks
from transformers import (
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
    "llama of 12 heads on 3": (LlamaForCausalLM, {"num_attention_heads": 12, "num_key_value_heads": 3}),
    "mistral with a window": (MistralForCausalLM, {"sliding_window": 5}),
    "gemma3 with windows in some layers": (
        Gemma3ForCausalLM,
        {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
    ),
    "granite": (GraniteForCausalLM, {"attention_multiplier": 0.3, "logits_scaling": 2.0}),
    "phi3": (Phi3ForCausalLM, {"pad_token_id": 0, "head_dim": None}),
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
