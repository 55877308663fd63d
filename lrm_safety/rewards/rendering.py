"""A prompt and a response as token ids of a reward model: its own chat template, its own tokenizer, nothing lost."""

from __future__ import annotations

import re
from dataclasses import dataclass

import jinja2
from transformers import PreTrainedTokenizerBase

from lrm_safety.conversation import CLOSE_TAG, OPEN_TAG
from lrm_safety.errors import ModelError, RewardError

TAGS = re.compile(f"{OPEN_TAG}|{CLOSE_TAG}")
# Llama 3.2's template writes today's date unless it is told one: the same text would score differently tomorrow.
TEMPLATE_DATE = "26 Jul 2024"


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

    Two things are done beyond the card, both counted by `Rendered.respelled`. Control tokens of the reward model
    spelled out in a prompt or response (`<|eot_id|>`) would end the turn and let a policy write its own next one: they
    are broken by a space. Templates that rewrite thoughts (Qwen3's keeps only what it recognises, others keep the
    answer alone) would drop text without a word: where that happens the tags are broken by a space, and the whole text
    is read.

    Raises ModelError when the tokenizer has no chat template or the template takes no such conversation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        if tokenizer.chat_template is None:
            raise ModelError(f"{source}: the tokenizer has no chat template; a reward model needs its own")
        self._tokenizer = tokenizer
        self._source = source
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        controls = (special | set(tokenizer.all_special_tokens)) - {OPEN_TAG, CLOSE_TAG, ""}
        longest_first = sorted(controls, key=lambda token: (-len(token), token))
        self._controls = re.compile("|".join(map(re.escape, longest_first))) if controls else None
        try:
            self.render("question", "answer")
        except RewardError as error:
            raise ModelError(str(error)) from error

    def render(self, prompt: str, response: str) -> Rendered:
        """Token ids of the conversation. Raises RewardError if the template leaves out text whatever is done."""
        prompt, num_prompt = self._break_controls(prompt)
        response, num_response = self._break_controls(response)
        respelled = num_prompt + num_response > 0
        text = self._template(prompt, response)
        if not _holds(text, prompt, response):
            respelled = True
            response = TAGS.sub(_with_space, response)
            text = self._template(prompt, response)
            if not _holds(text, prompt, response):
                raise RewardError(f"{self._source}: the chat template leaves out part of the conversation; mend it")
        return Rendered(self._tokenize(text), respelled)

    def _break_controls(self, text: str) -> tuple[str, int]:
        return self._controls.subn(_with_space, text) if self._controls else (text, 0)

    def _template(self, prompt: str, response: str) -> str:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, date_string=TEMPLATE_DATE)
        except jinja2.TemplateError as error:
            raise RewardError(f"{self._source}: the chat template refuses a conversation ({error})") from error
        assert isinstance(text, str)
        return text

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
