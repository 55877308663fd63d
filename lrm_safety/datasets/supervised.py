"""Supervised targets: rows of a data set to prompt and response ids in the form that the model's family writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..conversation.families import Family, PromptRenderer
from ..conversation.response import ResponseParser, split_think_text
from ..conversation.template import CLOSE_TAG, OPEN_TAG, ControlTokens
from ..errors import DataError, ModelError
from ..files import digest_of
from ..rollouts import TokenIds
from ..settings.sft import Targets
from .prompts import PromptRow, PromptSet, check_embedded, warn_of_rendering
from .serialised import plain_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SupervisedRow:
    """One row, rendered."""

    index: int
    """Position in its data set."""
    id: str
    prompt_ids: TokenIds
    """[P]"""
    response_ids: TokenIds
    """[T], the end token included."""
    num_trace_tokens: int
    """Of the response, closing tag included; the rest is the answer's."""

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class SupervisedSet:
    """Rendered rows in the order of their source."""

    rows: tuple[SupervisedRow, ...]
    fingerprint: str
    """sha256 of ids, questions, traces and answers of all rows in order, those left out included."""
    source: str
    num_dropped: int
    """Rows over the limit that were left out."""
    num_respelled: int
    """Rows whose question spelled out control tokens, which are broken by a space."""

    @property
    def token_fingerprint(self) -> str:
        """sha256 of the ids of all prompts and responses in order: what is trained on."""
        every = (ids for row in self.rows for ids in (row.prompt_ids, row.response_ids))
        return digest_of(len(ids).to_bytes(8, "little") + ids.tobytes() for ids in every)

    def __len__(self) -> int:
        return len(self.rows)


def render_supervised(
    prompts: PromptSet,
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    *,
    system_prompt: str | None = None,
    targets: Targets = "family",
    response_field: str = "response",
    trace_field: str | None = None,
    max_sequence_tokens: int,
    overlong: str = "error",
    num_embeddings: int | None = None,
) -> SupervisedSet:
    """Render every row; nothing is ever cut. Control tokens in a question are broken by a space, as in training's prompts.

    `targets="family"` writes trace and answer as the family does and ends with its end token; a family without traces
    gets the answer alone. `targets="raw"` takes the response's text as it stands, and the end token.

    An end token with which a response ends already is not written twice.

    Raises DataError, which names the source and the row, for a response (or trace) that is missing, blank, no string or
    not of the form `<think>trace</think>answer`, for one with control tokens inside (which would train on beyond the end of
    the turn), for a token that the embedding of `num_embeddings` rows does not have, and, unless overlong="drop", for a row
    over `max_sequence_tokens`.
    """
    parser = ResponseParser(family, tokenizer)
    renderer = PromptRenderer(family, tokenizer, system_prompt)
    controls = ControlTokens(tokenizer, tags=False)
    end_tokens = [str(tokenizer.convert_ids_to_tokens(token)) for token in family.stop_token_ids(tokenizer)]
    respelled: list[tuple[PromptRow, str]] = []
    rows: list[SupervisedRow] = []
    read: list[str] = []
    for row in prompts.rows:
        where = f"{prompts.source}, row {row.index + 1} (id {row.id})"
        text = _text(row, response_field, "sft.response_field", where)
        trace = None if trace_field is None else _text(row, trace_field, "sft.trace_field", where)
        # One JSON line a row: lengths and quoting keep ("a", "bc") and ("ab", "c") apart.
        read.append(json.dumps([row.id, row.question, trace, text]) + "\n")
        try:
            text = _without_end_token(text, end_tokens)
            if not text.strip():
                raise DataError("the response is an end token alone: mend or drop the row")
            for part in (trace or "", text):
                _check_controls(part, controls)
            response = _response_ids(family, tokenizer, trace, text, targets)
            rendered_prompt = renderer.render(row.question)
        except (DataError, ModelError) as error:
            raise DataError(f"{where}: {error}") from error
        prompt = rendered_prompt.ids
        check_embedded([*prompt, *response], num_embeddings, tokenizer, where)
        rendered = SupervisedRow(
            row.index,
            row.id,
            np.asarray(prompt, dtype=np.int32),
            np.asarray(response, dtype=np.int32),
            parser.parse(response, "stop").num_trace_tokens,
        )
        if rendered.num_tokens <= max_sequence_tokens:
            rows.append(rendered)
            respelled += [(row, token) for token in rendered_prompt.respelled[:1]]
        elif overlong != "drop":
            raise DataError(
                f"{where}: {rendered.num_tokens} tokens are over sft.max_sequence_tokens={max_sequence_tokens}; raise it, "
                "or leave such rows out with sft.overlong=drop"
            )
    if targets == "family" and not family.writes_trace:
        _warn_of_traces(prompts, family, response_field, trace_field)
    if num_dropped := len(prompts) - len(rows):
        logger.warning(
            "%s: %d of %d rows are over sft.max_sequence_tokens=%d and were left out (sft.overlong=drop)",
            prompts.source,
            num_dropped,
            len(prompts),
            max_sequence_tokens,
        )
    warn_of_rendering(renderer, str(prompts.source), respelled, len(rows))
    return SupervisedSet(tuple(rows), digest_of(read), str(prompts.source), num_dropped, len(respelled))


