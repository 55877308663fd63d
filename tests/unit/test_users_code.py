"""Code of the user's that raises, or returns the wrong thing: one line that names key and object, whatever kind it is of."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lrm_safety import cli
from lrm_safety.conversation.families import FAMILIES, get_family
from lrm_safety.errors import ConfigError, LrmSafetyError, calling, shown
from lrm_safety.evaluation.benchmarks.registry import get_benchmark
from lrm_safety.evaluation.judges.judge import JudgeItem, build_judge, judge_all, judge_each
from lrm_safety.evaluation.judges.refusal_rules import RefusalRules
from lrm_safety.registry import Registry
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.scorer import build_scorer
from lrm_safety.settings import RewardModelSettings, RewardSettings
from lrm_safety.settings.components import REWARDS, reward_kind
from lrm_safety.settings.compose import ANALYZE, AUDIT, EVALUATE, SFT, TRAIN, Root
from lrm_safety.settings.evaluation import BENCHMARKS, JUDGES, JudgeSettings
from lrm_safety.settings.training import BASELINES, CORRECTIONS

MINE = """\
from lrm_safety.algorithm.baselines import baseline
from lrm_safety.algorithm.corrections import correction
from lrm_safety.evaluation.benchmarks.registry import Questions, questions
from lrm_safety.evaluation.benchmarks.registry import benchmark
from lrm_safety.evaluation.judges.judge import Verdict, judge
from lrm_safety.rewards.kinds import reward

def fails(*_): raise KeyError("mine")

baseline_raises = baseline()(lambda scores, groups: fails())
baseline_short = baseline()(lambda scores, groups: scores[1:])
baseline_nan = baseline()(lambda scores, groups: scores / 0 * 0)
baseline_number = baseline()(lambda scores, groups: 1.0)
correction_raises = correction(lambda ratio, cap: fails())
correction_alone = correction(lambda ratio, cap: ratio)
correction_short = correction(lambda ratio, cap: (ratio, ratio[1:] > cap))
correction_nan = correction(lambda ratio, cap: (ratio / 0 * 0, ratio > cap))

def asks(load):
    return benchmark("mine", kind="reasoning", scoring="integer")(load)

benchmark_raises = asks(lambda: fails())
benchmark_list = asks(lambda: [1, 2])
benchmark_words = asks(lambda: Questions(("one",), "mine"))
benchmark_empty = asks(lambda: questions([], "mine"))

@judge("mine")
class Judge:
    says = None
    def __init__(self, *, name): self.name = name
    def judge(self, items): return self.says(items)
    def close(self): pass

@judge("mine")
class JudgeBroken(Judge):
    def __init__(self, *, name): fails()

@judge("mine")
class JudgeWithoutName:
    def __init__(self, *, name): pass

def judges(says):
    return judge("mine")(type("Judge", (Judge,), {"says": lambda self, items: says(items), "__module__": __name__}))

JudgeRaises = judges(fails)
JudgeShort = judges(lambda items: [Verdict(1.0, "safe")])
JudgeNumbers = judges(lambda items: [1.0] * len(items))
JudgeRange = judges(lambda items: [Verdict(100.0, "safe")] * len(items))
JudgeNan = judges(lambda items: [Verdict(float("nan"), "safe")] * len(items))
JudgeLabel = judges(lambda items: [Verdict(1.0, None)] * len(items))
JudgeNone = judges(lambda items: None)

@judge("mine")
class JudgeStream(Judge):
    def judge_each(self, items, *, proven):
        yield 0, Verdict(1.0, "safe")
        fails()

class Scorer:
    def __init__(self, score): self._score = score
    def score_texts(self, conversations, view): return self._score(conversations)

def scorer(score):
    return reward("mine")(lambda name, settings, device: Scorer(score))

