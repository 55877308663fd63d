"""Model families: how each renders a prompt, writes a trace and an answer, and ends a response.

A family is data. What the tokenizer's own chat template does is left to it; what the template cannot tell (who opens
the trace, which tags wrap the answer, which tokens end a response) is stated here once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lrm_safety.conversation.response import CLOSE_TAG, OPEN_TAG
from lrm_safety.errors import ConfigError, DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Family:
    """How one family of models converses.

    Attributes:
        name: the value of `model.family`.
        trace_opened_by: "prompt" when the chat template ends in `<think>`, "model" when the model writes the tag
            itself, "nobody" when responses hold no trace.
        sft_layout: everything a model writes after the generation prompt, end token excepted.
        end_tokens: tokens that end a response, the one to train on first. The tokenizer's eos always counts too.
        template_kwargs: arguments for the chat template.
        answer_tags: the optional pair of tags around the answer.
        takes_system_prompt: False where a system prompt would replace the template's own request to reason.
    """

    name: str
    trace_opened_by: Literal["prompt", "model", "nobody"]
    sft_layout: str
    end_tokens: tuple[str, ...] = ()
    template_kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    answer_tags: tuple[str, str] | None = None
    takes_system_prompt: bool = True

    @property
    def writes_trace(self) -> bool:
        return self.trace_opened_by != "nobody"

    def render_prompt(
        self, tokenizer: PreTrainedTokenizerBase, question: str, system_prompt: str | None = None
    ) -> list[int]:
        """Token ids of `question` through the tokenizer's chat template, generation prompt included.

        `system_prompt=None` sends none of ours; some templates (SmolLM2, Granite) then write their own.

        Raises ModelError when the tokenizer has no chat template or the template opens the trace otherwise than the
        family says, and ConfigError for a system prompt that the family cannot take.
        """
        if tokenizer.chat_template is None:
            raise ModelError(f"model.family={self.name}: the tokenizer has no chat template; add chat_template.jinja")
        messages = [{"role": "user", "content": question}]
        if system_prompt is not None:
            if not self.takes_system_prompt:
                raise ConfigError(
                    f"model.family={self.name}: a system prompt replaces the template's request to reason; give none"
                )
            messages.insert(0, {"role": "system", "content": system_prompt})
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **self.template_kwargs
        )
        assert isinstance(ids, list)
        self._check_opening(tokenizer, ids)
        return ids

    def _check_opening(self, tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int]) -> None:
        # Early revisions of the R1 distillations end their prompt without the tag, later ones with it: parsing one as
        # the other reads every trace as an answer.
        tail = tokenizer.decode(prompt_ids[-8:], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        opened = tail.rstrip().endswith(OPEN_TAG)
        if opened != (self.trace_opened_by == "prompt"):
            does = "opens" if opened else "does not open"
            raise ModelError(
                f"model.family={self.name}: the chat template {does} {OPEN_TAG} in the prompt, which this family does "
                "not expect; choose another family or use the model's current chat template"
            )

    def stop_token_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Ids that end a response; the first is the one that `sft_response_ids` writes.

        Raises ModelError when the tokenizer lacks the family's end token, or has none at all.
        """
        added = tokenizer.get_added_vocab()
        if self.end_tokens and self.end_tokens[0] not in added:
            raise ModelError(f"model.family={self.name}: the tokenizer has no {self.end_tokens[0]}; check model.family")
        ids = [added[token] for token in self.end_tokens if token in added]
        if tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
        if not ids:
            raise ModelError(f"model.family={self.name}: the tokenizer has no eos token, so no response would ever end")
        return list(dict.fromkeys(ids))

    def sft_target(self, trace: str, answer: str) -> str:
        """What the model should write after the generation prompt, without the end token.

        Raises DataError when the trace or the answer holds a tag of the family, which would move the boundary.
        """
        for tag in (OPEN_TAG, CLOSE_TAG, *(self.answer_tags or ())) if self.writes_trace else ():
            if tag in trace or tag in answer:
                raise DataError(f"a trace or answer to train on holds {tag}: mend or drop the row")
        return self.sft_layout.format(trace=trace.strip(), answer=answer.strip())

    def sft_response_ids(self, tokenizer: PreTrainedTokenizerBase, trace: str, answer: str) -> list[int]:
        """Token ids of `sft_target` and the end token, to be appended to those of `render_prompt`.

        Chat templates are no help here: those of R1 and Qwen3 drop traces from the assistant's turns.
        """
        ids = tokenizer.encode(self.sft_target(trace, answer), add_special_tokens=False)
        return [*ids, self.stop_token_ids(tokenizer)[0]]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # The model card advises against a system prompt. pad and eos are the same token, so only a stop id ends a body.
        Family(
            name="deepseek_r1_distill",
            trace_opened_by="prompt",
            sft_layout="{trace}\n</think>\n\n{answer}",
            end_tokens=("<｜end▁of▁sentence｜>",),
        ),
        Family(
            name="qwen3",
            trace_opened_by="model",
            sft_layout="<think>\n{trace}\n</think>\n\n{answer}",
            end_tokens=("<|im_end|>", "<|endoftext|>"),
            template_kwargs={"enable_thinking": True},
        ),
        # All four tags are ordinary text in Granite's vocabulary.
        Family(
            name="granite_4_tiny_preview",
            trace_opened_by="model",
            sft_layout="<think>{trace}</think><response>{answer}</response>",
            end_tokens=("<|end_of_text|>",),
            template_kwargs={"thinking": True},
            answer_tags=("<response>", "</response>"),
            takes_system_prompt=False,
        ),
        Family(name="plain", trace_opened_by="nobody", sft_layout="{answer}"),
        Family(
            name="miniature",
            trace_opened_by="prompt",
            sft_layout="{trace}\n</think>\n\n{answer}",
            end_tokens=("<|end|>",),
        ),
    )
}


def get_family(name: str) -> Family:
    """The family called `name`; raises ConfigError with the known names."""
    if name not in FAMILIES:
        raise ConfigError(f"model.family={name!r} is unknown; choose one of {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]
