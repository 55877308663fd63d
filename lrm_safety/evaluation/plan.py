"""What an evaluation will ask: checked before torch is imported, and planned down to token ids and seeds before it starts.

Sampling is the family's protocol, with the overrides of the configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..conversation.families import PROTOCOLS, Family, PromptRenderer, Protocol
from ..conversation.template import CLOSE_TAG, DATE_STRING, OPEN_TAG
from ..datasets.prompts import check_embedded
from ..errors import ConfigError, DataError
from ..files import number_of
from ..rollouts import SamplingParameters, TokenIds
from ..settings.evaluation import BenchmarkSettings, EvaluationSettings, judge_kind
from ..settings.paths import CACHE_PREFIX, resolve
from .attacks import Attack, AttackedPrompt, make_attack
from .benchmarks.registry import Benchmark, Question, Questions, get_benchmark
from .judges.judge import check_in_training, check_judged, judge_identity, tells_refusals

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def choose_protocol(settings: EvaluationSettings, family: Family, training: SamplingParameters) -> Protocol:
    """The protocol that `settings` ask for, with their overrides.

    Args:
        training: how the run samples its rollouts: the protocol `training`.

    Raises:
        ConfigError: a thinking protocol for a family without traces, or greedy sampling of one with traces (R1 and Qwen3
            repeat themselves without end then).
    """
    chosen = family.protocol if settings.protocol == "auto" else PROTOCOLS.get(settings.protocol)
    protocol = chosen or Protocol(
        "training",
        training.temperature,
        training.top_p,
        training.top_k,
        training.max_response_tokens,
        family.writes_trace,
        "as rollouts are sampled in training",
    )
    if protocol.thinking and not family.writes_trace:
        raise ConfigError(
            f"evaluation.protocol={protocol.name}: is for models that think, and model.family={family.name} writes no trace; use "
            "evaluation.protocol=plain"
        )
    changed = {
        key: value
        for key in ("temperature", "top_p", "top_k", "max_response_tokens")
        if (value := getattr(settings, key)) is not None
    }
    protocol = replace(protocol, **changed)
    if protocol.greedy and family.writes_trace:
        key = "temperature=0" if protocol.temperature == 0.0 else "top_k=1"
        raise ConfigError(
            f"evaluation.{key}: greedy decoding makes reasoning models such as model.family={family.name} repeat "
            "themselves, their cards forbid it; use evaluation.protocol=auto, or a temperature such as 0.6"
        )
    if protocol.top_p == 0.0:
        raise ConfigError("evaluation.top_p=0: must be above 0; 1 samples the whole distribution")
    return protocol


def check_template_thinks(protocol: Protocol, family: Family, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigError when a thinking protocol meets a chat template that knows no thinking.

    A family whose template has a switch for it (`enable_thinking`, `thinking`) tells by turning it: the prompt of a model
    that can think changes. Families without a switch open the trace in the prompt, which rendering checks.
    """
    switches = {name: value for name, value in family.template_kwargs.items() if isinstance(value, bool)}
    if not protocol.thinking or not switches:
        return
    turned = replace(family, template_kwargs=family.template_kwargs | {name: not on for name, on in switches.items()})
    if turned.render_prompt(tokenizer, "question") == family.render_prompt(tokenizer, "question"):
        raise ConfigError(
            f"evaluation.protocol={protocol.name}: is for models that think, and this model's chat template does not know "
            f"{' or '.join(switches)}, the switch of model.family={family.name}; set model.family=plain for a model without "
            "traces"
        )


def sampling_parameters(protocol: Protocol, stop_token_ids: tuple[int, ...]) -> SamplingParameters:
    """What the engine is told."""
    return SamplingParameters(
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        top_k=protocol.top_k,
        max_response_tokens=protocol.max_response_tokens,
        stop_token_ids=stop_token_ids,
    )


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """One response to generate."""

    question: Question
    repeat: int
    target: str
    prompt: str
    """The user turn, attack included."""
    prompt_ids: TokenIds
    """[P] everything the model reads, a prefilled beginning of its response included."""
    prefill_ids: TokenIds
    """[F] the prefilled beginning, which counts as part of the response; [0] without one."""
    seed: int


