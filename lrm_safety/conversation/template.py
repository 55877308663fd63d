"""What every reader of a chat template shares: one date, one way to fail, and text that stays text.

Policy, supervised rows, reward models and guards each have a template of their own; they all render through `ChatTemplate`
and break control tokens by `ControlTokens`, so that the same text is never read as text by one and as a command by another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"
# Some templates (Llama 3.x, Granite 3.x) write today's date: the same prompt would be another one tomorrow.
TEMPLATE_DATE = datetime(2024, 7, 26)
DATE_STRING = TEMPLATE_DATE.strftime("%d %b %Y")


class ChatTemplate:
    """A tokenizer's own chat template, whose clock stands at `TEMPLATE_DATE`.

    Raises ModelError, which names `source`, when the tokenizer has no template that would be used: none at all, or only
    named ones without a default.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        template = tokenizer.chat_template
        if template is None:
            raise ModelError(f"{source}: the tokenizer has no chat template; add the model's own chat_template.jinja")
        if isinstance(template, dict) and "default" not in template:
            raise ModelError(
                f"{source}: the tokenizer has chat templates called {', '.join(sorted(template))} but no default one; add "
                "chat_template.jinja"
            )
        self._tokenizer, self._source = tokenizer, source
        self.asked_for_the_date = False
        """Whether a rendering called the template's clock, beyond reading the date that it was given."""

    def render(
        self, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool = False, **arguments: Any
    ) -> str:
        """The conversation as text. Raises ModelError in one line for whatever the template raises: a syntax error, a role
        that it does not know, a function that it lacks."""
        given = {"date_string": DATE_STRING, "strftime_now": self._strftime_now, **arguments}
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt, **given
            )
        # A template is a program of the model's authors, run by jinja: it can raise anything.
        except Exception as error:
            kind = type(error).__name__
            raise ModelError(
                f"{self._source}: the chat template refuses a conversation ({kind}: {first_line(error)})"
            ) from error
        assert isinstance(text, str)
        return text

    def _strftime_now(self, form: str) -> str:
        self.asked_for_the_date = True
        return TEMPLATE_DATE.strftime(form)


class ControlTokens:
    """Finds the control tokens of a tokenizer that a text spells out, and breaks them by a space.

    Control tokens are the special ones and, where the tokenizer has them as tokens of their own, the tags of a trace; read
    as ids they would end a turn, open one, or close a trace. Nothing of the text is left out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, tags: bool, more: Sequence[str] = ()) -> None:
        """`tags`: whether `<think>` and `</think>` count: not where they are the form in which a trace is handed over.
        `more`: texts that command as well, though the tokenizer does not say so."""
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        controls = (special | set(tokenizer.all_special_tokens)) - {OPEN_TAG, CLOSE_TAG, ""}
        if tags:
            controls |= {OPEN_TAG, CLOSE_TAG} & tokenizer.get_added_vocab().keys()
        self._broken = {token: broken for token in {*controls, *more} if (broken := _with_space(token)) is not None}
        longest_first = sorted(self._broken, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._tokenizer = tokenizer
        # Text that a vocabulary lacks is read as unk, which is no command.
        self._ids = set(tokenizer.convert_tokens_to_ids(sorted(controls))) - {tokenizer.unk_token_id}

    def find(self, text: str) -> list[str]:
        """The control tokens that `text` spells out, in order."""
        return self._pattern.findall(text) if self._pattern else []

    def read_as(self, text: str) -> list[str]:
        """The control tokens that the tokenizer reads in `text`, whatever its spelling (a normaliser may change it)."""
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [str(self._tokenizer.convert_ids_to_tokens(token)) for token in ids if token in self._ids]

    def break_up(self, text: str) -> tuple[str, list[str]]:
        """The text with a space inside each control token, and the tokens that were broken."""
        found: list[str] = []
        while self._pattern and (more := self._pattern.findall(text)):
            # Until none is left: breaking one may leave another that overlapped it.
            text, found = self._pattern.sub(lambda match: self._broken[match[0]], text), found + more
        return text, found


def _with_space(token: str) -> str | None:
    """`token` with a space after its first character, or after the first place where that keeps it from being read again;
    None for one that no space breaks (a single character)."""
    variants = (f"{token[:cut]} {token[cut:]}" for cut in range(1, len(token)))
    return next((variant for variant in variants if token not in variant), None)
