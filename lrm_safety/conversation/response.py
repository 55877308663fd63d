"""A sampled response: split into trace and answer with token ids as the truth, and the tokens by which its trace reflects."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import DataError
from .template import CLOSE_TAG, OPEN_TAG

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .families import Family

Status = Literal["complete", "unfinished_trace", "unfinished_answer", "no_trace", "malformed", "empty_answer"]


@dataclass(frozen=True)
class ParsedResponse:
    """One response, split.

    `trace` and `answer` are stripped text without tags and control tokens. `num_trace_tokens + num_answer_tokens` is
    the number of response tokens. `finished` says that the policy ended the response itself. `status` is the first of
    these that holds:

    - `malformed`: a tag where none belongs (a second `</think>`, text before `<think>`, a closing without an opening,
      text after `</response>`), or the policy stopped without closing what it had opened. The split is at the first
      closing tag; without one, everything is trace and the answer is empty.
    - `unfinished_trace`, `unfinished_answer`: cut off before or after the trace was closed. Never to be read as safe.
    - `empty_answer`: ended without an answer.
    - `no_trace`: an answer whose trace is blank or was never opened, from a family that writes traces.
    - `complete`: everything else.
    """

    trace: str
    answer: str
    status: Status
    num_trace_tokens: int
    num_answer_tokens: int
    finished: bool

    @property
    def complete(self) -> bool:
        return self.status == "complete"


class ResponseParser:
    """Parses responses of one family by one tokenizer; looks up the tokenizer's ids once.

    Raises ModelError when the tokenizer lacks the family's end token.
    """

    def __init__(self, family: Family, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.get_added_vocab()
        self._family = family
        self._tokenizer: PreTrainedTokenizerBase | None = tokenizer
        self._stop_ids = frozenset(family.stop_token_ids(tokenizer))
        self._close_id: int | None = added.get(CLOSE_TAG)
        tag_ids = {added[tag] for tag in (OPEN_TAG, CLOSE_TAG) if tag in added}
        special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        # Control tokens never reach the text: a reward model's template may give them a meaning of their own.
        self._control_ids = frozenset((special | set(tokenizer.all_special_ids)) - tag_ids)

    @classmethod
    def of_text(cls, family: Family) -> ResponseParser:
        """One for text of which no tokens are known: every character is a token, and stop tokens have been taken off."""
        parser = cls.__new__(cls)
        parser._family, parser._tokenizer, parser._close_id = family, None, None
        parser._stop_ids = parser._control_ids = frozenset()
        return parser

    def parse(self, response_ids: Sequence[int], finish_reason: str | None) -> ParsedResponse:
        """Split `response_ids` (`[num_tokens]`, as sampled, with or without the stop token at the end).

        `finish_reason` is the engine's: "stop" when the policy ended the response, anything else means it was cut off.
        """
        finished = finish_reason == "stop"
        body = list(response_ids)
        del body[min((body.index(token) for token in self._stop_ids if token in body), default=len(body)) :]
        if not self._family.writes_trace:
            trace, answer, num_trace_tokens = "", self.decode(body), 0
            status: Status = _status(trace, answer, finished, writes_trace=False)
        elif (split := self._split_at_close(body)) is not None:
            before, after, num_trace_tokens = split
            trace, opened = self._strip_opening(before)
            answer, wrapped = _unwrap(after, self._family.answer_tags, finished)
            stray = any(tag in part for tag in (OPEN_TAG, CLOSE_TAG) for part in (trace, answer))
            malformed = stray or not opened or not wrapped
            status = "malformed" if malformed else _status(trace, answer, finished, writes_trace=True)
        else:
            trace, answer, num_trace_tokens, status = self._parse_unclosed(body, len(response_ids), finished)
        num_answer_tokens = len(response_ids) - num_trace_tokens
        return ParsedResponse(trace.strip(), answer.strip(), status, num_trace_tokens, num_answer_tokens, finished)

    def _parse_unclosed(self, body: list[int], num_tokens: int, finished: bool) -> tuple[str, str, int, Status]:
        """Trace, answer, number of trace tokens and status of a response without a closing tag."""
        text = self.decode(body)
        trace, opened = self._strip_opening(text)
        cut_in_tag = not finished and OPEN_TAG.startswith(text.strip())
        if opened or cut_in_tag:
            stray = OPEN_TAG in trace
            return "" if cut_in_tag else trace, "", num_tokens, "malformed" if finished or stray else "unfinished_trace"
        if OPEN_TAG in text or CLOSE_TAG in text:
            return text, "", num_tokens, "malformed"
        answer, wrapped = _unwrap(text, self._family.answer_tags, finished)
        return "", answer, 0, _status("", answer, finished, writes_trace=True) if wrapped else "malformed"

    def _split_at_close(self, body: list[int]) -> tuple[str, str, int] | None:
        """Text before and after the first closing tag, and the number of tokens through its last one."""
        if self._close_id is not None:
            if self._close_id not in body:
                return None
            position = body.index(self._close_id)
            return self.decode(body[:position]), self.decode(body[position + 1 :]), position + 1
        text = self.decode(body)
        if CLOSE_TAG not in text:
            return None
        before, _, after = text.partition(CLOSE_TAG)
        # A longer prefix never loses the tag, so the first prefix that holds it is found by bisection.
        num_tokens = bisect_left(range(len(body)), True, key=lambda n: CLOSE_TAG in self.decode(body[:n]))
        return before, after, num_tokens

    def _strip_opening(self, text: str) -> tuple[str, bool]:
        """The trace's text without its opening tag, and whether the trace was opened where it should be."""
        if self._family.trace_opened_by == "prompt":
            return text, True
        text = text.lstrip()
        return text.removeprefix(OPEN_TAG), text.startswith(OPEN_TAG)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens left out."""
        if self._tokenizer is None:
            return "".join(map(chr, ids))
        held = self._control_ids.intersection(ids)  # hardly ever any
        kept = [token for token in ids if token not in held] if held else ids
        # As an array: of a list transformers looks at every id by itself, which takes longer than the decoding.
        array = np.asarray(kept, dtype=np.int64)
        text = self._tokenizer.decode(array, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def _status(trace: str, answer: str, finished: bool, *, writes_trace: bool) -> Status:
    """Status of a well-formed response whose trace, if it has one, was closed."""
    if not finished:
        return "unfinished_answer"
    if not answer.strip():
        return "empty_answer"
    return "no_trace" if writes_trace and not trace.strip() else "complete"


def _unwrap(text: str, tags: tuple[str, str] | None, finished: bool) -> tuple[str, bool]:
    """The answer without its optional pair of tags, and whether the pair, if there is one, is well formed."""
    text = text.strip()
    if tags is None:
        return text, True
    opening, closing = tags
    if not finished and opening.startswith(text):
        return "", True
    if not text.startswith(opening):
        return text, opening not in text and closing not in text
    inner, closed, rest = text.removeprefix(opening).partition(closing)
    if not closed:
        return inner, not finished and opening not in inner
    well_formed = not rest.strip() and opening not in inner
    return (inner if well_formed else text), well_formed


def compose_response(trace: str, answer: str) -> str:
    """The view `full` as judges and reward models read it: the same text for every family.

    Without a trace it is the answer alone; without an answer the trace is left open, as the policy left it.
    """
    if not trace:
        return answer
    return f"{OPEN_TAG}\n{trace}\n{CLOSE_TAG}\n\n{answer}" if answer else f"{OPEN_TAG}\n{trace}"


def split_think_text(text: str) -> tuple[str, str]:
    """Trace and answer, stripped, of a data set's response written as `<think>trace</think>answer`.

    Raises DataError unless the text opens with the one `<think>` and holds the one `</think>`.
    """
    match = re.fullmatch(rf"\s*{OPEN_TAG}(.*){CLOSE_TAG}(.*)", text, flags=re.DOTALL)
    if match is None or text.count(OPEN_TAG) != 1 or text.count(CLOSE_TAG) != 1:
        raise DataError("a response must be one <think>trace</think> followed by its answer: mend or drop the row")
    return match.group(1).strip(), match.group(2).strip()


REFLECTION_WORDS = ("wait", "Wait", "but", "But", "Alternatively")


def reflection_token_ids(tokenizer: PreTrainedTokenizerBase, words: Iterable[str] = REFLECTION_WORDS) -> frozenset[int]:
    """Ids of `words` that are one token, with and without a leading space.

    A form of several tokens is left out: its pieces occur in other words too. The set is empty when no form is one
    token; a metric over it is then undefined, not zero.
    """
    forms = [form for word in words for form in (word, f" {word}")]
    encoded = [tokenizer.encode(form, add_special_tokens=False) for form in forms]
    return frozenset(ids[0] for ids in encoded if len(ids) == 1 and ids[0] != tokenizer.unk_token_id)