@dataclass(frozen=True)
class PlannedBenchmark:
    """One benchmark of an evaluation."""

    name: str
    benchmark: Benchmark
    questions: Questions
    samples: int
    attack: str | None
    asks: tuple[Ask, ...]
    """Questions in order, the repeats of each together."""
    num_skipped: int
    """Questions left out because their prompt was too long."""


def load_questions(name: str, settings: BenchmarkSettings, limit: int | None) -> tuple[Benchmark, Questions]:
    """The benchmark and its questions; raises ConfigError or DataError in one line."""
    benchmark = get_benchmark(settings.task, f"evaluation.benchmarks.{name}.task", settings.arguments)
    questions = benchmark.load_checked(settings.arguments, f"evaluation.benchmarks.{name}.arguments")
    return benchmark, questions.limited(settings.limit if settings.limit is not None else limit)


def num_samples(settings: BenchmarkSettings, evaluation: EvaluationSettings, benchmark: Benchmark, greedy: bool) -> int:
    """Responses a question."""
    for stated in (settings.samples, evaluation.samples):
        if stated is not None:
            return stated
    return 1 if greedy else benchmark.default_samples


def request_seed(seed: int, benchmark: str, question_id: str, repeat: int) -> int:
    """The seed of one request: from its name alone, so that no other question's presence changes it."""
    return number_of(f"{seed}|{benchmark}|{question_id}|{repeat}") >> 32  # vLLM and torch take 32 bits


