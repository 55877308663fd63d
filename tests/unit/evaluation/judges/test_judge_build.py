"""Judges from their configuration, and configurations that are none."""

from __future__ import annotations

import pytest

from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.evaluation.judges.build import build_judge, judge_views
from lrm_safety.evaluation.judges.judge import JudgeItem
from lrm_safety.evaluation.judges.llm import LlmJudge
from lrm_safety.evaluation.judges.python import PythonJudge
from lrm_safety.evaluation.judges.refusal_rules import RefusalRules
from lrm_safety.evaluation.judges.reward_model import RewardModelJudge
from lrm_safety.settings import JudgeSettings

REWARD = "package:lrm_safety/miniature/assets/reward"


def always(request: str, text: str, view: str) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (JudgeSettings("refusal_rules"), RefusalRules),
        (JudgeSettings("python", arguments={"function": f"{__name__}:always"}), PythonJudge),
        (JudgeSettings("llm", arguments={"model": "m", "base_url": "http://localhost:1/v1"}), LlmJudge),
        (
            JudgeSettings("reward_model", path=REWARD, arguments={"encoding": "chat", "low": -4, "high": 4}),
            RewardModelJudge,
        ),
    ],
)
def test_each_kind_by_its_name(settings: JudgeSettings, kind: type) -> None:
    judge = build_judge("mine", settings)
    assert type(judge) is kind and judge.name == "mine"
    judge.close()


def test_options_reach_the_judge() -> None:
    """At these limits every logit is over `high`: all is safe."""
    judge = build_judge("mine", JudgeSettings("reward_model", path=REWARD, arguments={"low": -1000.0, "high": -999.0}))
    verdict = judge.judge([JudgeItem("hello", "world", "answer")])[0]
    judge.close()
    assert verdict.safety == 1.0 and -999 < verdict.details["logit"] < 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            JudgeSettings("refusal_rules", arguments={"strict": True}),
            r"^evaluation\.judges\.mine\.arguments\.strict: unknown option of kind=refusal_rules; known: none$",
        ),
        (
            JudgeSettings("llm", arguments={"model": "m", "base_url": "http://h/v1", "temprature": 1}),
            r"^evaluation\.judges\.mine\.arguments\.temprature: unknown option of kind=llm; known: .*base_url",
        ),
        (JudgeSettings("python"), r"^evaluation\.judges\.mine\.arguments: .*function"),
        (
            JudgeSettings("refusal_rules", path="somewhere"),
            r"^evaluation\.judges\.mine\.path: kind=refusal_rules has none",
        ),
        (
            JudgeSettings("python", arguments={"function": "no_such_module_at_all:f"}),
            r"^evaluation\.judges\.mine\.function=no_such_module_at_all:f: cannot import",
        ),
        (
            JudgeSettings("reward_model", path=REWARD, arguments={"encoding": "both"}),
            r"^evaluation\.judges\.mine\.encoding=both",
        ),
        (
            JudgeSettings("reward_model", path=REWARD, arguments={"low": 1, "high": 1}),
            r"^evaluation\.judges\.mine: low=1 ",
        ),
    ],
)
def test_what_is_no_judge(settings: JudgeSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        build_judge("mine", settings)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_absent(tmp_path: object) -> None:
    with pytest.raises((ConfigError, ModelError), match=r"evaluation\.judges\.mine\.path") as refused:
        build_judge("mine", JudgeSettings("reward_model", path=f"{tmp_path}/absent"))
    assert "absent" in str(refused.value)


def test_views_in_their_order() -> None:
    assert judge_views(JudgeSettings(views=["full", "trace"])) == ("full", "trace")
    assert judge_views(JudgeSettings()) == ("trace", "answer", "full")
