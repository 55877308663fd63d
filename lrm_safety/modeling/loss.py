"""What an update minimises: the loss of one micro-batch, and the parameters that weight decay holds back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..algorithm.losses import aggregate, clipped_surrogate, kl_loss
from ..algorithm.mismatch import importance_weights
from ..rollouts import MiniBatch, TrainingSequence
from ..settings import AlgorithmSettings
from ..settings.training import CORRECTIONS


def policy_loss(
    logprobs: Tensor,
    sequences: Sequence[TrainingSequence],
    mini_batch: MiniBatch,
    algorithm: AlgorithmSettings,
    *,
    num_micro_batches: float,
    world_size: int,
) -> tuple[Tensor, Tensor]:
    """Scalar to call backward on: `w * clipped surrogate + kl_coef * KL`, aggregated over the whole update. Beside it the
    part of it that is the KL term, without a gradient.

    Sequences without `old_logprobs` take the current ones (detached): rho is 1. The weight w corrects the mismatch of
    engine and trainer, and compares the OLD log-probs with the engine's; without `rollout_logprobs` it is 1.

    Args:
        logprobs: float32 [total response tokens] of `sequences` in order, differentiable; empty for a dummy.
        num_micro_batches: real micro-batches of all ranks in this update, divided by `world_size`.

    Raises:
        ValueError: a sequence lacks a field that the loss needs, or has it with another length.
    """
    old = _flat(sequences, "old_logprobs", logprobs, missing=logprobs.detach())
    advantages = _flat(sequences, "advantages", logprobs)
    bounds = (algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip)
    loss = clipped_surrogate(logprobs, old, advantages, *bounds).token_loss
    if algorithm.correction != "off":
        rollout = _flat(sequences, "rollout_logprobs", logprobs, missing=old)
        correction = CORRECTIONS.get(algorithm.correction, "algorithm.correction")
        loss = loss * importance_weights(old, rollout, correction, algorithm.correction_cap)
    kl_term = torch.zeros_like(loss)
    if mini_batch.kl_coef > 0.0:
        reference = _flat(sequences, "reference_logprobs", logprobs)
        kl_term = mini_batch.kl_coef * kl_loss(logprobs, reference, algorithm.kl.estimator, algorithm.kl.clamp)
        loss = loss + kl_term
    lengths = torch.tensor([len(one.response_ids) for one in sequences], dtype=torch.int64, device=loss.device)

    def over_the_update(values: Tensor) -> Tensor:
        return aggregate(
            values,
            lengths,
            algorithm.aggregation,
            global_tokens=mini_batch.global_tokens,
            global_responses=mini_batch.global_responses,
            num_micro_batches=num_micro_batches,
            world_size=world_size,
        )

    return over_the_update(loss), over_the_update(kl_term.detach())


def _flat(sequences: Sequence[TrainingSequence], name: str, like: Tensor, missing: Tensor | None = None) -> Tensor:
    """A per-token field as one flat tensor; `missing` (flat too) stands in where a sequence has None."""
    parts = [like.detach()[:0]]
    start = 0
    for sequence in sequences:
        stop = start + len(sequence.response_ids)
        values = getattr(sequence, name)
        if values is not None:
            if len(values) != stop - start:
                raise ValueError(f"sequence {sequence.index}: {len(values)} {name} for {stop - start} tokens")
            parts.append(torch.from_numpy(np.array(values, dtype=np.float32)).to(like.device))
        elif missing is not None:
            parts.append(missing[start:stop])
        else:
            raise ValueError(f"sequence {sequence.index} has no {name}")
        start = stop
    return torch.cat(parts)


def supervised_loss(logprobs: Tensor, *, global_tokens: int, world_size: int) -> Tensor:
    """Scalar to call backward on: negative log-likelihood, mean over the response tokens of the whole update.

    Micro-batches are summed and ranks averaged by the trainer, so that the step's loss does not depend on the split; see
    `algorithm.aggregate`, mode `token_mean`. Prompts count nowhere: they have no log-probs here.

    Args:
        logprobs: float32 [response tokens of the micro-batch] at temperature 1, differentiable; empty for a dummy, whose
            loss and gradient are 0 while backward still runs through the graph.
        global_tokens: response tokens of the update over every rank and micro-batch.
        world_size: number of data-parallel ranks.
    """
    return -logprobs.sum() * (world_size / global_tokens)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) do not; frozen parameters are left out. Partitioned parameters are told apart
    by their whole shape."""
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        shape = getattr(parameter, "ds_shape", parameter.shape)
        (matrices if len(shape) > 1 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