def hold_out(
    rows: Sequence[SupervisedRow], fraction: float, seed: int
) -> tuple[list[SupervisedRow], list[SupervisedRow]]:
    """(rows to train on, held-out rows), each in the order of the set.

    The held-out ones are the first round(fraction * rows), at least one if the fraction is not 0, of a permutation that
    depends on the seed and the number of rows alone.
    """
    count = max(1, round(fraction * len(rows))) if fraction else 0
    chosen = draw_positions(len(rows), count, seed, key=1)
    return (
        [row for position, row in enumerate(rows) if position not in chosen],
        [row for position, row in enumerate(rows) if position in chosen],
    )


def draw_positions(num_rows: int, count: int, seed: int, *, key: int) -> set[int]:
    """`count` positions of `num_rows`, chosen by the seed; each purpose has a `key`, since the seed's own stream orders passes."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))
    return set(generator.permutation(num_rows)[:count].tolist())


def _response_ids(
    family: Family, tokenizer: PreTrainedTokenizerBase, trace: str | None, text: str, targets: Targets
) -> list[int]:
    if targets == "raw":
        assert trace is None, "settings.checks refuses it"
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return [*ids, family.stop_token_ids(tokenizer)[0]]
    answer = text
    if trace is None:
        if family.writes_trace or OPEN_TAG in text or CLOSE_TAG in text:
            trace, answer = split_think_text(text)
        else:
            trace = ""
    if not answer.strip():
        raise DataError("the response has no answer: mend or drop the row")
    if family.writes_trace and not trace.strip():
        raise DataError(f"the response has no trace, which model.family={family.name} writes: mend or drop the row")
    return family.sft_response_ids(tokenizer, trace, answer)


def _without_end_token(text: str, end_tokens: Sequence[str]) -> str:
    """`text` without the one end token, and the white space after it, that some data sets write at its end."""
    trimmed = text.rstrip()
    return next((trimmed.removesuffix(token) for token in end_tokens if trimmed.endswith(token)), text)


def _check_controls(text: str, controls: ControlTokens) -> None:
    """Raise DataError for a control token inside a text to train on."""
    if found := [*controls.find(text), *controls.read_as(text)]:
        raise DataError(
            f"the response holds the control token {found[0]}, which would end it, or begin another turn, in the middle: mend "
            "or drop the row"
        )


def _warn_of_traces(prompts: PromptSet, family: Family, response_field: str, trace_field: str | None) -> None:
    """Traces, in a field of their own or in the responses, of a family that writes none."""
    traced = len(prompts) if trace_field else sum(OPEN_TAG in str(row.extra[response_field]) for row in prompts.rows)
    if traced:
        logger.warning(
            "%s: model.family=%s writes no traces, so those of %d rows are left out and answers alone are learned; "
            "sft.targets=raw learns the traces as text",
            prompts.source,
            family.name,
            traced,
        )


def _text(row: PromptRow, name: str, key: str, where: str) -> str:
    value = row.extra.get(name)
    if name not in row.extra:
        raise DataError(f"{where}: no field {name!r}; set {key} to one of {', '.join(map(str, row.extra)) or 'none'}")
    if not isinstance(value, str):
        kind = "null" if value is None else f"a {type(value).__name__}"
        raise DataError(f"{where}: field {name!r} is {kind}, expected a string")
    if not value.strip():
        raise DataError(f"{where}: field {name!r} is empty; drop the row or fill it")
    return plain_text(value, f"{where}, field {name!r}", "assistant")