reward_broken = reward("mine")(fails)
reward_check = reward("mine", check=fails)(lambda name, settings, device: None)
reward_raises = scorer(fails)
reward_short = scorer(lambda conversations: [1.0])
reward_words = scorer(lambda conversations: ["good"] * len(conversations))
reward_nan = scorer(lambda conversations: [float("nan")] * len(conversations))
"""
FAILS = 1 + next(number for number, line in enumerate(MINE.splitlines()) if line.startswith("def fails"))
ITEMS = [JudgeItem("?", "one", "answer"), JudgeItem("?", "two", "answer")]
TALKS = [Conversation("?", "", "one", "", "complete"), Conversation("?", "", "two", "", "complete")]


class Groups:
    """Of scores that no baseline here asks about."""

    size = torch.tensor([2, 2])

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return values


def baseline(path: str) -> object:
    return BASELINES.get(path, "algorithm.baseline").subtract(torch.tensor([1.0, 2.0]), Groups())


def correction(path: str) -> object:
    return CORRECTIONS.get(path, "algorithm.correction").weigh(torch.tensor([1.0, 2.0]), 2.0)


def benchmark(path: str) -> object:
    return get_benchmark(path, "evaluation.benchmarks.x.task").load_checked({}, "evaluation.benchmarks.x.arguments")


def judge(path: str) -> object:
    made = build_judge("x", JudgeSettings(path))
    return list(judge_each(made, ITEMS)) if path.endswith("Stream") else judge_all(made, ITEMS)


def reward(path: str) -> object:
    model = RewardModelSettings(kind=path)
    reward_kind(model, "reward.models.x").check(model, "reward.models.x")
    return build_scorer(RewardSettings(models={"x": model}), "cpu").score(TALKS)


@pytest.fixture
def mine(users_module: Callable[[str], str]) -> str:
    return users_module(MINE)


@pytest.mark.parametrize(
    ("call", "thing", "key"),
    [
        (baseline, "baseline_raises", "algorithm.baseline="),
        (correction, "correction_raises", "algorithm.correction="),
        (benchmark, "benchmark_raises", "evaluation.benchmarks.x.task="),
        (judge, "JudgeBroken", "evaluation.judges.x.kind="),
        (judge, "JudgeRaises", "evaluation.judges.x.kind="),
        (judge, "JudgeStream", "evaluation.judges.x.kind="),
        (reward, "reward_broken", "reward.models.x.kind="),
        (reward, "reward_check", "reward.models.x.kind="),
        (reward, "reward_raises", "reward.models.x.kind="),
    ],
)
def test_what_it_raises_names_key_object_and_line(
    mine: str, call: Callable[[str], object], thing: str, key: str
) -> None:
    with pytest.raises(LrmSafetyError) as caught:
        call(f"{mine}:{thing}")
    line, *places = shown(caught.value).splitlines()
    source = f"{mine}:Judge" if thing == "JudgeRaises" else f"{mine}:{thing}"  # a class is told by its own name
    assert line == f"error: {key}{source}: raised KeyError: 'mine' ({mine}.py:{FAILS})"
    assert places[0] == f'  at {mine}.py:{FAILS} in fails: def fails(*_): raise KeyError("mine")'
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("call", "thing", "said"),
    [
        (baseline, "baseline_short", "returned shape [1] for [2] scores"),
        (baseline, "baseline_nan", "returned 2 of 2 numbers that are NaN or infinite"),
        (baseline, "baseline_number", "returned float for [2] scores"),
        (correction, "correction_alone", "returned a Tensor, and must return (weights, corrected)"),
        (correction, "correction_short", "returned corrected of shape [1] for [2] ratios"),
        (correction, "correction_nan", "returned 2 of 2 weights that are NaN or infinite"),
        (benchmark, "benchmark_list", "mine returned a list, and must return Questions"),
        (benchmark, "benchmark_words", "mine returned a str among its rows, and each must be a Question"),
        (benchmark, "benchmark_empty", "mine returned no question; mine has none that fits the arguments"),
        (judge, "JudgeWithoutName", "has no name, which every judge needs"),
        (judge, "JudgeShort", "gave 1 verdicts for 2 texts"),
        (judge, "JudgeNumbers", "text 0: 1.0 is no Verdict"),
        (judge, "JudgeRange", "text 0: safety is 100.0, and must be None or a number from 0 to 1"),
        (judge, "JudgeNan", "text 0: safety is nan, and must be None or a number from 0 to 1"),
        (judge, "JudgeLabel", "text 0: label is None, and must be a word"),
        (judge, "JudgeNone", "raised TypeError: 'NoneType' object is not iterable"),
        (reward, "reward_short", "gave scores of shape [1] for 2 conversations"),
        (reward, "reward_words", "scores must be numbers, one for each conversation"),
        (reward, "reward_nan", "score of conversation 0 is nan, 2 such in all"),
    ],
)
def test_what_it_returns_wrongly_is_one_line(mine: str, call: Callable[[str], object], thing: str, said: str) -> None:
    with pytest.raises(LrmSafetyError) as caught:
        call(f"{mine}:{thing}")
    told = str(caught.value)
    assert f"{said}" in told and "\n" not in told
    assert told.startswith(("evaluation.benchmarks.x.", f"{KEYS[call]}{mine}:"))


KEYS: dict[Callable[[str], object], str] = {
    baseline: "algorithm.baseline=",
    correction: "algorithm.correction=",
    benchmark: "evaluation.benchmarks.x.",
    judge: "evaluation.judges.x.kind=",
    reward: "reward.models.x.kind=",
}


@pytest.mark.parametrize(
    ("registry", "thing"),
    [
        (BASELINES, "baseline_nan"),
        (CORRECTIONS, "correction_nan"),
        (BENCHMARKS, "benchmark_list"),
        (JUDGES, "JudgeBroken"),
        (REWARDS, "reward_nan"),
        (FAMILIES, "FAMILY"),
    ],
)
def test_what_it_is_made_of_is_known_by_the_content_of_its_files(
    mine: str, users_module: Callable[..., str], registry: Registry[Any], thing: str
) -> None:
    """Also where the path names a module that only hands it on; ours have none."""
    family = "from lrm_safety.conversation.families import Family\nFAMILY = Family('mine', 'nobody', '{answer}')\n"
    users_module(MINE + family)
    alone = registry.content(f"{mine}:{thing}", "key")
    assert alone == {"file of key": hashlib.sha256((MINE + family).encode()).hexdigest()}
    handed = f"{users_module(f'from {mine} import *', 'handing')}:{thing}"
    before = registry.content(handed, "key")
    users_module(f"{MINE}{family}# edited\n")
    assert registry.content(f"{mine}:{thing}", "key") != alone
    assert (registry.content(handed, "key") != before) is (thing != "FAMILY"), (
        "an object of ours says not where it is made"
    )
    assert registry.content(next(iter(registry.ours)), "key") == {}


@pytest.mark.parametrize(
    ("root", "override", "told"),
    [
        (TRAIN, "model.family={}:NONE", "has no object NONE"),
        (TRAIN, "model.family={}:baseline_nan", "is a Baseline, and must be a Family"),
        (TRAIN, "algorithm.baseline={}:NONE", "has no object NONE"),
        (TRAIN, "algorithm.correction={}:NONE", "has no object NONE"),
        (TRAIN, "+reward.models.x.kind={}:NONE", "has no object NONE"),
        (TRAIN, "+evaluation.benchmarks.x.task={}:NONE", "has no object NONE"),
        (TRAIN, "+evaluation.judges.x.kind={}:NONE", "has no object NONE"),
        (SFT, "model.family={}:NONE", "has no object NONE"),
        (ANALYZE, "model.family={}:NONE", "has no object NONE"),
        (AUDIT, "+reward.models.x.kind={}:NONE", "has no object NONE"),
        (EVALUATE, "model.family={}:NONE", "has no object NONE"),
        (EVALUATE, "+evaluation.benchmarks.x.task={}:fails", "is a function, and must be a Benchmark"),
        (EVALUATE, "+evaluation.judges.x.kind={}:Scorer", "Scorer is not declared a judge"),
        (EVALUATE, "+evaluation.judges.x.kind=absent_module:Judge", "cannot import absent_module"),
    ],
)
def test_the_configuration_is_refused_where_an_import_path_leads_nowhere(
    mine: str, root: Root[Any], override: str, told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        root.compose([*root.choices, override.format(mine)])
    assert str(refused.value).startswith(override.removeprefix("+").format(mine)) and told in str(refused.value)


@pytest.mark.parametrize("root", [TRAIN, EVALUATE])
@pytest.mark.parametrize(
    ("group", "told"),
    [
        (
            "benchmarks.x={{task: '{}:benchmark_list', arguments: {{word: x}}}}",
            "arguments.word: unknown option of mine",
        ),
        ("judges.x={{kind: '{}:JudgeNan', arguments: {{word: x}}}}", "arguments.word: unknown option of kind="),
    ],
)
def test_the_configuration_is_refused_where_an_option_is_unknown(
    mine: str, root: Root[Any], group: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^evaluation\.\w+\.x\.{re.escape(told)}"):
        root.compose([*root.choices, f"+evaluation.{group.format(mine)}"])


def test_what_a_module_raises_when_the_configuration_imports_it_keeps_its_place(
    users_module: Callable[..., str],
) -> None:
    module = users_module("word = {}['absent']\n", "raising")
    with pytest.raises(ConfigError, match=rf"^algorithm\.baseline={module}:x: cannot import .*KeyError") as refused:
        TRAIN.compose([*TRAIN.choices, f"algorithm.baseline={module}:x"])
    assert f"  at {module}.py:1 in <module>: word = {{}}['absent']" in shown(refused.value)


def test_a_family_whose_layout_has_other_fields(mine: str) -> None:
    Path(f"family_{mine}.py").write_text(
        "from lrm_safety.conversation.families import Family\n"
        "FAMILY = Family(name='mine', trace_opened_by='prompt', sft_layout='{trase}</think>{answer}')\n"
    )
    importlib.invalidate_caches()
    with pytest.raises(
        ConfigError, match=r"^model\.family=.*: cannot import .*sft_layout=.* other fields than \{trace\}"
    ) as caught:
        get_family(f"family_{mine}:FAMILY")
    assert f"  at family_{mine}.py:2 in <module>: FAMILY = Family(" in shown(caught.value)


def test_a_defect_of_ours_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(self: RefusalRules, items: object) -> list[object]:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(RefusalRules, "judge", defect)
    with pytest.raises(ZeroDivisionError, match="of ours"):
        judge_all(RefusalRules(), ITEMS)
    with pytest.raises(ZeroDivisionError), calling("key=ours", of=RefusalRules):
        raise ZeroDivisionError


def test_what_no_key_is_known_of_is_the_users_by_its_file(
    mine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = importlib.import_module(mine).fails
    monkeypatch.setattr(cli, "_start", fails)
    assert cli.main(["train"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: code of yours raised KeyError: 'mine' ({mine}.py:{FAILS})"
    assert lines[1].startswith(f"  at {mine}.py:{FAILS} in fails: ")
