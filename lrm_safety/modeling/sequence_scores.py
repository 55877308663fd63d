"""Scores of whole sequences by a sequence-classification model, from padded rows or from one packed row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification

from .packed_attention import Borders, borders_for


def can_pack(model: PreTrainedModel) -> bool:
    """Whether a packed row gives this model's scores: a causal decoder of attention layers, pooled as most are."""
    config = model.config.get_text_config()
    causal = not getattr(config, "use_bidirectional_attention", False) and getattr(config, "is_causal", True)
    pooled_as_most = type(model).forward is GenericForSequenceClassification.forward
    return pooled_as_most and causal and not model._is_stateful


def padded_scores(model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """[n] logits of the model's one output, rows padded on the right."""
    longest = max(map(len, sequences))
    input_ids = torch.full((len(sequences), longest), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
    logits: Tensor = model(
        input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device), use_cache=False
    ).logits
    return logits[:, 0]


def packed_scores(model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """The same of a model that `can_pack`, from one row without padding; the head reads one token of each sequence.

    Like transformers it pools at the last token that is not `pad_id`, which may end a conversation.
    """
    borders = Borders.of([len(ids) for ids in sequences])
    device = model.device
    hidden = model.base_model(
        input_ids=torch.cat([torch.tensor(ids) for ids in sequences])[None].to(device),
        position_ids=torch.cat([torch.arange(len(ids)) for ids in sequences])[None].to(device),
        use_cache=False,
        **borders_for(model, borders.to(device)),
    ).last_hidden_state[0]
    starts = borders.starts[:-1].tolist()
    ends = [start + _last_token(ids, pad_id) for start, ids in zip(starts, sequences, strict=True)]
    logits: Tensor = model.score(hidden[torch.tensor(ends, device=device)])
    return logits[:, 0]


def _last_token(ids: Sequence[int], pad_id: int) -> int:
    """0 where there is nothing but padding."""
    return max((position for position, token in enumerate(ids) if token != pad_id), default=0)
