"""Sets of prompts: loaded, checked and fingerprinted, rendered once, and drawn in a seeded order that resumes exactly.

Rendered before anything starts, so that a prompt that does not fit is found at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..conversation.families import Family, PromptRenderer
from ..conversation.template import DATE_STRING
from ..errors import ConfigError, DataError, ModelError
from ..files import digest_of
from ..rollouts import TokenIds
from .files import read_rows
from .hub import read_hub
from .serialised import Source, unwrap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PromptRow:
    """One prompt; `index` is its position in the set, `extra` the fields that have no name of their own."""

    index: int
    id: str
    question: str
    categories: tuple[str, ...]
    extra: dict[str, Any]


@dataclass(frozen=True)
class PromptSet:
    """Checked prompts in the order of their source.

    `fingerprint` is the sha256 of all ids and questions in order, so it tells whether two runs asked the same, whatever
    file format or extra fields the source had.
    """

    rows: tuple[PromptRow, ...]
    fingerprint: str
    source: Source
    num_respelled: int = 0
    """Rows whose question spelled out control tokens of the model, once the set is rendered."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[PromptRow]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> PromptRow:
        return self.rows[index]


def load_prompts(
    path: str | None = None,
    hub_id: str | None = None,
    *,
    split: str = "train",
    question_field: str = "question",
    id_field: str = "id",
    category_field: str = "category",
    revision: str | None = None,
    path_key: str = "data.path",
    question_key: str | None = "data.question_field",
) -> PromptSet:
    """Load prompts from `path` (.json list, .jsonl, .csv or .tsv) or, by `hub_id`, from the Hugging Face hub.

    A row without `id_field` is called after its position; `category_field` may hold a string, a list of strings or
    nothing. `split` and `revision` apply to the hub alone. `path_key` and `question_key` are what messages call the
    settings of path and `question_field`; None: the field's name is fixed.

    Raises ConfigError unless exactly one of `path` and `hub_id` is given, and DataError, which names the source, the
    row (counted from 1) and the field, for a file that is absent or torn, an empty set, a question that is missing,
    blank or no string, and an id that occurs twice.
    """
    if (path is None) == (hub_id is None):
        raise ConfigError("data: set exactly one of data.path and data.hub_id")
    records: Iterable[Any]
    if path is not None:
        source, records = path, read_rows(Path(path), path_key)
    else:
        assert hub_id is not None
        section = path_key.rpartition(".")[0]
        records, source = read_hub(
            hub_id,
            split=split,
            revision=revision,
            mend=f"check {section}.hub_id, {section}.split, {section}.revision and the network, or set {path_key} to a local copy",
            revision_key=f"{section}.revision",
        )
    plain, places, origin = unwrap(list(records), question_field, source, id_field)
    numbered = list(zip(places, plain, strict=True))
    rows = tuple(_check_rows(numbered, source, question_field, question_key, id_field, category_field))
    return PromptSet(rows, _fingerprint(rows), origin)


def _check_rows(
    records: Sequence[tuple[int, dict[str, Any]]],
    source: str,
    question_field: str,
    question_key: str | None,
    id_field: str,
    category_field: str,
) -> list[PromptRow]:
    first_with_id: dict[str, int] = {}
    rows: list[PromptRow] = []
    for index, record in records:
        where = f"{source}, row {index + 1}"
        question = record.get(question_field)
        if question_field not in record:
            mend = f"set {question_key} to one of" if question_key else "the row has"
            raise DataError(f"{where}: no field {question_field!r}; {mend} {', '.join(map(str, record))}")
        if not isinstance(question, str):
            kind = "null" if question is None else f"a {type(question).__name__}"
            raise DataError(f"{where}: field {question_field!r} is {kind}, expected a string")
        if not question.strip():
            raise DataError(f"{where}: field {question_field!r} is empty; drop the row or fill it")
        row_id = str(index) if record.get(id_field) is None else str(record[id_field])
        if (first := first_with_id.get(row_id)) is not None:
            raise DataError(f"{where}: {_repeated(row_id, record, dict(records)[first], first, id_field)}")
        first_with_id[row_id] = index
        named = {question_field, id_field, category_field}
        extra = {key: value for key, value in record.items() if key not in named}
        rows.append(
            PromptRow(index, row_id, question, _categories(record.get(category_field), category_field, where), extra)
        )
    if not rows:
        raise DataError(f"{source}: holds no prompts")
    return rows


