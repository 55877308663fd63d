"""Safe and unsafe reasoning texts, and the forms in which a reward model is asked about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lrm_safety.conversation import compose_response, get_family, is_refusal
from lrm_safety.datasets import PromptRow
from lrm_safety.datasets.serialised import plain_text
from lrm_safety.errors import ConfigError, DataError
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.row_sources import made_rows, read_rows
from lrm_safety.settings.audit import AuditRowSettings

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
        rows = made_rows(
            settings.function,
            settings.num_prompts,
            seed,
            key="rows.function",
            prompt_field="prompt",
            category_field="category",
        )
    else:
        rows = read_rows(
            settings.path,
            None,
            path_key="rows.path",
            prompt_field="prompt",
            prompt_key=None,
            category_field="category",
            split="train",
            revision=None,
        )
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
    for field in ("trace", "answer"):
        value = extra.get(field, "")
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: field {field!r} is a {type(value).__name__}, expected a string")
        parts[field] = plain_text(value or "", f"{where}, field {field!r}", "assistant").strip()
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
