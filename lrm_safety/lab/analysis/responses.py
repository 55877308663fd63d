"""The responses of a finished `lrm-safety evaluate`, with the trace's span of each, from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...conversation.response import ResponseParser
from ...errors import ConfigError, DataError, first_line
from ...evaluation.run import RESPONSES, PreparedEvaluation, prepare
from ...evaluation.subject import LocalModel
from ...files import read_json
from ...rollouts import TokenIds
from ...settings import EvaluateSettings, ModelSettings
from ...settings.compose import EVALUATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class WrittenResponse:
    """One response as it was sampled."""

    question: str
    prompt_ids: TokenIds
    """[P] everything the model read, a prefilled beginning included."""
    response_ids: TokenIds
    """[T] what it sampled."""
    num_trace_tokens: int
    """The first so many of T belong to the trace."""


@dataclass(frozen=True)
class Written:
    """What one model wrote."""

    model: ModelSettings
    """As config.yaml of the evaluation has it, with its path made absolute."""
    temperature: float
    """Sampling temperature."""
    tokenizer: PreTrainedTokenizerBase
    benchmarks: dict[str, tuple[WrittenResponse, ...]]
    """Responses by benchmark, in the order of the questions."""


def read_evaluation(folder: Path, benchmarks: Sequence[str] = (), limit: int | None = None) -> Written:
    """The responses in `folder` of `benchmarks` (none: all), the first `limit` of each.

    The folder holds token ids of responses only; its prompts are rendered again from config.yaml and must give the same
    ids, or the store refuses. Raises ConfigError, DataError or ModelError in one line.
    """
    settings = _settings(folder)
    model = settings.model
    if model.adapter is not None or model.endpoint.url is not None:
        told = (
            f"model.adapter={model.adapter}: an adapter is not read here; evaluate the merged model, such as RUN/export"
            if model.adapter is not None
            else f"model.endpoint.url={model.endpoint.url}: an endpoint gives no token ids and no log-probs to read"
        )
        raise ConfigError(f"{folder}: {told}")
    known = settings.evaluation.benchmarks
    if missing := [name for name in benchmarks if name not in known]:
        raise ConfigError(
            f"analysis.reflection.benchmarks: {folder} has no {missing[0]}; it has {', '.join(sorted(known))}"
        )
    prepared = prepare(settings, folder)
    written = prepared.subject
    assert isinstance(written, LocalModel)
    return Written(
        model=written.model,
        temperature=written.protocol.temperature,
        tokenizer=written.tokenizer,
        benchmarks={
            planned.name: _read(prepared, written.parser(), position, limit)
            for position, planned in enumerate(prepared.planned)
            if not benchmarks or planned.name in benchmarks
        },
    )


def _read(
    prepared: PreparedEvaluation, parser: ResponseParser, position: int, limit: int | None
) -> tuple[WrittenResponse, ...]:
    planned = prepared.planned[position]
    if missing := prepared.responses.num_missing(planned):
        raise DataError(
            f"{prepared.directory / RESPONSES / planned.name}: {missing} responses are missing; finish the evaluation first"
        )
    responses = []
    for ask, one in zip(planned.asks, prepared.responses.read(planned), strict=True):
        parsed = parser.parse([*ask.prefill_ids.tolist(), *one.ids.tolist()], one.finish_reason)
        num_trace_tokens = max(0, parsed.num_trace_tokens - len(ask.prefill_ids))
        responses.append(WrittenResponse(ask.question.id, ask.prompt_ids, one.ids, num_trace_tokens))
    return tuple(responses[:limit])


def _settings(folder: Path) -> EvaluateSettings:
    """The evaluation's configuration, without its judges: no verdict is read, so no judge's model has to be there."""
    path = folder / "config.yaml"
    try:
        values: Any = OmegaConf.to_container(OmegaConf.load(path))
        identities = sorted((folder / RESPONSES).glob("*/identity.json"))
        # Part of the responses' identity, and perhaps another than this machine's.
        values["run"]["device"] = read_json(identities[0])["device"] if identities else "cpu"
        values["evaluation"]["judges"] = {"none_read": {}}
        return EVALUATE.checked(values)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; name a folder that `lrm-safety evaluate` has written") from error
    except (OSError, ValueError, TypeError, KeyError, OmegaConfBaseException, ConfigError) as error:
        raise DataError(
            f"{folder}: is no evaluation of this version ({first_line(error)}); evaluate the model again"
        ) from error
