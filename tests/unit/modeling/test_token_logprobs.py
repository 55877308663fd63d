import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2ForCausalLM

from lrm_safety.errors import ModelError
from lrm_safety.modeling.packing import pack
from lrm_safety.modeling.token_logprobs import ChunkedHead, TokenLogprobs


def make_pairs(sizes=((3, 5), (1, 1), (7, 9), (2, 4)), seed=0):
    random = np.random.default_rng(seed)
    return [(random.integers(0, 97, p).astype(np.int32), random.integers(0, 97, r).astype(np.int32)) for p, r in sizes]


def plain_results(model, pairs, temperature):
    """Each sequence alone through the plain model; softmax over the whole vocabulary in float64."""
    logprobs, entropies = [], []
    for prompt, response in pairs:
        tokens = torch.from_numpy(np.concatenate((prompt, response))).long()
        with torch.no_grad():
            logits = (
                model(input_ids=tokens[None], use_cache=False).logits[0, len(prompt) - 1 : -1].double() / temperature
            )
        table = torch.log_softmax(logits, dim=-1)
        logprobs += [table[row, token] for row, token in enumerate(response)]
        entropies += [-(row.exp() * row).sum() for row in table]
    return torch.stack(logprobs), torch.stack(entropies)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_equals_one_by_one_full_softmax(tiny_qwen, packing, tied, temperature):
    model, pairs = tiny_qwen(tied), make_pairs()
    expected, expected_entropy = plain_results(model, pairs, temperature)
    logprobs, entropy = TokenLogprobs(model, temperature=temperature, chunk_tokens=4)(pack(pairs, packing=packing))
    assert logprobs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy.double(), expected_entropy, atol=1e-5, rtol=0)
    assert not entropy.requires_grad
    assert expected_entropy.std() > 0.1


def test_granite_hybrid_padded_with_logits_scaling(tiny_granite):
    model, pairs = tiny_granite(), make_pairs()
    expected, expected_entropy = plain_results(model, pairs, 1.0)
    logprobs, entropy = TokenLogprobs(model, temperature=1.0, chunk_tokens=5)(pack(pairs, packing=False))
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy.double(), expected_entropy, atol=1e-5, rtol=0)


def test_softcapping_as_gemma_does():
    capped = {"final_logit_softcapping": 2.0, "attn_implementation": "eager"}
    model = tiny_model(Gemma2ForCausalLM, seed=0, initializer_range=0.4, **capped).eval()
    pairs = make_pairs()
    expected, _ = plain_results(model, pairs, 1.0)
    logprobs, _ = TokenLogprobs(model, temperature=1.0, chunk_tokens=64)(pack(pairs, packing=False))
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_gradient_equals_that_of_the_full_logits(tiny_qwen, tied):
    pairs = make_pairs()
    weights = torch.randn(19, generator=torch.Generator().manual_seed(0))
    model = tiny_qwen(tied)
    total = 0.0
    for (prompt, response), part in zip(pairs, weights.split([len(r) for _, r in pairs]), strict=True):
        tokens = torch.from_numpy(np.concatenate((prompt, response))).long()
        table = torch.log_softmax(model(input_ids=tokens[None], use_cache=False).logits[0, len(prompt) - 1 : -1], -1)
        total = total + (table.gather(1, torch.from_numpy(response).long()[:, None])[:, 0] * part).sum()
    total.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    model.zero_grad()
    logprobs, _ = TokenLogprobs(model, temperature=1.0, chunk_tokens=4)(pack(pairs, packing=True))
    (logprobs * weights).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=2e-4, rtol=1e-4)


def test_logits_of_the_whole_batch_never_exist(tiny_qwen):
    """The largest float tensor of forward and backward with a vocabulary axis has chunk_tokens rows."""
    from torch.utils._python_dispatch import TorchDispatchMode

    rows = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.ndim == 2 and result.shape[1] == 97:
                rows.append(result.shape[0])
            return result

    pairs = make_pairs(((2, 40), (3, 50)))
    module = TokenLogprobs(tiny_qwen(), temperature=1.0, chunk_tokens=16)
    with Watch():
        logprobs, _ = module(pack(pairs, packing=True))
        logprobs.sum().backward()
    # 32 is the hidden size: the transposed gradient of the output weight is [32, 97].
    assert max(row for row in rows if row != 32) == 16


def test_a_token_that_cannot_be_drawn_has_no_entropy():
    """Logits 0, ln 3 and -inf: probabilities 1/4, 3/4 and 0."""
    output = torch.nn.Linear(2, 3)
    with torch.no_grad():
        output.weight.zero_()
        output.bias.copy_(torch.tensor([0.0, math.log(3.0), -math.inf]))
    head = ChunkedHead(logit_divisor=1.0, softcap=None, chunk_tokens=1)
    logprobs, entropy = head(torch.ones(2, 2), torch.tensor([1, 2]), output, 1.0)
    assert logprobs.tolist() == pytest.approx([math.log(0.75), -math.inf])
    assert entropy.tolist() == pytest.approx([-0.25 * math.log(0.25) - 0.75 * math.log(0.75)] * 2)


def test_dummy_is_empty_with_a_gradient_path(tiny_qwen):
    model = tiny_qwen()
    logprobs, entropy = TokenLogprobs(model, temperature=1.0, chunk_tokens=4)(pack([], packing=True))
    assert logprobs.shape == entropy.shape == (0,)
    logprobs.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_unknown_meaning_of_logits_scaling_is_refused(tiny_qwen):
    with pytest.raises(ModelError, match="logits_scaling"):
        TokenLogprobs(tiny_qwen(logits_scaling=2.0), temperature=1.0, chunk_tokens=4)


class Divisions(TorchDispatchMode):
    """Counts divisions of tables [rows, `columns`]."""

    def __init__(self, columns):
        super().__init__()
        self.columns, self.count = columns, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.div and args[0].shape[-1] == self.columns:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("divisor", "temperature", "divisions"), [(1.0, 1.0, 0), (1.0, 0.5, 1), (4.0, 1.0, 1), (4.0, 0.5, 2)]
)
def test_what_divides_by_one_is_left_out_and_changes_no_bit(divisor, temperature, divisions):
    generator = torch.Generator().manual_seed(3)
    output = torch.nn.Linear(8, 31, bias=False)
    hidden, targets = torch.randn(10, 8, generator=generator), torch.randint(0, 31, (10,), generator=generator)
    head = ChunkedHead(divisor, None, chunk_tokens=16)

    mine = hidden.clone().requires_grad_()
    with Divisions(31) as watch:
        values = head(mine, targets, output, temperature)
        forward = watch.count
        values[0].sum().backward()
    # Backward: the chunk's forward pass again, and the gradient of each division, which is one.
    assert (forward, watch.count) == (divisions, 3 * divisions)

    theirs = hidden.clone().requires_grad_()
    logits = output(theirs).float() / divisor / temperature
    table = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    chosen = logits.gather(1, targets[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)
    chosen.sum().backward()
    assert torch.equal(values[0], chosen)
    assert torch.equal(values[1], -(table.exp() * table).sum(dim=-1))
    assert torch.equal(mine.grad, theirs.grad)
