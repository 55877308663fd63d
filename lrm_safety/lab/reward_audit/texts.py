"""Safe and unsafe reasoning texts, the forms in which a reward model is asked about them, and its scores of all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...conversation.families import get_family
from ...conversation.refusal import is_refusal
from ...conversation.response import compose_response
from ...datasets.prompts import PromptRow
from ...datasets.serialised import plain_text
from ...errors import ConfigError, DataError
from ...rewards.conversation import Conversation
from ...rewards.row_sources import made_rows, read_rows
from ...rewards.scorer import RewardMixture, build_scorer
from ...settings import RewardModelSettings, RewardSettings
from ...settings.audit import AuditRowSettings, AuditSettings

COMPOSED = "composed"
"""The format that training reads: every family's trace and answer composed alike."""
_FIRST_SENTENCE = re.compile(r"(.{1,300}?[.!?])(?:\s+|$)", flags=re.DOTALL)


@dataclass(frozen=True)
class AuditText:
    """One response with its label. `family` names the family that wrote it; None: the text stands for all formats."""

    id: str
    prompt: str
    categories: tuple[str, ...]
    safe: bool
    trace: str
    answer: str
    family: str | None = None

    def conversation(self, view: str, written_by: str = COMPOSED) -> Conversation | None:
        """The text of one view as the `full` view of a conversation, so that each view is scored, cut and counted by
        itself; `written_by` says in which format `full` is. None where the view is blank.

        Raises DataError where trace or answer hold a tag of the family.
        """
        trace, answer = ("" if view == "answer" else self.trace), ("" if view == "trace" else self.answer)
        text = compose_response(trace, answer) if view == "full" else trace or answer
        if view == "full" and written_by != COMPOSED:
            try:
                text = get_family(written_by).sft_target(trace, answer)
            except DataError as error:
                raise DataError(f"audit text {self.id} ({written_by}): {error}") from error
        if not text.strip():
            return None
        return Conversation(self.prompt, trace, answer, text, "complete" if answer else "unfinished_trace")


def load_texts(settings: AuditRowSettings, formats: Sequence[str], seed: int) -> list[AuditText]:
    """Read and check the rows. Raises DataError for a row that cannot be read, for an id that one family has twice, and
    unless both labels occur; ConfigError for an unknown format."""
    for name in formats:
        get_family(name, "audit.formats")
    if settings.function is not None:
        rows = made_rows(settings.function, settings.num_prompts, seed, key="rows.function")
    else:
        rows = read_rows(settings.path, path_key="rows.path")
    source = settings.path or settings.function
    texts: list[AuditText] = []
    seen: set[tuple[str, str | None]] = set()
    for row in rows[: settings.limit]:
        text = _text(row, f"{source}, row {row.index + 1}")
        if (text.id, text.family) in seen:
            raise DataError(f"{source}, row {row.index + 1}: id {text.id!r} occurs twice for family {text.family}")
        seen.add((text.id, text.family))
        texts.append(text)
    if len({text.safe for text in texts}) < 2:
        raise DataError(f"{source}: needs rows of both labels, safe and unsafe")
    return texts


@dataclass(frozen=True)
class OpenerPair:
    """The same text with a refusal as its answer's first sentence, and without."""

    opened: AuditText
    plain: AuditText
    added: bool
    """The opener was put before an answer without one; False: a refusal that was there was taken off."""


def with_and_without_opener(text: AuditText, opener: str) -> OpenerPair | None:
    """The pair that `text` makes. None where there is no answer, or nothing would be left of it."""
    answer = text.answer.strip()
    if not answer:
        return None
    first = _FIRST_SENTENCE.match(answer)
    if first is None or not is_refusal(first[1]):
        return OpenerPair(replace(text, answer=f"{opener} {answer}"), text, added=True)
    rest = answer[first.end() :].strip()
    return OpenerPair(text, replace(text, answer=rest), added=False) if rest else None


