"""Render every prompt of a set once, before anything starts, so that a prompt that does not fit is found at once."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..conversation import Family
from ..errors import DataError
from ..rollouts import TokenIds
from .prompts import PromptRow, PromptSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def render_prompts(
    prompts: PromptSet,
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    *,
    system_prompt: str | None,
    max_prompt_tokens: int,
    overlong: str = "error",
) -> tuple[PromptSet, list[TokenIds]]:
    """The rows that fit, and token ids, int32 [P], of each in order.

    A row over `max_prompt_tokens` raises DataError with its name, or with overlong="skip" is left out; a warning counts
    the rows left out.
    """
    kept: list[PromptRow] = []
    rendered: list[TokenIds] = []
    for row in prompts.rows:
        ids = family.render_prompt(tokenizer, row.question, system_prompt)
        if len(ids) > max_prompt_tokens and overlong == "skip":
            continue
        if len(ids) > max_prompt_tokens:
            raise DataError(
                f"{prompts.source}, row {row.index + 1} (id {row.id}): {len(ids)} prompt tokens are over "
                f"rollout.max_prompt_tokens={max_prompt_tokens}; raise it, shorten the prompt, or data.overlong=skip"
            )
        kept.append(row)
        rendered.append(np.asarray(ids, dtype=np.int32))
    if num_skipped := len(prompts) - len(kept):
        logger.warning(
            "%s: %d of %d prompts are over rollout.max_prompt_tokens=%d and were left out (data.overlong=skip)",
            prompts.source,
            num_skipped,
            len(prompts),
            max_prompt_tokens,
        )
    return replace(prompts, rows=tuple(kept)), rendered
