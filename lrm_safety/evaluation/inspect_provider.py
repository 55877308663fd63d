"""Models of this project as an Inspect provider: `inspect eval ... --model lrm_safety/PATH -M family=NAME`.

Responses come from vLLM in this process, all requests that are open together in one queue, or from an evaluation's store. The
trace is Inspect's reasoning content; a log holds no token ids, which as JSON numbers would be most of its bytes and time.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from ..conversation.families import get_family
from ..conversation.response import ParsedResponse, ResponseParser
from ..errors import ConfigError, LrmSafetyError
from ..modeling.configuration import load_tokenizer
from ..rollouts import GenerationRequest, SamplingParameters
from ..settings import ModelSettings, RolloutSettings
from ..settings.components import Dtype
from ..settings.evaluation import EvaluationSettings
from ..settings.paths import resolve
from ..settings.types import AutoDevice
from .attacks import AttackedPrompt
from .batcher import Batcher
from .engine import Engine, context_tokens, engine_spec, resolve_device
from .plan import Planner, choose_protocol, sampling_parameters
from .remote import RemoteResponse
from .responses import Generated

if TYPE_CHECKING:
    from numpy import ndarray

NUM_CONNECTIONS = 10_000
"""Every open sample may ask at once: the engine, not the harness, decides what runs together."""
METADATA_KEY = "lrm_safety"

Respond = Callable[[tuple["ndarray", int]], Awaitable[Generated | RemoteResponse]]
"""Prompt ids and seed to a response."""
RequestKey = tuple[bytes, int]
"""Prompt ids and seed: what a response is a function of."""


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Errors of ours as Inspect's class for what the user can mend, which it prints without a traceback."""
    try:
        yield
    except LrmSafetyError as error:
        raise PrerequisiteError(f"error: {error}") from error


def request_key(prompt_ids: ndarray, seed: int) -> RequestKey:
    """Key of a stored response."""
    return prompt_ids.tobytes(), seed