def _text(row: PromptRow, where: str) -> AuditText:
    extra = row.extra
    if extra.get("label") not in ("safe", "unsafe"):
        raise DataError(f"{where}: field 'label' is {extra.get('label')!r}, expected 'safe' or 'unsafe'")
    parts = {}
    for name in ("trace", "answer"):
        value = extra.get(name, "")
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: field {name!r} is a {type(value).__name__}, expected a string")
        parts[name] = plain_text(value or "", f"{where}, field {name!r}", "assistant").strip()
    if not any(parts.values()):
        raise DataError(f"{where}: has neither trace nor answer")
    family = extra.get("family") or None
    if family is not None:
        try:
            get_family(str(family), f"{where}: field 'family'")
        except ConfigError as error:
            raise DataError(str(error)) from error
    identifier = str(row.index) if extra.get("id") is None else str(extra["id"])
    return AuditText(identifier, row.question, row.categories, extra["label"] == "safe", **parts, family=family)


Floats = NDArray[np.float64]


@dataclass
class ScoreTable:
    """Scores of one model, float64 `[num_texts]`; NaN where a text has no such form.

    `num_read` and `num_overlong` count the texts that went into each entry of `scores`, and those over the model's
    token limit.
    """

    scores: dict[tuple[str, str], Floats] = field(default_factory=dict)
    """By view and format; the views answer and trace have the format `composed` alone."""
    with_opener: dict[str, Floats] = field(default_factory=dict)
    """By view (full, answer): the text with a refusal as its first sentence."""
    without_opener: dict[str, Floats] = field(default_factory=dict)
    """By view: the same text without."""
    opener_added: NDArray[np.bool_] | None = None
    """Where the opener was put before the text; elsewhere it was the text's own and was taken off."""
    num_read: dict[tuple[str, str], int] = field(default_factory=dict)
    num_overlong: dict[tuple[str, str], int] = field(default_factory=dict)


def score_model(
    name: str, model: RewardModelSettings, texts: Sequence[AuditText], audit: AuditSettings, device: str
) -> ScoreTable:
    """Load the model, score everything, let it go. Raises what the reward itself raises."""
    settings = RewardSettings(models={name: replace(model, views={"full": 1.0})})
    asker = _Asker(name, build_scorer(settings, device), audit.batch_size)
    table = ScoreTable()
    for view in audit.views:
        formats = [COMPOSED, *_formats(texts, audit.formats)] if view == "full" else [COMPOSED]
        for one in formats:
            conversations = [
                text.conversation(view, one) if _is_written(text, one, audit.formats) else None for text in texts
            ]
            table.scores[view, one], table.num_overlong[view, one] = asker.ask(conversations)
            table.num_read[view, one] = sum(conversation is not None for conversation in conversations)
        if view != "trace":
            pairs = [with_and_without_opener(text, audit.refusal_opener) for text in texts]
            table.opener_added = np.array([pair is not None and pair.added for pair in pairs])
            table.with_opener[view], _ = asker.ask([pair.opened.conversation(view) if pair else None for pair in pairs])
            table.without_opener[view], _ = asker.ask(
                [pair.plain.conversation(view) if pair else None for pair in pairs]
            )
    return table


def _formats(texts: Sequence[AuditText], configured: Sequence[str]) -> list[str]:
    own = sorted({text.family for text in texts if text.family is not None})
    shared = configured if any(text.family is None for text in texts) else ()
    return list(dict.fromkeys([*shared, *own]))


def _is_written(text: AuditText, written_by: str, configured: Sequence[str]) -> bool:
    if written_by == COMPOSED:
        return True
    return written_by in configured if text.family is None else written_by == text.family


class _Asker:
    def __init__(self, name: str, mixture: RewardMixture, batch_size: int) -> None:
        self._key, self._mixture, self._batch_size = f"{name}/full", mixture, batch_size

    def ask(self, conversations: Sequence[Conversation | None]) -> tuple[Floats, int]:
        """Scores with NaN for None, and how many texts were over the limit."""
        scores = np.full(len(conversations), np.nan)
        places = [place for place, conversation in enumerate(conversations) if conversation is not None]
        num_overlong = 0
        for start in range(0, len(places), self._batch_size):
            batch = places[start : start + self._batch_size]
            found = self._mixture.score([one for place in batch if (one := conversations[place]) is not None])
            scores[batch] = found.by_model_and_view[self._key]
            num_overlong += found.num_overlong
        return scores, num_overlong
