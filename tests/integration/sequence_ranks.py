"""One rank of a sequence group without ZeRO-3: what it makes of a packed row, for any architecture of transformers."""

import torch
from tiny_models import tiny_model
from transformers import LlamaForCausalLM

from lrm_safety.modeling import distributed
from lrm_safety.modeling.packed_attention import attend_by_sequence
from lrm_safety.modeling.packing import pack
from lrm_safety.modeling.sequence_parallel import SequenceGroup, to_heads, to_tokens
from lrm_safety.modeling.token_logprobs import TokenLogprobs
from lrm_safety.settings import ClusterSettings


def weights_of(count):
    """What each log-prob counts in the loss: unlike for every token, so that a token in another's place shows."""
    return torch.linspace(-1.0, 2.0, count)


def learn(architecture, sizes, pairs, sequence):
    """Log-probs, entropies and gradients by name of a row. With a group: of its first rank, and summed over it.

    In float64, in which sums in another order are the same to far below what a wrong exchange would change. In float32 one
    process alone is 2e-6 from the truth here, on some processors a little less than on others.
    """
    model = tiny_model(architecture, seed=3, initializer_range=0.2, attn_implementation="sdpa", **sizes).double()
    model.set_experts_implementation("eager")  # torch's grouped products take no float64
    assert attend_by_sequence(model)
    module = TokenLogprobs(model, temperature=0.7, chunk_tokens=5, sequence=sequence)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    logprobs, entropy = module(pack(pairs, packing=True))
    (logprobs * weights_of(len(logprobs))).sum().backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if sequence is not None:
            torch.distributed.all_reduce(gradient, group=sequence.ranks)
        gradients[name] = gradient
    return logprobs.detach(), entropy, gradients


def kept_bytes(pairs, sequence):
    """Memory under the tensors that autograd saves, each once, without gradient checkpointing."""
    # As many key-value heads as there may be ranks: fewer are repeated, and take more than their part.
    sizes = {"num_key_value_heads": 4, "max_position_embeddings": 4096}
    model = tiny_model(LlamaForCausalLM, seed=3, attn_implementation="sdpa", **sizes)
    assert attend_by_sequence(model)
    module = TokenLogprobs(model, temperature=1.0, chunk_tokens=64, sequence=sequence)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logprobs, _ = module(pack(pairs, packing=True))
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del logprobs  # what it holds was alive until here, so that no two tensors had one address
    return sum(kept.values())


class SequenceRank:
    """One process of a group of `count`, and of one of two."""

    def __init__(self, _spec, rank, count):
        self.rank, self.count = rank, count

    def start(self, address, port):
        settings = ClusterSettings()
        distributed.prepare_process(settings, 0)
        distributed.join(settings, address, port, self.rank, self.count)
        self.sequence = distributed.sequence_group(settings, self.count)
        self.pair = distributed.sequence_group(settings, 2)

    def learn(self, architecture, sizes, pairs):
        return learn(architecture, sizes, pairs, self.sequence)

    def kept(self, pairs):
        """Bytes that a row's forward pass keeps for the backward pass, without the weights: alone, and as part of the group."""
        return [kept_bytes(pairs, sequence) for sequence in (None, self.sequence)]

    def exchange(self, query, key, value):
        """Whole rows in; this rank's part of them as its heads' whole rows, and as its tokens again."""
        parts = [tensor.chunk(self.count, dim=2)[self.rank] for tensor in (query, key, value)]
        heads = to_heads(*parts, self.sequence)
        return heads, to_tokens(heads[0].transpose(1, 2), self.sequence)

    def pairs(self):
        """Who sits beside whom in groups of two: position in the group, and the ranks of the group."""
        assert isinstance(self.pair, SequenceGroup)
        return self.pair.rank, self.pair.size, torch.distributed.get_process_group_ranks(self.pair.ranks)
