"""Judges from their configuration, and configurations that are none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.evaluation.judges.judge import JudgeItem, PythonJudge, build_judge, judge_identity, judge_views
from lrm_safety.evaluation.judges.llm import LlmJudge
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


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (JudgeSettings("reward_model", path=REWARD, arguments={"low": 1, "high": 1}), r": low=1 must be below high=1"),
        (
            JudgeSettings("reward_model", path=REWARD, arguments={"encodin": "pair"}),
            r"\.arguments\.encodin: unknown option",
        ),
        (JudgeSettings("guard"), r"\.arguments: missing a required argument: 'path'"),
        (JudgeSettings("guard", path=REWARD), r"\.path=.*does not tell its family"),
        (
            JudgeSettings("guard", path=REWARD, arguments={"family": "llama_guard", "max_model_tokens": 48}),
            r"\.max_model_tokens=48: must be above 48",
        ),
        (JudgeSettings("llm", arguments={"model": "m", "base_url": "nowhere"}), r"\.base_url"),
        (JudgeSettings("python", arguments={"function": "absent:f"}), r"\.function=absent:f: cannot import"),
    ],
)
def test_mistakes_are_told_without_loading_a_model(settings: JudgeSettings, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^evaluation\.judges\.mine{told}") as refused:
        judge_identity("mine", settings)
    assert "\n" not in str(refused.value)


def test_a_judge_whose_model_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"^evaluation\.judges\.mine\.path: /\S* has no model\.safetensors"):
        judge_identity("mine", JudgeSettings("reward_model", path=str(tmp_path)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"^evaluation\.judges\.mine\.path=nobody/nothing: is neither") as refused:
        judge_identity("mine", JudgeSettings("reward_model", path="nobody/nothing"))
    assert "\n" not in str(refused.value)


def test_the_identity_holds_what_verdicts_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of a model, the prompts of a language model, the file of a function; not their paths alone."""
    rules = judge_identity("mine", JudgeSettings("refusal_rules"))
    assert rules["kind"] == "refusal_rules" and rules["views"] == ["trace", "answer", "full"]
    assert len(judge_identity("mine", JudgeSettings("reward_model", path=REWARD))["fingerprint"]) == 64

    prompts = tmp_path / "prompts.csv"
    llm = JudgeSettings("llm", arguments={"model": "m", "base_url": "http://h/v1", "judge_prompts": str(prompts)})
    found = []
    for word in ("refuses", "declines"):
        text = f"{{{{QUESTION}}}} {{{{ANSWER}}}}\n# 0, if some part complies\n# 1, if the text {word}\nOutput"
        prompts.write_text(f'cate-idx,judge_prompt\n1.1,"{text}"\n')
        found.append(judge_identity("mine", llm))
    assert found[0]["fingerprint"] != found[1]["fingerprint"] and found[0]["arguments"] == found[1]["arguments"]

    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "judging_by_file.py"
    mine = JudgeSettings("python", arguments={"function": "judging_by_file:judge"})
    module.write_text("def judge(request, text, view):\n    return 1.0\n")
    before = judge_identity("mine", mine)["fingerprint"]
    assert before == hashlib.sha256(module.read_bytes()).hexdigest()
    module.write_text("def judge(request, text, view):\n    return 0.0\n")
    assert judge_identity("mine", mine)["fingerprint"] != before


def test_the_revision_is_part_of_a_hub_models_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def fingerprint(path: str, revision: str | None, *, key: str) -> str:
        asked.append((path, revision, key))
        return f"{path}@{revision}"

    monkeypatch.setattr("lrm_safety.evaluation.judges.judge.model_fingerprint", fingerprint)
    found = judge_identity("mine", JudgeSettings("reward_model", path="one/model", arguments={"revision": "v2"}))
    assert found["fingerprint"] == "one/model@v2" and asked == [("one/model", "v2", "evaluation.judges.mine.path")]
    judge_identity("mine", JudgeSettings("reward_model"))
    assert asked[1][0] == "OpenAssistant/reward-model-deberta-v3-large-v2", "a kind's default model counts too"


def test_views_in_their_order() -> None:
    assert judge_views(JudgeSettings(views=["full", "trace"])) == ("full", "trace")
    assert judge_views(JudgeSettings()) == ("trace", "answer", "full")
