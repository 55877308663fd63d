"""Guard models as judges, in vLLM, by the log-probabilities of their verdict (guard_families.py)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...conversation.template import ChatTemplate, ControlTokens
from ...errors import ConfigError, JudgeError, ModelError, first_line
from ...modeling.folder import ahead, check_model_folder
from ...rewards.conversation import shortened
from ...settings.evaluation import JudgeSettings
from ..engine import free_memory
from .guard_families import (
    REFUSAL_WORDS,
    GuardFamily,
    guard_family,
    read_verdict,
    word_of,
)
from .judge import UNREAD, JudgeItem, RefusalIn, Verdict, judge

# Imported late elsewhere: the kinds of judges are known without torch.
if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_MODEL_TOKENS = 8192


class GuardPrompts:
    """Writes [user, assistant] conversations by the guard's own chat template, which judges the assistant's turn, or by the
    prompt of a family that has none.

    Contents are given as strings, or as lists of text parts where the template asks for these (Llama Guard 3 1B). Control
    tokens of the guard that a request or text spells out are broken by a space: they could end the conversation and
    speak for the guard.

    Raises ModelError when there is no chat template or it leaves out part of a conversation.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        source: str,
        template_arguments: Mapping[str, Any] | None = None,
        *,
        prompt: str = "",
        control_texts: Sequence[str] = (),
    ) -> None:
        self._tokenizer, self._prompt = tokenizer, prompt
        self._template = None if prompt else ChatTemplate(tokenizer, source)
        self._arguments = dict(template_arguments or {})
        # A text's tags are the form in which its trace is handed over; in a request they are somebody's text.
        self._in_request, self._in_text = (
            ControlTokens(tokenizer, tags=tags, more=control_texts) for tags in (True, False)
        )
        self._as_parts = False
        probe = ("a request to look at", "a text to look at")
        failure: ModelError | None = None
        for self._as_parts in (False, True):
            try:
                if all(part in self._render(*probe) for part in probe):
                    return
            except ModelError as error:
                failure = failure or error
        raise failure or ModelError(
            f"{source}: the chat template takes no [user, assistant] conversation, or leaves part of it out"
        )

    def ids(self, request: str, text: str) -> list[int]:
        """Token ids of the whole prompt; the template wrote the special tokens."""
        rendered = self.text(request, text)
        ids: list[int] = self._tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def text(self, request: str, text: str) -> str:
        """The prompt as text."""
        try:
            return self._render(self._in_request.break_up(request)[0], self._in_text.break_up(text)[0])
        except ModelError as error:
            raise JudgeError(str(error)) from error

    def respelled(self, request: str, text: str) -> bool:
        """Whether control tokens that request or text spell out are broken."""
        return bool(self._in_request.find(request) or self._in_text.find(text))

    def _render(self, request: str, text: str) -> str:
        if self._template is None:
            filled = {"{{QUESTION}}": request, "{{ANSWER}}": text}
            return re.sub(r"\{\{(?:QUESTION|ANSWER)\}\}", lambda match: filled[match[0]], self._prompt)
        messages = [
            {"role": role, "content": [{"type": "text", "text": content}] if self._as_parts else content}
            for role, content in (("user", request), ("assistant", text))
        ]
        return self._template.render(messages, add_generation_prompt=True, **self._arguments)


def _tells_refusals(settings: JudgeSettings, key: str) -> RefusalIn:
    if settings.path is None:
        return "nowhere"
    family = guard_family(settings.arguments.get("family", "auto"), settings.path, key)
    return "details" if family.tells_refusals else "nowhere"


