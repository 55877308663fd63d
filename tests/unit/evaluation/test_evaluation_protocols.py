"""Which sampling each family is measured with, and which settings are refused."""

from __future__ import annotations

from typing import Any

import pytest

from lrm_safety.conversation import FAMILIES, get_family
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.protocols import OF_FAMILY, PROTOCOLS, choose_protocol, sampling_parameters
from lrm_safety.rollouts import SamplingParameters
from lrm_safety.settings import EvaluationSettings

TRAINING = SamplingParameters(temperature=0.9, top_p=0.8, top_k=7, max_response_tokens=123, stop_token_ids=(5, 6))


def chosen(family: str, **settings: Any) -> tuple[float, float, int, int]:
    one = choose_protocol(EvaluationSettings(**settings), get_family(family), TRAINING)
    return one.temperature, one.top_p, one.top_k, one.max_response_tokens


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("deepseek_r1_distill", (0.6, 0.95, 0, 32768)),  # the model card: T 0.6, top_p 0.95, 32,768 tokens
        ("qwen3", (0.6, 0.95, 20, 32768)),  # the model card adds top_k 20 in thinking mode
        ("granite_4_tiny_preview", (0.6, 0.95, 0, 8192)),
        ("plain", (0.0, 1.0, 0, 1024)),
        ("miniature", (0.9, 0.8, 7, 123)),
    ],
)
def test_protocol_of_each_family(family: str, expected: tuple[float, float, int, int]) -> None:
    assert chosen(family) == expected


def test_every_family_has_a_protocol() -> None:
    assert set(OF_FAMILY) == set(FAMILIES)
    for family, name in OF_FAMILY.items():
        assert name == "training" or PROTOCOLS[name].thinking == get_family(family).writes_trace


@pytest.mark.parametrize("protocol", ["deepseek_r1", "qwen3_thinking", "granite_thinking"])
def test_a_model_that_cannot_think(protocol: str) -> None:
    with pytest.raises(ConfigError) as refused:
        chosen("plain", protocol=protocol)
    message = str(refused.value)
    assert message.startswith(f"evaluation.protocol={protocol}: ") and "model.family=plain writes no trace" in message
    assert "evaluation.protocol=plain" in message and "\n" not in message


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"protocol": "plain"}])
@pytest.mark.parametrize("family", ["deepseek_r1_distill", "qwen3", "granite_4_tiny_preview", "miniature"])
def test_greedy_thinking_is_refused(family: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"greedy.*model\.family={family}"):
        chosen(family, **settings)


def test_settings_go_before_the_protocol() -> None:
    assert chosen("qwen3", temperature=0.3) == (0.3, 0.95, 20, 32768)
    assert chosen("qwen3", top_p=0.5, top_k=0, max_response_tokens=64) == (0.6, 0.5, 0, 64)
    assert chosen("qwen3", protocol="deepseek_r1") == (0.6, 0.95, 0, 32768)
    assert chosen("qwen3", protocol="training", top_k=9) == (0.9, 0.8, 9, 123)
    assert chosen("plain", temperature=0.7) == (0.7, 1.0, 0, 1024)
    assert chosen("miniature", protocol="plain", temperature=0.5)[0] == 0.5


def test_nothing_of_the_distribution_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.top_p=0: must be above 0"):
        chosen("qwen3", top_p=0.0)


def test_greedy_means_temperature_zero() -> None:
    greedy = choose_protocol(EvaluationSettings(), get_family("plain"), TRAINING)
    warm = choose_protocol(EvaluationSettings(temperature=0.1), get_family("plain"), TRAINING)
    assert greedy.greedy and not warm.greedy and not greedy.thinking


def test_what_the_engine_is_told() -> None:
    protocol = choose_protocol(EvaluationSettings(max_response_tokens=50), get_family("qwen3"), TRAINING)
    assert sampling_parameters(protocol, (3, 4)) == SamplingParameters(0.6, 0.95, 20, 50, (3, 4))