class EngineModel(ModelAPI):
    """Single-turn conversations with one model of a known family."""

    def __init__(self, model_name: str, planner: Planner, parser: Any, *, respond: Respond) -> None:
        """`respond` is an engine behind a batcher, or the store of an evaluation; `parser` reads its kind of response."""
        super().__init__(model_name)
        self._planner, self._parser, self._respond = planner, parser, respond
        self._unseeded = itertools.count()

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Raises ConfigError for tools and for conversations of several turns, which the families here do not render."""
        if tools:
            raise ConfigError("lrm_safety models: tools are not supported")
        prompt_ids, prefill_ids = self._planner.render(_single_turn(input))
        self._planner.check_length(prompt_ids, "lrm_safety models: a question")
        # A task that sets no seed asks the same prompt again in its next epoch, and wants another response.
        seed = next(self._unseeded) if config.seed is None else config.seed
        one = await self._respond((prompt_ids, seed))
        response = one.parsed(self._parser, prefill_ids)
        content: list[Content] = []
        if response.trace:
            content.append(ContentReasoning(reasoning=response.trace))
        content.append(ContentText(text=response.answer))
        return ModelOutput(
            model=self.model_name,
            choices=[
                ChatCompletionChoice(
                    message=ChatMessageAssistant(content=content, source="generate", model=self.model_name),
                    stop_reason="stop" if response.finished else "max_tokens",
                )
            ],
            usage=_usage(len(prompt_ids), one, response) if isinstance(one, Generated) else None,
            metadata={METADATA_KEY: {"status": response.status}},
        )

    def max_connections(self) -> int:
        return NUM_CONNECTIONS


def _usage(num_prompt_tokens: int, one: Generated, response: ParsedResponse) -> ModelUsage:
    return ModelUsage(
        input_tokens=num_prompt_tokens,
        output_tokens=one.num_tokens,
        total_tokens=num_prompt_tokens + one.num_tokens,
        reasoning_tokens=one.num_trace_tokens(response),
    )


def _single_turn(messages: list[ChatMessage]) -> AttackedPrompt:
    """The user's turn and, where the last message is the assistant's, the beginning it forces on the response."""
    turns = [message for message in messages if not isinstance(message, ChatMessageSystem)]
    if len(turns) < len(messages):
        raise ConfigError("lrm_safety models: set the system prompt with -M system_prompt=..., not in the task")
    prefill = turns.pop().text if turns and isinstance(turns[-1], ChatMessageAssistant) else None
    if len(turns) != 1 or not isinstance(turns[0], ChatMessageUser):
        raise ConfigError("lrm_safety models: conversations of several turns are not supported")
    return AttackedPrompt(turns[0].text, prefill)


def response_of(output: ModelOutput) -> ParsedResponse:
    """The parsed response in the output of any provider: ours states its status, of others it is inferred."""
    message = output.choices[0].message
    parts = [message.content] if isinstance(message.content, str) else message.content
    trace = "".join(part.reasoning for part in parts if isinstance(part, ContentReasoning))
    answer = "".join(
        part if isinstance(part, str) else part.text for part in parts if isinstance(part, str | ContentText)
    )
    finished = output.stop_reason not in ("max_tokens", "model_length")
    usage = output.usage
    num_trace = (usage.reasoning_tokens or 0) if usage else 0
    num_answer = usage.output_tokens - num_trace if usage else 0
    if known := (output.metadata or {}).get(METADATA_KEY):
        return ParsedResponse(trace, answer, known["status"], num_trace, num_answer, finished)
    status: Any = "complete"
    if not finished:
        status = "unfinished_answer" if answer.strip() else "unfinished_trace"
    elif not answer.strip():
        status = "empty_answer"
    return ParsedResponse(trace.strip(), answer.strip(), status, num_trace, num_answer, finished)


@modelapi(name="lrm_safety")
def lrm_safety() -> Any:
    """`lrm_safety/PATH`: a folder, `cache:NAME`, `package:...` or hub id."""
    return _CommandLineModel


class _CommandLineModel(EngineModel):
    """What `inspect eval --model lrm_safety/PATH -M key=value` makes."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        family: str = "",
        dtype: Dtype = "bfloat16",
        device: AutoDevice = "auto",
        system_prompt: str | None = None,
        max_prompt_tokens: int = 2048,
        max_num_seqs: int = 256,
        kv_cache_bytes: int | None = None,
    ) -> None:
        """`family` must be stated (-M family=deepseek_r1_distill). Sampling is the family's protocol; --temperature,
        --top-p, --top-k and --max-tokens override it."""
        with told_in_one_line():
            if not family:
                raise ConfigError("lrm_safety models: state the conversation family, e.g. -M family=qwen3")
            model = ModelSettings(
                name=model_name,
                path=resolve(model_name, "--model"),
                family=family,
                dtype=dtype,
                system_prompt=system_prompt,
            )
            known = get_family(family)
            tokenizer = load_tokenizer(model)
            settings = EvaluationSettings(
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k,
                max_response_tokens=config.max_tokens,
            )
            context = context_tokens(model.path, None, False)
            # Only the miniature has no protocol of its own; half its context is what it was trained for.
            training = SamplingParameters(1.0, 1.0, 0, 1024 if context is None else min(1024, context // 2), ())
            protocol = choose_protocol(settings, known, training)
            longest = protocol.max_response_tokens
            room = max_prompt_tokens if context is None else min(max_prompt_tokens, context - longest)
            if room < 1:
                raise ConfigError(
                    f"--max-tokens={longest}: leaves no room for a prompt in the context of {context} tokens"
                )
            planner = Planner(
                known, tokenizer, system_prompt=system_prompt, max_prompt_tokens=room, limit_key="-M max_prompt_tokens"
            )
            engine = Engine(
                engine_spec(
                    model,
                    RolloutSettings(max_num_seqs=max_num_seqs, kv_cache_bytes=kv_cache_bytes),
                    device=resolve_device(device),
                    seed=config.seed or 0,
                    max_prompt_tokens=room,
                    max_response_tokens=protocol.max_response_tokens,
                )
            )
            sampling = sampling_parameters(protocol, tuple(known.stop_token_ids(tokenizer)))

        def generate(batch: list[tuple[ndarray, int]], resolve: Callable[[int, Generated], None]) -> None:
            requests = [GenerationRequest(i, i, prompt_ids, seed) for i, (prompt_ids, seed) in enumerate(batch)]
            for chunk in engine.generate(requests, sampling):
                for one in chunk:
                    resolve(one.request_id, Generated.of(one))

        super().__init__(model_name, planner, ResponseParser(known, tokenizer), respond=Batcher(generate))
