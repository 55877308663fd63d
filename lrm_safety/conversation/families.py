"""Model families: how each renders a prompt, writes a trace and an answer, and ends a response.

A family is data. What the tokenizer's own chat template does is left to it; what the template cannot tell (who opens
the trace, which tags wrap the answer, which tokens end a response) is stated here once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, DataError, ModelError
from ..registry import Registry, check_choices
from .template import CLOSE_TAG, OPEN_TAG, ChatTemplate, ControlTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Protocol:
    """How a family's authors say that it is to be sampled when it is measured; `source` says where."""

    name: str
    temperature: float
    top_p: float
    top_k: int
    """0: off."""
    max_response_tokens: int
    thinking: bool
    source: str

    @property
    def greedy(self) -> bool:
        """One response says everything: sampling it again gives the same."""
        return self.temperature == 0.0 or self.top_k == 1


@dataclass(frozen=True)
class Family:
    """How one family of models converses."""

    name: str
    """What it is called; as `get_family` gives it, the value of `model.family`."""
    trace_opened_by: Literal["prompt", "model", "nobody"]
    """`prompt` when the chat template ends in `<think>`, `model` when the model writes the tag itself, `nobody` when responses
    hold no trace."""
    sft_layout: str
    """Everything a model writes after the generation prompt, end token excepted."""
    end_tokens: tuple[str, ...] = ()
    """Special tokens that end a response, the one to train on first. The tokenizer's eos always counts too."""
    template_kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    """Arguments for the chat template."""
    answer_tags: tuple[str, str] | None = None
    """The optional pair of tags around the answer."""
    takes_system_prompt: bool = True
    """False where a system prompt would replace the template's own request to reason."""
    protocol: Protocol | None = None
    """How it is sampled when it is measured; None: as the run samples its rollouts."""

    def __post_init__(self) -> None:
        check_choices(self)
        try:
            self.sft_layout.format(trace="", answer="")
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"family {self.name}: sft_layout={self.sft_layout!r} has other fields than {{trace}} and {{answer}} ({error})"
            ) from error

    @property
    def writes_trace(self) -> bool:
        return self.trace_opened_by != "nobody"

    def render_prompt(
        self, tokenizer: PreTrainedTokenizerBase, question: str, system_prompt: str | None = None
    ) -> list[int]:
        """Token ids of one question; see `PromptRenderer`, which renders many."""
        return PromptRenderer(self, tokenizer, system_prompt).render(question).ids

    def stop_token_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Ids that end a response; the first is the one that `sft_response_ids` writes.

        Raises ModelError when the tokenizer lacks an end token of the family's, or has none at all.
        """
        added = tokenizer.get_added_vocab()
        if absent := [token for token in self.end_tokens if token not in added]:
            raise ModelError(
                f"model.family={self.name}: end_tokens names {absent[0]}, which the tokenizer of model.path does not have; "
                f"its eos_token is {tokenizer.eos_token}; check model.family"
            )
        ids = [added[token] for token in self.end_tokens]
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


@dataclass(frozen=True)
class RenderedPrompt:
    """One question as the policy reads it."""

    ids: list[int]
    """[P], generation prompt included."""
    respelled: list[str]
    """Control tokens of the question that were broken by a space."""


class PromptRenderer:
    """Renders questions through a tokenizer's own chat template, generation prompt included.

    `system_prompt=None` sends none of ours; some templates (SmolLM2, Granite) then write their own. Control tokens that
    question or system prompt spell out are broken by a space, tags of the trace in a question too: users' text neither ends
    a turn nor writes one.

    Raises ModelError, which names the model's folder, when there is no chat template, when it fails, leaves a question out
    or opens the trace otherwise than the family says, and ConfigError for a system prompt that family or template refuse.
    """

    def __init__(self, family: Family, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None = None) -> None:
        if system_prompt is not None and not family.takes_system_prompt:
            raise ConfigError(
                f"model.system_prompt: model.family={family.name}: a system prompt replaces the template's request to reason; "
                "give none"
            )
        self._family, self._tokenizer = family, tokenizer
        self._source = f"model.path={tokenizer.name_or_path}, model.family={family.name}"
        self._template = ChatTemplate(tokenizer, self._source)
        self._controls = ControlTokens(tokenizer, tags=True)
        # The tags may stand in a system prompt, which asks for them.
        self._system_prompt: str | None = None
        self.respelled_in_system_prompt: list[str] = []
        if system_prompt is not None:
            broken, self.respelled_in_system_prompt = ControlTokens(tokenizer, tags=False).break_up(system_prompt)
            self._system_prompt = broken
        self._check_system_prompt()
        self.render("question")

    @property
    def writes_the_date(self) -> bool:
        """Whether the template asks for today's date, and is told `TEMPLATE_DATE`."""
        return self._template.asked_for_the_date

    def render(self, question: str) -> RenderedPrompt:
        """One question. Raises ModelError where the template fails on it, DataError for a question that is read as a control
        token however it is spelled."""
        question, respelled = self._controls.break_up(question)
        text = self._text(question, self._system_prompt)
        if not _holds(text, question):
            raise ModelError(
                f"{self._source}: the chat template leaves out the question, or part of it; mend the template"
            )
        if left := self._controls.read_as(question):
            raise DataError(f"the question is read as the control token {left[0]}: mend or drop the row")
        # verbose=False: the tokenizer's own warning about length would repeat what the limits say.
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        self._check_opening(ids)
        return RenderedPrompt(ids, respelled)

    def _text(self, question: str, system_prompt: str | None) -> str:
        messages = [{"role": "user", "content": question}]
        if system_prompt is not None:
            messages.insert(0, {"role": "system", "content": system_prompt})
        return self._template.render(messages, add_generation_prompt=True, **self._family.template_kwargs)

    def _check_system_prompt(self) -> None:
        if self._system_prompt is None:
            return
        self._text("question", None)  # a template that fails without a system prompt is itself to blame
        try:
            text = self._text("question", self._system_prompt)
        except ModelError as error:
            raise ConfigError(f"model.system_prompt: give none to this model: {error}") from error
        if not _holds(text, self._system_prompt):
            raise ConfigError(
                f"model.system_prompt: the chat template of {self._tokenizer.name_or_path} leaves it out; give none to this "
                "model"
            )

    def _check_opening(self, prompt_ids: list[int]) -> None:
        # Early revisions of the R1 distillations end their prompt without the tag, later ones with it: parsing one as
        # the other reads every trace as an answer.
        tail = self._tokenizer.decode(prompt_ids[-8:], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        opened = tail.rstrip().endswith(OPEN_TAG)
        if opened != (self._family.trace_opened_by == "prompt"):
            does = "opens" if opened else "does not open"
            raise ModelError(
                f"{self._source}: the chat template {does} {OPEN_TAG} in the prompt, which this family does "
                "not expect; choose another family or use the model's current chat template"
            )


def _holds(text: str, part: str) -> bool:
    """Whether every word of `part` is in the rendered text, in order; templates may trim, and may change white space."""
    return " ".join(part.split()) in " ".join(text.split())


FAMILIES: Registry[Family] = Registry("families", Family)


def family(**facts: Any) -> Family:
    """Declare a family of ours."""
    return FAMILIES.add(facts["name"], Family(**facts))


# The model card advises against a system prompt. pad and eos are the same token, so only a stop id ends a body.
family(
    name="deepseek_r1_distill",
    trace_opened_by="prompt",
    sft_layout="{trace}\n</think>\n\n{answer}",
    end_tokens=("<｜end▁of▁sentence｜>",),
    protocol=Protocol("deepseek_r1", 0.6, 0.95, 0, 32768, True, "DeepSeek-R1 model card"),
)
family(
    name="qwen3",
    trace_opened_by="model",
    sft_layout="<think>\n{trace}\n</think>\n\n{answer}",
    end_tokens=("<|im_end|>", "<|endoftext|>"),
    template_kwargs={"enable_thinking": True},
    protocol=Protocol("qwen3_thinking", 0.6, 0.95, 20, 32768, True, "Qwen3 model cards, thinking mode"),
)
# All four tags are ordinary text in Granite's vocabulary.
family(
    name="granite_4_tiny_preview",
    trace_opened_by="model",
    sft_layout="<think>{trace}</think><response>{answer}</response>",
    end_tokens=("<|end_of_text|>",),
    template_kwargs={"thinking": True},
    answer_tags=("<response>", "</response>"),
    takes_system_prompt=False,
    protocol=Protocol(
        "granite_thinking", 0.6, 0.95, 0, 8192, True, "length of the model card; the card gives no sampling"
    ),
)
family(
    name="plain",
    trace_opened_by="nobody",
    sft_layout="{answer}",
    protocol=Protocol("plain", 0.0, 1.0, 0, 1024, False, "greedy; models without traces"),
)
family(
    name="miniature",
    trace_opened_by="prompt",
    sft_layout="{trace}\n</think>\n\n{answer}",
    end_tokens=("<|end|>",),
)
PROTOCOLS = {one.name: one for name in FAMILIES if (one := FAMILIES.get(name, "family").protocol)}
"""The protocols of our families by name."""


def get_family(name: str, key: str = "model.family") -> Family:
    """The family called `name`, or at an import path, which is then its name; raises ConfigError, naming `key`, with the known
    names."""
    return replace(FAMILIES.get(name, key), name=name)
