"""Which sampling each family is measured with, and which settings are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from family_tokenizers import TEMPLATES
from made_evaluations import tokenizer

from lrm_safety.conversation.families import FAMILIES, get_family
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.plan import check_template_thinks, choose_protocol, sampling_parameters
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


def test_a_family_that_writes_traces_is_measured_thinking() -> None:
    for family in map(get_family, FAMILIES):
        assert family.protocol is None or family.protocol.thinking == family.writes_trace


@pytest.mark.parametrize("protocol", ["deepseek_r1", "qwen3_thinking", "granite_thinking"])
def test_a_model_that_cannot_think(protocol: str) -> None:
    with pytest.raises(ConfigError) as refused:
        chosen("plain", protocol=protocol)
    message = str(refused.value)
    assert message.startswith(f"evaluation.protocol={protocol}: ") and "model.family=plain writes no trace" in message
    assert "evaluation.protocol=plain" in message and "\n" not in message


def tokenizer_with(template: str) -> Any:
    """Any tokenizer, with one of the chat templates that the families' tests read."""
    found = copy.deepcopy(tokenizer())
    found.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    return found


@pytest.mark.parametrize(
    ("family", "template", "thinks"),
    [
        ("qwen3", "qwen3", True),
        ("granite_4_tiny_preview", "granite_thinking", True),
        ("deepseek_r1_distill", "deepseek_r1_distill", True),
        ("miniature", "miniature", True),
        ("qwen3", "smollm2", False),
        ("qwen3", "granite_thinking", False),  # its switch has another name
        ("granite_4_tiny_preview", "smollm2", False),
    ],
)
def test_a_template_tells_whether_its_model_can_think(family: str, template: str, thinks: bool) -> None:
    known = get_family(family)
    protocol = choose_protocol(EvaluationSettings(), known, TRAINING)
    assert protocol.thinking
    if thinks:
        check_template_thinks(protocol, known, tokenizer_with(template))
        return
    with pytest.raises(
        ConfigError, match=rf"^evaluation\.protocol={protocol.name}: .*model\.family={family}"
    ) as refused:
        check_template_thinks(protocol, known, tokenizer_with(template))
    assert "\n" not in str(refused.value) and next(iter(known.template_kwargs)) in str(refused.value)


def test_nothing_is_asked_of_a_template_without_a_thinking_protocol() -> None:
    warm = choose_protocol(EvaluationSettings(protocol="plain", temperature=0.5), get_family("qwen3"), TRAINING)
    check_template_thinks(warm, get_family("qwen3"), tokenizer_with("smollm2"))
    plain = choose_protocol(EvaluationSettings(), get_family("plain"), TRAINING)
    check_template_thinks(plain, get_family("plain"), tokenizer_with("smollm2"))


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"protocol": "plain"}, {"top_k": 1}])
@pytest.mark.parametrize("family", ["deepseek_r1_distill", "qwen3", "granite_4_tiny_preview", "miniature"])
def test_greedy_thinking_is_refused(family: str, settings: dict[str, Any]) -> None:
    key = "top_k=1" if "top_k" in settings else "temperature=0"
    with pytest.raises(ConfigError, match=rf"^evaluation\.{key}: greedy.*model\.family={family}"):
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


def test_greedy_means_temperature_zero_or_the_one_best_token() -> None:
    greedy = choose_protocol(EvaluationSettings(), get_family("plain"), TRAINING)
    warm = choose_protocol(EvaluationSettings(temperature=0.1), get_family("plain"), TRAINING)
    assert greedy.greedy and not warm.greedy and not greedy.thinking
    best = choose_protocol(EvaluationSettings(temperature=0.7, top_k=1), get_family("plain"), TRAINING)
    two = choose_protocol(EvaluationSettings(temperature=0.7, top_k=2), get_family("plain"), TRAINING)
    assert best.greedy and not two.greedy


def test_what_the_engine_is_told() -> None:
    protocol = choose_protocol(EvaluationSettings(max_response_tokens=50), get_family("qwen3"), TRAINING)
    assert sampling_parameters(protocol, (3, 4)) == SamplingParameters(0.6, 0.95, 20, 50, (3, 4))
