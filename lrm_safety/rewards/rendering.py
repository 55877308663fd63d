"""A prompt and a response as token ids of a reward model: its own chat template, its own tokenizer, nothing lost."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..conversation.template import CLOSE_TAG, OPEN_TAG, ChatTemplate, ControlTokens
from ..errors import ModelError, RewardError, first_line
from ..modeling.folder import ahead

TAGS = re.compile(f"{OPEN_TAG}|{CLOSE_TAG}")


def load_reward_tokenizer(path: str, revision: str | None, source: str) -> PreTrainedTokenizerBase:
    """A reward model's own tokenizer. Raises ModelError, which opens with `source`, when there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    # Loaders of other libraries raise what they like for a folder that is none or torn.
    except Exception as error:
        raise ModelError(
            f"{source}: cannot load the tokenizer ({type(error).__name__}: {first_line(error)}){ahead(path)}"
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


@dataclass(frozen=True)
class Rendered:
    """One conversation as the reward model reads it."""

    ids: list[int]
    respelled: bool
    """A control token or a tag of the text was broken by a space; nothing was left out."""


class Renderer:
    """Renders [user, assistant] conversations for one reward model, without a system prompt.

    Skywork-Reward-V2's card (github.com/SkyworkAI/Skywork-Reward-V2) asks for exactly this: no system prompt, the BOS
    that the template wrote stripped from the text, then tokenised with special tokens, so that one BOS remains. Where
    the tokenizer itself adds none, the template's is put back.

    Two things are done beyond the card, both counted by `Rendered.respelled`. Control tokens of the reward model spelled
    out in a prompt or response (`<|eot_id|>`) would end the turn and let a policy write its own next one: they are broken
    by a space, in a prompt the tags of a trace as well. Templates that rewrite thoughts (Qwen3's keeps only what it
    recognises, others keep the answer alone) would drop text without a word: where that happens the tags are broken by a
    space, and the whole text is read.

    Raises ModelError when the tokenizer has no chat template or the template takes no such conversation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._chat_template = ChatTemplate(tokenizer, source)
        # A response's tags are the form in which its trace is handed over; in a prompt they are somebody's text.
        self._in_prompt, self._in_response = (ControlTokens(tokenizer, tags=tags) for tags in (True, False))
        try:
            self.render("question", "answer")
        except RewardError as error:
            raise ModelError(str(error)) from error

    @property
    def writes_the_date(self) -> bool:
        """Whether the template asks for today's date, and is told a fixed one: scores do not change from day to day."""
        return self._chat_template.asked_for_the_date

    def render(self, prompt: str, response: str) -> Rendered:
        """Token ids of the conversation. Raises RewardError if the template leaves out text whatever is done."""
        prompt, in_prompt = self._in_prompt.break_up(prompt)
        response, in_response = self._in_response.break_up(response)
        respelled = bool(in_prompt or in_response)
        text = self._template(prompt, response)
        if not _holds(text, prompt, response):
            respelled = True
            response = TAGS.sub(_with_space, response)
            text = self._template(prompt, response)
            if not _holds(text, prompt, response):
                raise RewardError(f"{self._source}: the chat template leaves out part of the conversation; mend it")
        return Rendered(self._tokenize(text), respelled)

    def _template(self, prompt: str, response: str) -> str:
        try:
            return self._chat_template.render(
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            )
        except ModelError as error:
            raise RewardError(str(error)) from error

    def _tokenize(self, text: str) -> list[int]:
        bos = self._tokenizer.bos_token
        written = bool(bos) and text.startswith(bos)
        if written:
            text = text[len(bos) :]
        # verbose=False: the tokenizer's own warning about length would repeat what `overlong` counts.
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        if written and ids[:1] != [self._tokenizer.bos_token_id]:
            ids = [self._tokenizer.bos_token_id, *ids]
        return ids


def _with_space(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"


def _holds(text: str, prompt: str, response: str) -> bool:
    """Whether every word of prompt and response is in the rendered text; templates may trim and may move the tags."""
    return all(part.strip() in text for part in (prompt, *TAGS.split(response)))