def _repeated(row_id: str, record: dict[str, Any], other: dict[str, Any], first: int, id_field: str) -> str:
    """What is said of a second row called `row_id`; `first` is the position of the other."""
    if record.get(id_field) is None:
        return (
            f"has no field {id_field!r} and was called after its position, {row_id!r}, as row {first + 1} is called; "
            f"give every row an {id_field!r}, or none"
        )
    if other.get(id_field) is None:
        return (
            f"field {id_field!r} is {row_id!r}, as row {first + 1} was called after its position, since it has none; "
            f"give every row an {id_field!r}, or none"
        )
    return f"field {id_field!r} repeats {row_id!r} of row {first + 1}; ids must differ"


def _categories(value: Any, field: str, where: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise DataError(f"{where}: field {field!r} must be a string or a list of strings")
    return tuple(values)


def _fingerprint(rows: Iterable[PromptRow]) -> str:
    return digest_of(json.dumps([row.id, row.question]) + "\n" for row in rows)


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


class PromptSource:
    """Draws batches of prompt indices, pass after pass over the set.

    Each pass is a permutation shuffled by (seed, pass number) with PCG64, whose stream numpy keeps the same on every
    platform. What a pass leaves over is carried into the next batch, so every prompt is drawn k times before any is
    drawn k + 1 times. A batch that spans two passes takes the rest of the old pass, then the new pass in its order but
    for the prompts it already holds; those keep their places in the new pass and wait for the following batches. A
    batch therefore never holds a prompt twice.

    Raises ConfigError unless 1 <= batch_size <= num_prompts.
    """

    def __init__(self, num_prompts: int, batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= num_prompts:
            raise ConfigError(
                f"rollout batch of {batch_size} prompts does not fit a set of {num_prompts}: "
                "it must be at least 1 and at most the number of prompts"
            )
        if seed < 0:
            raise ConfigError(f"seed={seed} must not be negative")
        self._num_prompts = num_prompts
        self._batch_size = batch_size
        self._seed = seed
        self._num_passes_started = 0
        self._remaining: list[int] = []

    def next_batch(self, size: int | None = None) -> list[int]:
        """`batch_size` different indices in `range(num_prompts)`, or so many others, at most `num_prompts`."""
        size = self._batch_size if size is None else size
        batch, self._remaining = self._remaining[:size], self._remaining[size:]
        if missing := size - len(batch):
            shuffled = self._next_pass()
            held = set(batch)
            taken = [index for index in shuffled if index not in held][:missing]
            batch += taken
            held = set(taken)
            self._remaining = [index for index in shuffled if index not in held]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Everything the next batch depends on, as JSON-able values."""
        return {
            "num_prompts": self._num_prompts,
            "seed": self._seed,
            "num_passes_started": self._num_passes_started,
            "remaining": list(self._remaining),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken; the batch size may differ from the one it was taken with.

        Raises DataError when the state belongs to another number of prompts or another seed.
        """
        for name, ours in (("num_prompts", self._num_prompts), ("seed", self._seed)):
            if state[name] != ours:
                raise DataError(
                    f"the checkpoint's prompt order has {name}={state[name]}, this run has {ours}: "
                    "resume with the data set and seed it was started with"
                )
        self._num_passes_started = state["num_passes_started"]
        self._remaining = list(state["remaining"])

    def _next_pass(self) -> list[int]:
        # A generator of its own for each pass: the order of pass n needs no replay of the passes before it.
        entropy = np.random.SeedSequence([self._seed, self._num_passes_started])
        self._num_passes_started += 1
        return np.random.Generator(np.random.PCG64(entropy)).permutation(self._num_prompts).tolist()
