"""Micro-batches through a model: one packed row or padded rows, results cut apart again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..progress import PROGRESS
from ..rollouts import MicroBatch, TokenIds, TokenScores, TrainingSequence
from .packed_attention import Borders


@dataclass(frozen=True)
class PackedBatch:
    """Input of one forward pass. `rows * columns` positions hold N sequences with R response tokens in all."""

    input_ids: Tensor
    """[rows, columns] int64."""
    position_ids: Tensor
    """[rows, columns] int64, from 0 in every sequence."""
    attention_mask: Tensor | None
    """[rows, columns] int64 when padded. None when packed: the attention kernels of transformers find the borders of
    the sequences in `position_ids`, and only when there is no mask (even one of ones would let sequences mix)."""
    predict: Tensor
    """[max(R, 1)] int64, flat positions whose output predicts each response token, in the order of the sequences."""
    targets: Tensor
    """[max(R, 1)] int64, the response tokens."""
    lengths: Tensor
    """[N] int64, response tokens of each sequence; empty for a dummy; of a part of a row all that it has. Stays on the CPU."""
    borders: Borders | None = None
    """Of the sequences of a packed row, prompts and responses, the dummy's included; None when padded."""

    @property
    def num_response_tokens(self) -> int:
        """R, without waiting for the device. A dummy has 0, though it runs one made-up token through the model."""
        return int(self.lengths.sum())

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            attention_mask=None if self.attention_mask is None else self.attention_mask.to(device),
            predict=self.predict.to(device),
            targets=self.targets.to(device),
            lengths=self.lengths,
            borders=None if self.borders is None else self.borders.to(device),
        )


def pack(sequences: Sequence[tuple[TokenIds, TokenIds]], *, packing: bool) -> PackedBatch:
    """Lay out (prompt_ids, response_ids) pairs for one forward pass.

    Packed: one row, sequences end to end. Padded: a row each, filled up on the right. Which positions count is known
    from lengths, never from `token == pad`: in the R1-Distill family pad and end-of-sequence are one token.
    No sequences give a dummy of two tokens, which costs next to nothing and keeps ZeRO-3's collectives in step.

    Raises:
        ValueError: a prompt or response is empty (a token without context has no log-prob).
    """
    if any(len(prompt) == 0 or len(response) == 0 for prompt, response in sequences):
        raise ValueError("every prompt and every response needs at least one token")
    lengths = torch.tensor([len(response) for _, response in sequences], dtype=torch.int64)
    if not sequences:
        token = np.zeros(1, dtype=np.int32)
        sequences = [(token, token)]
    whole = [np.concatenate((prompt, response)).astype(np.int64) for prompt, response in sequences]
    widths = [len(tokens) for tokens in whole]
    columns = sum(widths) if packing else max(widths)
    starts = np.cumsum([0, *widths[:-1]]) if packing else np.arange(len(whole)) * columns

    num_positions = columns if packing else columns * len(whole)
    input_ids = np.zeros(num_positions, dtype=np.int64)
    position_ids = np.zeros(num_positions, dtype=np.int64)
    mask = np.zeros(num_positions, dtype=np.int64)
    predict, targets = [], []
    for start, tokens, (prompt, response) in zip(starts, whole, sequences, strict=True):
        stop = start + len(tokens)
        input_ids[start:stop] = tokens
        position_ids[start:stop] = np.arange(len(tokens))
        mask[start:stop] = 1
        predict.append(np.arange(start + len(prompt) - 1, stop - 1))
        targets.append(response.astype(np.int64))

    def rows(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.reshape(-1, columns))

    return PackedBatch(
        input_ids=rows(input_ids),
        position_ids=rows(position_ids),
        attention_mask=None if packing else rows(mask),
        predict=torch.from_numpy(np.concatenate(predict)),
        targets=torch.from_numpy(np.concatenate(targets)),
        lengths=lengths,
        borders=Borders.of(widths) if packing else None,
    )


def part_of_row(batch: PackedBatch, rank: int, size: int) -> tuple[PackedBatch, list[int]]:
    """What one of S ranks reads of a packed row, and how many response tokens each of them predicts.

    The row is filled up to a multiple of S by a sequence that predicts nothing, and cut into S equal parts wherever that falls;
    a token is predicted where its predecessor lies. Positions stay those within the sequences, and `borders` those of the whole
    row. A part that predicts nothing has a made-up target, as a dummy has.
    """
    assert batch.borders is not None and batch.input_ids.shape[0] == 1, "only a packed row is cut"
    columns = batch.input_ids.shape[1]
    filling = -columns % size
    each = (columns + filling) // size
    cuts = torch.arange(0, size + 1, device=batch.predict.device) * each
    bounds = torch.searchsorted(batch.predict, cuts).tolist()  # `predict` rises
    counts = [stop - start for start, stop in pairwise(bounds)]
    own = slice(bounds[rank], bounds[rank + 1])
    predict, targets = batch.predict[own] - rank * each, batch.targets[own]
    if not counts[rank]:
        predict, targets = torch.zeros_like(batch.predict[:1]), torch.zeros_like(batch.targets[:1])

    def cut(row: Tensor) -> Tensor:
        return pad(row, (0, filling))[:, rank * each : (rank + 1) * each].contiguous()

    borders = batch.borders
    if filling:
        borders = Borders.of([*borders.lengths, filling], borders.starts.device)
    part = PackedBatch(
        input_ids=cut(batch.input_ids),
        position_ids=cut(batch.position_ids),
        attention_mask=None,
        predict=predict,
        targets=targets,
        lengths=torch.tensor([counts[rank]], dtype=torch.int64),
        borders=borders,
    )
    return part, counts


Forward = Callable[[PackedBatch], tuple[Tensor, Tensor]]


def pack_sequences(sequences: Sequence[TrainingSequence], *, packing: bool, device: torch.device) -> PackedBatch:
    """The sequences of one micro-batch on `device`."""
    pairs = [(sequence.prompt_ids, sequence.response_ids) for sequence in sequences]
    return pack(pairs, packing=packing).to(device)


def num_tokens(sequences: MicroBatch) -> int:
    """Prompt and response tokens of a micro-batch."""
    return sum(sequence.num_tokens for sequence in sequences)


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
        for sequences in PROGRESS.pieces(micro_batches, "tokens", num_tokens):
            logprobs, entropy = forward(pack_sequences(sequences, packing=packing, device=device))
            scores += split_scores(sequences, logprobs, entropy)
    return scores
