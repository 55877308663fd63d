"""Render every prompt of a set once, before anything starts, so that a prompt that does not fit is found at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..conversation import Family
from ..errors import DataError
from ..rollouts import TokenIds
from .prompts import PromptSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_prompts(
    prompts: PromptSet,
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    *,
    system_prompt: str | None,
    max_prompt_tokens: int,
) -> list[TokenIds]:
    """Token ids, int32 [P], of every row in order. Raises DataError naming the first row over `max_prompt_tokens`."""
    rendered = []
    for row in prompts.rows:
        ids = family.render_prompt(tokenizer, row.question, system_prompt)
        if len(ids) > max_prompt_tokens:
            raise DataError(
                f"{prompts.source} row {row.index} (id {row.id}): {len(ids)} prompt tokens are over "
                f"rollout.max_prompt_tokens={max_prompt_tokens}; raise it or shorten the prompt"
            )
        rendered.append(np.asarray(ids, dtype=np.int32))
    return rendered