@judge("guard", needs="engine", refusal_in=_tells_refusals)
class GuardJudge:
    """Llama Guard 3, Granite Guardian 3.x, WildGuard or Qwen3Guard-Gen.

    One engine in this process, greedy, all items of a call in one batch. Prompts over `max_model_tokens` lose the middle
    of the judged text (counters `overlong`); where the request alone is too long the verdict is None, `unread`.
    `respelled` counts items that spell out control tokens of the guard, which are broken by a space.
    A reply that did not end by itself gives no verdict, `cut off`, whatever it begins with.
    """

    def __init__(
        self,
        *,
        path: str,
        name: str = "guard",
        family: str = "auto",
        revision: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        dtype: str = "bfloat16",
        max_model_tokens: int = MAX_MODEL_TOKENS,
        seed: int = 0,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        """`family`: llama_guard, granite_guardian, wildguard, qwen3guard, or auto (by the path).
        `template_arguments` are laid over the family's, `engine` over our arguments of `vllm.LLM`.

        Raises ConfigError for an unknown family or arguments that vLLM refuses, ModelError for an unusable model.
        """
        key = f"evaluation.judges.{name}"
        self.name = name
        self.counters: Counter[str] = Counter()
        self.check(key, path=path, family=family, max_model_tokens=max_model_tokens)
        self._family = guard_family(family, path, key)
        self._max_prompt_tokens = max_model_tokens - self._family.max_reply_tokens
        source = f"{key}.path={path}"
        try:
            check_model_folder(path)
        except ModelError as error:
            raise ModelError(f"{key}.path: {error}") from error  # which names the folder
        try:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
        # Loaders of other libraries raise what they like for a folder that is none or torn.
        except Exception as error:
            raise ModelError(f"{source}: cannot load the tokenizer ({first_line(error)}){ahead(path)}") from error
        arguments = {**self._family.template_arguments, **(template_arguments or {})}
        self._prompts = GuardPrompts(
            tokenizer, source, arguments, prompt=self._family.prompt, control_texts=self._family.control_texts
        )
        self._tokenizer = tokenizer
        self._family = replace(self._family, pieces={**self._family.pieces, **first_pieces(tokenizer, self._family)})
        self._stop_ids = stop_token_ids(tokenizer, path, revision)
        self._verdict_ids = verdict_token_ids(tokenizer, self._family)
        if not self._verdict_ids:
            raise ModelError(f"{source}: no token of the vocabulary is a verdict of {self._family.name}")
        from vllm import LLM
        from vllm.exceptions import VLLMClientError

        try:
            self._llm: Any = LLM(
                **{
                    "model": path,
                    "revision": revision,
                    "dtype": dtype,
                    "seed": seed,
                    "skip_tokenizer_init": True,
                    "generation_config": "vllm",
                    "load_format": "safetensors",
                    "config_format": "hf",
                    "max_model_len": max_model_tokens,
                    "disable_log_stats": True,
                    **(engine or {}),
                }
            )
        except (ValueError, OSError, VLLMClientError) as error:
            raise ConfigError(f"{source}: vLLM refuses this model or its arguments: {error}") from error

    @staticmethod
    def check(
        key: str, *, path: str, family: str = "auto", max_model_tokens: int = MAX_MODEL_TOKENS, **others: Any
    ) -> None:
        """What can be told of the options without the model. Raises ConfigError."""
        longest = guard_family(family, path, key).max_reply_tokens
        if max_model_tokens <= longest:
            raise ConfigError(f"{key}.max_model_tokens={max_model_tokens}: must be above {longest}")

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """Verdicts as guard_families.read_verdict reads them."""
        from vllm import SamplingParams

        assert self._llm is not None, "this judge is closed"
        prompts = [self._prompt_ids(item) for item in items]
        readable = [position for position, ids in enumerate(prompts) if ids is not None]
        verdicts = [Verdict(None, UNREAD)] * len(items)
        if not readable:
            return verdicts
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=self._family.max_reply_tokens,
            logprob_token_ids=self._verdict_ids,
            detokenize=False,
            stop_token_ids=self._stop_ids,
        )
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompts[position]} for position in readable], parameters, use_tqdm=False
        )
        for position, output in zip(readable, outputs, strict=True):
            verdicts[position] = self._read(output.outputs[0])
        return verdicts

    def close(self) -> None:
        """Shut the engine down and give its memory back."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            free_memory()

    def _prompt_ids(self, item: JudgeItem) -> list[int] | None:
        def fits(text: str) -> bool:
            return len(self._prompts.ids(item.request, text)) <= self._max_prompt_tokens

        kept = shortened(item.request, item.text, fits)
        if kept != item.text:
            self.counters["overlong" if kept is not None else "unread"] += 1
        if self._prompts.respelled(item.request, item.text):
            self.counters["respelled"] += 1
        return None if kept is None else self._prompts.ids(item.request, kept)

    def _read(self, completion: Any) -> Verdict:
        if completion.finish_reason != "stop":
            self.counters["cut_off"] += 1
            return Verdict(None, "cut off")
        tokens = [self._tokenizer.decode([token]) for token in completion.token_ids]
        logprobs = [self._by_text(position) for position in completion.logprobs]
        verdict = read_verdict(tokens, logprobs, self._family)
        if verdict.safety is None:
            self.counters["unparsable"] += 1
        return verdict

    def _by_text(self, entries: Mapping[int, Any]) -> dict[str, float]:
        """Log-probs by token text; several tokens of one text count together."""
        result: dict[str, float] = {}
        for token, entry in entries.items():
            text = self._tokenizer.decode([token])
            result[text] = float(np.logaddexp(result.get(text, -math.inf), entry.logprob))
        return result


def verdict_token_ids(tokenizer: PreTrainedTokenizerBase, family: GuardFamily) -> list[int]:
    """Ids of all tokens that are a verdict, variants included: theirs are the log-probs to ask for."""
    words = {*family.words, *family.pieces, *(REFUSAL_WORDS if family.tells_refusals else ())}
    # Most tokens are ruled out by their own spelling, which is cheaper than decoding a whole vocabulary.
    candidates = (index for token, index in tokenizer.get_vocab().items() if word_of(token) in words)
    return sorted(index for index in candidates if word_of(tokenizer.decode([index])) in words)


def first_pieces(tokenizer: PreTrainedTokenizerBase, family: GuardFamily) -> dict[str, str]:
    """Beginnings that this tokenizer splits off the family's words, with the class that they stand for.

    A beginning of fewer than two letters, or one that could begin another class's word, stands for none.
    """
    found: dict[str, str] = {}
    for word, name in family.words.items():
        for variant in (word, word.capitalize(), word.upper()):
            first = tokenizer.encode(f" {variant}", add_special_tokens=False)[:1]
            piece = word_of(tokenizer.decode(first))
            shared = any(other.startswith(piece) for other, its in family.words.items() if its != name)
            if len(piece) >= 2 and word.startswith(piece) and piece != word and not shared:
                found[piece] = name
    return found


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, path: str, revision: str | None) -> list[int]:
    """Ids that end a reply: the tokenizer's, and those of the model's configuration."""
    from transformers import AutoConfig

    configured = (
        AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False).get_text_config().eos_token_id
    )
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return sorted(int(one) for one in ids if one is not None)
