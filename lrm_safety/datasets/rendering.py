"""Render every prompt of a set once, before anything starts, so that a prompt that does not fit is found at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..conversation import DATE_STRING, Family, PromptRenderer
from ..errors import DataError, ModelError
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
    num_embeddings: int | None = None,
) -> tuple[PromptSet, list[TokenIds]]:
    """The rows that fit, and token ids, int32 [P], of each in order. Control tokens that a question spells out are broken by a
    space; `num_respelled` of the set counts such rows.

    A row over `max_prompt_tokens` raises DataError with its name, or with overlong="skip" is left out; a warning counts
    the rows left out, another those with control tokens. DataError too for a row with a token that the model's embedding of
    `num_embeddings` rows does not have (None: not known).
    """
    renderer = PromptRenderer(family, tokenizer, system_prompt)
    kept: list[PromptRow] = []
    rendered: list[TokenIds] = []
    respelled: list[tuple[PromptRow, str]] = []
    for row in prompts.rows:
        where = f"{prompts.source}, row {row.index + 1} (id {row.id})"
        try:
            prompt = renderer.render(row.question)
        except (DataError, ModelError) as error:
            raise DataError(f"{where}: {error}") from error
        if len(prompt.ids) > max_prompt_tokens and overlong == "skip":
            continue
        if len(prompt.ids) > max_prompt_tokens:
            raise DataError(
                f"{where}: {len(prompt.ids)} prompt tokens are over "
                f"rollout.max_prompt_tokens={max_prompt_tokens}; raise it, shorten the prompt, or data.overlong=skip"
            )
        check_embedded(prompt.ids, num_embeddings, tokenizer, where)
        kept.append(row)
        rendered.append(np.asarray(prompt.ids, dtype=np.int32))
        respelled += [(row, token) for token in prompt.respelled[:1]]
    if num_skipped := len(prompts) - len(kept):
        logger.warning(
            "%s: %d of %d prompts are over rollout.max_prompt_tokens=%d and were left out (data.overlong=skip)",
            prompts.source,
            num_skipped,
            len(prompts),
            max_prompt_tokens,
        )
    warn_of_rendering(renderer, str(prompts.source), respelled, len(kept))
    return replace(prompts, rows=tuple(kept), num_respelled=len(respelled)), rendered


def warn_of_rendering(
    renderer: PromptRenderer, source: str, respelled: Sequence[tuple[PromptRow, str]], num_rows: int
) -> None:
    """One line each for control tokens that were broken (of each such row the first one) and for a date that is not today's."""
    if respelled:
        row, token = respelled[0]
        logger.warning(
            "%s: %d of %d questions spell out control tokens of the model, which are broken by a space (first: %s in row %d)",
            source,
            len(respelled),
            num_rows,
            token,
            row.index + 1,
        )
    if renderer.respelled_in_system_prompt:
        logger.warning(
            "model.system_prompt: spells out the control token %s, which is broken by a space",
            renderer.respelled_in_system_prompt[0],
        )
    if renderer.writes_the_date:
        logger.warning(
            "the model's chat template writes today's date; it is told %s, so that prompts do not change from day to day",
            DATE_STRING,
        )


def check_embedded(
    ids: Sequence[int], num_embeddings: int | None, tokenizer: PreTrainedTokenizerBase, where: str
) -> None:
    """Raise DataError for an id without a row in the embedding, which a model could not read."""
    highest = max(ids)
    if num_embeddings is not None and highest >= num_embeddings:
        raise DataError(
            f"{where}: the token {tokenizer.convert_ids_to_tokens(highest)} has the id {highest}, but the model's embedding "
            f"has {num_embeddings} rows and its tokenizer {len(tokenizer)} tokens; use the model's own tokenizer, or "
            "resize the embedding"
        )
