"""The loss of one micro-batch in supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor


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
