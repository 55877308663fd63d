"""How a model is sampled when it is measured: its family's protocol, with the overrides of the configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..conversation import PROTOCOLS, Family, Protocol
from ..errors import ConfigError
from ..rollouts import SamplingParameters
from ..settings.evaluation import EvaluationSettings

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
