"""Forward passes over micro-batches, with results per sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..rollouts import MicroBatch, TokenScores, TrainingSequence
from .packing import PackedBatch, pack

Forward = Callable[[PackedBatch], tuple[Tensor, Tensor]]


def pack_sequences(sequences: Sequence[TrainingSequence], *, packing: bool, device: torch.device) -> PackedBatch:
    """The sequences of one micro-batch on `device`."""
    pairs = [(sequence.prompt_ids, sequence.response_ids) for sequence in sequences]
    return pack(pairs, packing=packing).to(device)


def split_scores(sequences: Sequence[TrainingSequence], logprobs: Tensor, entropy: Tensor) -> list[TokenScores]:
    """Cut the flat results of one micro-batch into float32 numpy arrays per sequence."""
    lengths = [len(sequence.response_ids) for sequence in sequences]
    parts = (values.detach().float().cpu().split(lengths) for values in (logprobs, entropy))
    return [
        TokenScores(sequence.index, one.numpy().copy(), other.numpy().copy())
        for sequence, one, other in zip(sequences, *parts, strict=True)
    ]


def score_micro_batches(
    forward: Forward, micro_batches: Sequence[MicroBatch], *, packing: bool, device: torch.device
) -> list[TokenScores]:
    """Log-probs and entropies of every sequence, in the order of the micro-batches; no gradients.

    An empty micro-batch runs as a dummy and adds nothing: under ZeRO-3 every rank must pass equally many.
    """
    scores = []
    with torch.no_grad():
        for sequences in micro_batches:
            logprobs, entropy = forward(pack_sequences(sequences, packing=packing, device=device))
            scores += split_scores(sequences, logprobs, entropy)
    return scores
