"""Pairs of responses: read, split by prompt, and rendered exactly as a reward model will read them when it scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...conversation.response import compose_response
from ...conversation.template import CLOSE_TAG, OPEN_TAG
from ...datasets.prompts import PromptRow
from ...datasets.serialised import plain_text
from ...errors import DataError
from ...files import digest_of
from ...results import PairsRead
from ...rewards.conversation import Conversation, drop_trace_middle
from ...rewards.rendering import Renderer
from ...rewards.row_sources import made_rows, read_rows
from ...settings.reward_training import PairSettings


@dataclass(frozen=True)
class Pair:
    """One prompt with a better and a worse response."""

    id: str
    prompt: str
    categories: tuple[str, ...]
    chosen: Conversation
    rejected: Conversation
    margin: float = 0.0

    @property
    def prompt_key(self) -> str:
        """What makes two prompts the same: the words, whatever their case and spacing."""
        return " ".join(self.prompt.split()).casefold()


@dataclass(frozen=True)
class PairSplit:
    """Pairs to train on and held-out pairs, which share no prompt.

    `num_left_out` counts pairs to train on that were left out, because their prompt is held out elsewhere or their
    category is not asked for. `fingerprint` is the sha256 of all pairs of both sides in order.
    """

    train: list[Pair]
    held_out: list[Pair]
    num_left_out: int
    fingerprint: str


@dataclass(frozen=True)
class TokenPair:
    """A pair as token ids of the reward model; `index` is its place in the list that was read."""

    index: int
    chosen: list[int]
    rejected: list[int]
    margin: float

    @property
    def longest(self) -> int:
        return max(len(self.chosen), len(self.rejected))


@dataclass
class Reading:
    """Pairs as token ids, and what had to be done to them (responses, but for `num_dropped` and `num_equal`)."""

    pairs: list[TokenPair]
    num_overlong: int = 0
    num_respelled: int = 0
    num_dropped: int = 0
    """Pairs that were left out: with a response that does not fit, or `num_equal`."""
    num_equal: int = 0
    """Pairs whose two responses read the same in this view, such as the traces of responses without one."""

    def counts(self) -> PairsRead:
        return PairsRead(len(self.pairs), self.num_overlong, self.num_respelled, self.num_dropped, self.num_equal)


def load_pairs(settings: PairSettings, seed: int) -> PairSplit:
    """Read and split the pairs. Raises DataError for a row that is no pair and for a side without pairs."""
    source = settings.path or settings.hub_id or settings.function
    if settings.function is not None:
        rows = made_rows(
            settings.function,
            settings.num_rows,
            seed,
            key="pairs.function",
            prompt_field=settings.prompt_field,
            category_field=settings.category_field,
        )
    else:
        rows = _read(settings.path, settings.hub_id, settings, "pairs.path")
    pairs = [_pair(row, settings, str(source)) for row in rows[: settings.limit]]
    if settings.held_out_path is not None:
        held_out = [
            _pair(row, settings, settings.held_out_path)
            for row in _read(settings.held_out_path, None, settings, "pairs.held_out_path")
        ]
        prompts = {pair.prompt_key for pair in held_out}
    else:
        prompts = held_out_prompts((pair.prompt_key for pair in pairs), settings.held_out_fraction, seed)
        held_out = [pair for pair in pairs if pair.prompt_key in prompts]
    others = [pair for pair in pairs if pair.prompt_key not in prompts]
    wanted = set(settings.categories)
    train = [pair for pair in others if not wanted or wanted & set(pair.categories)]
    if not train or not held_out:
        side = "train on" if not train else "hold out"
        raise DataError(f"{source}: no pairs to {side}; it has {len(pairs)} pairs (pairs.held_out_*, pairs.categories)")
    num_left_out = len(pairs) - len(train) - (len(held_out) if settings.held_out_path is None else 0)
    return PairSplit(train, held_out, num_left_out, _fingerprint([*train, *held_out]))


def held_out_prompts(prompt_keys: Iterable[str], fraction: float, seed: int) -> set[str]:
    """The share `fraction` of the different prompts, rounded, at least one and never all: those whose hash with the seed
    comes first, so that neither the order of the rows nor the number of pairs of a prompt matters."""
    ordered = sorted(set(prompt_keys), key=lambda key: digest_of([f"{seed}\n{key}"]))
    num = min(max(1, round(fraction * len(ordered))), len(ordered) - 1)
    return set(ordered[:num])


def to_conversation(prompt: str, value: Any, where: str) -> Conversation:
    """A response as the reward sees responses of a policy: trace and answer stripped, composed alike for every family.

    `value` is {trace, answer}, or the text of the assistant's turn. A text with one `</think>`, and no `<think>` but at
    its beginning, is split there; any other text stays as it stands and is all answer. Raises DataError.
    """
    if isinstance(value, dict):
        trace, answer = value.get("trace", ""), value.get("answer", "")
        if not isinstance(trace, str) or not isinstance(answer, str) or not (value.keys() & {"trace", "answer"}):
            raise DataError(f"{where}: must be a text, or an object with the texts trace and answer")
    elif isinstance(value, str):
        trace, answer = _split(plain_text(value, where, "assistant"))
    else:
        raise DataError(f"{where}: must be a text, or an object with the texts trace and answer")
    trace, answer = trace.strip(), answer.strip()
    status = "complete" if answer else "unfinished_trace"
    return Conversation(prompt, trace, answer, compose_response(trace, answer), status)


def tokenise(pairs: Sequence[Pair], renderer: Renderer, *, view: str, max_tokens: int, overlong: str) -> Reading:
    """Token ids of one view of every pair that differs in it. Raises DataError for an over-long response when overlong=error."""
    reading = Reading([])
    for index, pair in enumerate(pairs):
        sides = [_ids(one, pair, renderer, view, max_tokens, overlong, reading) for one in (pair.chosen, pair.rejected)]
        chosen, rejected = sides
        if chosen is None or rejected is None:
            reading.num_dropped += 1
        elif chosen == rejected:
            reading.num_dropped += 1
            reading.num_equal += 1
        else:
            reading.pairs.append(TokenPair(index, chosen, rejected, pair.margin))
    return reading


def _ids(
    response: Conversation, pair: Pair, renderer: Renderer, view: str, max_tokens: int, overlong: str, reading: Reading
) -> list[int] | None:
    rendered = renderer.render(pair.prompt, response.view(view))
    if len(rendered.ids) > max_tokens:
        reading.num_overlong += 1
        if overlong == "error":
            raise DataError(
                f"pair {pair.id}: {len(rendered.ids)} tokens are over base.max_tokens={max_tokens}; raise it, or choose "
                "another rule in base.overlong"
            )
        text = None
        if overlong == "drop_trace_middle":
            text = drop_trace_middle(
                response, view, lambda text: len(renderer.render(pair.prompt, text).ids) <= max_tokens
            )
        if text is None:
            return None
        rendered = renderer.render(pair.prompt, text)
    reading.num_respelled += rendered.respelled
    return rendered.ids


def _read(path: str | None, hub_id: str | None, settings: PairSettings, path_key: str) -> list[PromptRow]:
    return read_rows(
        path,
        None if path is not None else hub_id,
        path_key=path_key,
        prompt_field=settings.prompt_field,
        prompt_key="pairs.prompt_field",
        category_field=settings.category_field,
        split=settings.split,
        revision=settings.revision,
    )


def _pair(row: PromptRow, settings: PairSettings, source: str) -> Pair:
    where = f"{source}, row {row.index + 1}"
    sides = []
    for field in (settings.chosen_field, settings.rejected_field):
        if field not in row.extra:
            raise DataError(f"{where}: no field {field!r}; set pairs.chosen_field and pairs.rejected_field")
        sides.append(to_conversation(row.question, row.extra[field], f"{where}, field {field!r}"))
    if sides[0] == sides[1]:
        raise DataError(f"{where}: chosen and rejected are the same text; drop the row")
    pair = Pair(str(row.extra.get("id", row.index)), row.question, row.categories, sides[0], sides[1])
    if settings.margin_field is None:
        return pair
    margin = row.extra.get(settings.margin_field)
    try:
        value = float(margin)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: field {settings.margin_field!r} is {margin!r}, expected a finite number")
    return replace(pair, margin=value)


def _split(text: str) -> tuple[str, str]:
    before, closed, after = text.partition(CLOSE_TAG)
    trace = before.lstrip().removeprefix(OPEN_TAG)
    if not closed or CLOSE_TAG in after or OPEN_TAG in trace or OPEN_TAG in after:
        return "", text
    return trace, after


def _fingerprint(pairs: Sequence[Pair]) -> str:
    rows = ([pair.prompt, pair.chosen.full, pair.rejected.full, pair.margin] for pair in pairs)
    return digest_of(json.dumps(row) + "\n" for row in rows)
