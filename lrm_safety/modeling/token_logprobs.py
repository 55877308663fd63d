"""Per-token log-probs and entropy of responses, from hidden states, a chunk of tokens at a time.

A vocabulary of 152,000 makes the logits of one 8,192-token micro-batch 5 GB in float32, and their softmax and gradient
as much again. Here only `chunk_tokens` rows of logits exist at one time, forward and backward: each chunk is
recomputed in the backward pass (gradient checkpointing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from ..errors import ModelError
from .packed_attention import borders_for
from .packing import PackedBatch, part_of_row
from .sequence_parallel import SequenceGroup, gather_tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class ChunkedHead(nn.Module):
    """Output projection, log-softmax and entropy over chunks of tokens.

    It uses the weight of the model's `lm_head` but does not own it: the weight keeps its one name, tied or not. It is
    a module so that ZeRO-3 gathers that weight once around all chunks (see `zero.register_head`): calling `lm_head`
    chunk by chunk would gather it once per chunk, and ranks with different numbers of chunks would wait for ever.
    """

    def __init__(self, logit_divisor: float, softcap: float | None, chunk_tokens: int) -> None:
        super().__init__()
        self.logit_divisor = logit_divisor
        self.softcap = softcap
        self.chunk_tokens = chunk_tokens

    def forward(self, hidden: Tensor, targets: Tensor, output: nn.Linear, temperature: float) -> Tensor:
        """[2, R] float32: log-probs of `targets` (differentiable) over entropies (constants).

        One tensor, because ZeRO-3 counts a module's outputs to know when its backward pass begins, and an output
        without gradient would never be counted off.

        Args:
            hidden: [R, hidden size] at the predicting positions.
            targets: [R] int64.
            output: the model's `lm_head`.
            temperature: divides the logits.
        """
        chunks = []
        for rows, ids in zip(hidden.split(self.chunk_tokens), targets.split(self.chunk_tokens), strict=True):
            arguments = (rows, ids, output, temperature)
            if torch.is_grad_enabled():
                chunks.append(checkpoint(self._chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
            else:
                chunks.append(self._chunk(*arguments))
        return torch.cat(chunks, dim=1)

    def _chunk(self, hidden: Tensor, targets: Tensor, output: nn.Linear, temperature: float) -> Tensor:
        logits = linear(hidden, output.weight, output.bias).float()
        # A division by one changes no bit, and copies the logits, forward, recomputed and backward.
        if self.logit_divisor != 1.0:
            logits = logits / self.logit_divisor
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        if temperature != 1.0:
            logits = logits / temperature
        normaliser = torch.logsumexp(logits, dim=-1)
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
        with torch.no_grad():
            # A token that cannot be drawn (a logit of -inf) adds nothing: 0 * -inf would be no number.
            every = (logits - normaliser[:, None]).clamp_(min=torch.finfo(logits.dtype).min)
            entropy = -every.exp().mul_(every).sum(dim=-1)
        return torch.stack((logprobs, entropy))


class TokenLogprobs(nn.Module):
    """A causal language model that answers with log-probs and entropies of response tokens instead of logits."""

    def __init__(
        self, model: PreTrainedModel, *, temperature: float, chunk_tokens: int, sequence: SequenceGroup | None = None
    ) -> None:
        """
        Args:
            model: a Hugging Face causal language model.
            temperature: sampling temperature; logits are divided by it as the rollout engine does.
            chunk_tokens: tokens whose logits exist at one time.
            sequence: the ranks that read a packed row together; None: each reads rows of its own.
        """
        super().__init__()
        self.model = model
        self.sequence = sequence
        self.temperature = temperature
        config = model.config.get_text_config()
        self.head = ChunkedHead(
            logit_divisor=_logit_divisor(config),
            softcap=getattr(config, "final_logit_softcapping", None),
            chunk_tokens=chunk_tokens,
        )

    def forward(self, batch: PackedBatch, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """Log-probs [R] (float32, differentiable) and entropies in nats [R] (float32, detached) of `batch`'s response
        tokens, sequence after sequence. A dummy gives empty tensors that still carry a gradient path.
        `temperature` replaces the usual one for this call.

        The ranks of a sequence group are called with the same batch and get the same values; on each those of its own part of
        the row are differentiable."""
        part, counts = batch, [0]
        if self.sequence is not None:
            part, counts = part_of_row(batch, self.sequence.rank, self.sequence.size)
        hidden = self.model.get_decoder()(
            input_ids=part.input_ids,
            attention_mask=part.attention_mask,
            position_ids=part.position_ids,
            # A cache would switch the block mask of packed rows off, silently.
            use_cache=False,
            **borders_for(self.model, part.borders, self.sequence),
        ).last_hidden_state
        hidden = hidden.flatten(0, 1).index_select(0, part.predict)
        values = self.head(
            hidden,
            part.targets,
            self.model.get_output_embeddings(),
            self.temperature if temperature is None else temperature,
        )
        if self.sequence is not None:
            values = gather_tokens(values[:, : part.num_response_tokens], counts, self.sequence)
        logprobs, entropy = values[:, : batch.num_response_tokens]
        return logprobs, entropy.detach()


def _logit_divisor(config: PretrainedConfig) -> float:
    """Granite divides its logits by `logits_scaling`; other families read that key differently."""
    scaling = getattr(config, "logits_scaling", None) or 1.0
    if scaling != 1.0 and not config.model_type.startswith("granite"):
        raise ModelError(f"logits_scaling={scaling} of a {config.model_type} model is not supported: use another model")
    return float(scaling)