class Planner:
    """Renders questions for one model."""

    def __init__(
        self,
        family: Family,
        tokenizer: PreTrainedTokenizerBase,
        *,
        system_prompt: str | None,
        max_prompt_tokens: int,
        limit_key: str,
        num_embeddings: int | None = None,
    ) -> None:
        """`limit_key` says in errors where `max_prompt_tokens` comes from; `num_embeddings` are the tokens that the model's
        embedding has. Raises as `PromptRenderer` does."""
        self._family, self._tokenizer, self._num_embeddings = family, tokenizer, num_embeddings
        self._renderer = PromptRenderer(family, tokenizer, system_prompt)
        self.num_respelled = 0
        """Prompts rendered so far that spelled out control tokens of the model, which are broken by a space."""
        self._max_prompt_tokens, self._limit_key = max_prompt_tokens, limit_key

    def plan(self, settings: EvaluationSettings, protocol: Protocol) -> list[PlannedBenchmark]:
        """Every benchmark of `settings`; one line says how many prompts spelled out control tokens. Raises ConfigError,
        DataError or ModelError in one line."""
        planned = [self._plan(name, one, settings, protocol) for name, one in settings.benchmarks.items()]
        if self.num_respelled:
            logger.warning(
                "%d prompts of the benchmarks spell out control tokens of the model, which are broken by a space",
                self.num_respelled,
            )
        if self.writes_the_date:
            logger.warning("the model's chat template writes today's date; it is told %s", DATE_STRING)
        return planned

    def render(self, attacked: AttackedPrompt) -> tuple[TokenIds, TokenIds]:
        """Ids of the whole prompt, int32 [P], and of its prefilled part, int32 [F]."""
        prompt = self._renderer.render(attacked.prompt)
        self.num_respelled += bool(prompt.respelled)
        ids = prompt.ids
        check_embedded(ids, self._num_embeddings, self._tokenizer, "evaluation.benchmarks: a question")
        prefill: list[int] = []
        if attacked.prefill:
            text = attacked.prefill
            if not self._family.writes_trace and (OPEN_TAG in text or CLOSE_TAG in text):
                raise ConfigError(
                    f"evaluation.benchmarks: an attack on the trace needs a model that writes one, and "
                    f"model.family={self._family.name} does not"
                )
            if self._family.trace_opened_by == "prompt":
                text = text.removeprefix(OPEN_TAG).removeprefix("\n")
            prefill = self._tokenizer.encode(text, add_special_tokens=False)
        return np.asarray([*ids, *prefill], dtype=np.int32), np.asarray(prefill, dtype=np.int32)

    @property
    def writes_the_date(self) -> bool:
        """Whether the template asks for today's date."""
        return self._renderer.writes_the_date

    def fits(self, prompt_ids: TokenIds) -> bool:
        """Whether the prompt leaves room for the longest response."""
        return len(prompt_ids) <= self._max_prompt_tokens

    def check_length(self, prompt_ids: TokenIds, subject: str, other_mend: str = "") -> None:
        """Raises DataError about `subject` when its prompt does not fit."""
        if not self.fits(prompt_ids):
            raise DataError(
                f"{subject} has {len(prompt_ids)} prompt tokens, over the {self._max_prompt_tokens} of {self._limit_key}; "
                f"raise it{other_mend}"
            )

    def _plan(
        self, name: str, settings: BenchmarkSettings, evaluation: EvaluationSettings, protocol: Protocol
    ) -> PlannedBenchmark:
        benchmark, questions = load_questions(name, settings, evaluation.limit)
        samples = num_samples(settings, evaluation, benchmark, protocol.greedy)
        attack = make_attack(settings.attack, **settings.attack_arguments) if settings.attack else None
        asks: list[Ask] = []
        num_skipped = 0
        for question in questions:
            mine = list(self._asks(name, question, samples, attack, evaluation.seed))
            if all(self.fits(ask.prompt_ids) for ask in mine):
                asks.extend(mine)
            elif evaluation.overlong == "skip":
                num_skipped += 1
            else:
                self.check_length(
                    max((ask.prompt_ids for ask in mine), key=len),
                    f"evaluation.benchmarks.{name}: question {question.id}",
                    ", or evaluation.overlong=skip",
                )
        if not asks:
            raise DataError(f"evaluation.benchmarks.{name}: every prompt is over the context; nothing is left to ask")
        return PlannedBenchmark(name, benchmark, questions, samples, settings.attack, tuple(asks), num_skipped)

    def _asks(self, name: str, question: Question, samples: int, attack: Attack | None, seed: int) -> Iterator[Ask]:
        rendered: dict[str, tuple[TokenIds, TokenIds]] = {}
        for repeat in range(samples):
            asked = question.ask(repeat)
            attacked = attack.apply(asked.prompt, question.id) if attack else AttackedPrompt(asked.prompt, None)
            key = f"{attacked.prefill}\0{attacked.prompt}"
            if key not in rendered:
                rendered = {key: self.render(attacked)}
            ids, prefill = rendered[key]
            yield Ask(
                question,
                repeat,
                asked.target,
                attacked.prompt,
                ids,
                prefill,
                request_seed(seed, name, question.id, repeat),
            )


def check_early(evaluation: EvaluationSettings, *, in_training: bool = False) -> None:
    """Benchmarks with their options and data, and judges with their options, keys and files, models and weights excepted.

    Raises ConfigError, DataError or JudgeError in one line, as the evaluation itself would.
    """
    judged = {}
    for name, settings in evaluation.benchmarks.items():
        with _told_later():
            benchmark, _ = load_questions(name, settings, evaluation.limit)
        if benchmark.judged:
            judged[name] = benchmark.kind
    check_judged(judged, evaluation.judges)
    if not judged:
        return
    for name, judge in evaluation.judges.items():
        if in_training:
            check_in_training(name, judge)
        if judge_kind(judge.kind, f"evaluation.judges.{name}.kind").needs == "nothing":
            judge_identity(name, judge)
        else:
            tells_refusals(judge, f"evaluation.judges.{name}")
            if judge.path is not None and not judge.path.startswith(CACHE_PREFIX):
                resolve(judge.path, f"evaluation.judges.{name}.path")


@contextmanager
def _told_later() -> Iterator[None]:
    """The data is read again for the evaluation, which then says what it left out."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
