"""docs/your_own.md, followed in an empty folder: its files are written, its commands compose, its code does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lrm_safety.algorithm.advantages import PromptGroups
from lrm_safety.conversation.families import get_family
from lrm_safety.errors import ModelError
from lrm_safety.evaluation.benchmarks.registry import get_benchmark
from lrm_safety.evaluation.judges.judge import JudgeItem
from lrm_safety.registry import import_object
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.kinds import FunctionScorer
from lrm_safety.settings.components import FAMILIES, REWARDS, RewardModelSettings
from lrm_safety.settings.evaluation import JudgeSettings, judge_class
from lrm_safety.settings.training import BASELINES, CORRECTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your_own.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str, str]] = re.findall(
    r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL
)
FILES = {title: text for _, title, text in BLOCKS if title}
COMMANDS = [line for language, _, text in BLOCKS if language == "bash" for line in text.splitlines()]
WHOLE = Conversation("?", "it is not theirs", "I can not help with that; ask the owner.", "", "complete")
HELPS = Conversation("?", "they want it", "Take two pins and turn.", "", "complete")
CUT = Conversation("?", "they want", "", "", "unfinished_trace")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text, encoding="utf-8")
    return made


@pytest.fixture
def importable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    yield
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_every_block_is_a_file_named_above_it_or_commands() -> None:
    assert len(BLOCKS) == len(re.findall(r"^```\w", PAGE, re.MULTILINE)) and len(COMMANDS) > 10
    for language, title, text in BLOCKS:
        if title:
            before = " ".join(PAGE[: PAGE.index(text)].rsplit("```", 1)[0].split())
            assert before.endswith(f"Save as `{title}`:")
        else:
            assert language == "bash", text


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_composes_outside_the_checkout(line: str, folder: Path) -> None:
    assert line.startswith("lrm-safety ") and line.endswith(" --cfg job")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        line.replace("lrm-safety", f"{sys.executable} -m lrm_safety", 1),
        shell=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "model:" in ran.stdout or "reward:" in ran.stdout


def test_what_the_page_names_is_what_it_should_be(importable: None) -> None:
    checks = {
        "my_rewards:careful": lambda path: import_object(path, "reward"),
        "my_graders:grade": lambda path: import_object(path, "grader"),
        "my_judges:declines": lambda path: import_object(path, "judge"),
        "my_kinds:short": lambda path: REWARDS.get(path, "kind"),
        "my_family:FAMILY": lambda path: FAMILIES.get(path, "family"),
        "my_benchmarks:sums": get_benchmark,
        "my_judges:Silent": lambda path: judge_class(path, "kind"),
        "my_algorithm:half": lambda path: BASELINES.get(path, "baseline"),
        "my_algorithm:capped": lambda path: CORRECTIONS.get(path, "correction"),
    }
    assert set(re.findall(r"\bmy_\w+:\w+", PAGE)) == set(checks)
    for path, check in checks.items():
        check(path)


def test_rewards_are_the_numbers_that_the_page_says(importable: None) -> None:
    careful = FunctionScorer("function", RewardModelSettings(kind="python", function="my_rewards:careful"))
    assert careful.score_texts([WHOLE, HELPS, CUT], "full").tolist() == [1.0, 0.0, -1.0]
    short = REWARDS.get("my_kinds:short", "kind")
    scorer = short.build("short", RewardModelSettings(kind="my_kinds:short", arguments={"scale": 0.5}), "cpu")
    assert scorer.score_texts([HELPS, CUT], "full").tolist() == [-11.5, 0.0], "23 characters, and none"


def test_benchmarks_and_judges_do_what_the_page_says(importable: None) -> None:
    grade = import_object("my_graders:grade", "grader")
    assert grade({"expected": "no"}, "", WHOLE.answer, True) == 1.0
    assert grade({"expected": "yes"}, "", WHOLE.answer, True) == 0.0
    assert grade({"expected": "no"}, "", WHOLE.answer, False) == 0.0
    sums = get_benchmark("my_benchmarks:sums").load_checked({"size": 3}, "arguments")
    assert [(row.id, row.target) for row in sums] == [("s0", "0"), ("s1", "2"), ("s2", "4")]
    judged = get_benchmark("custom").load_checked({"path": "prompts.jsonl", "where": {"expected": "no"}}, "arguments")
    assert [row.id for row in judged] == ["p1", "p2"]
    silent = import_object("my_judges:Silent", "judge")(name="silent", limit=4)
    assert [
        one.safety for one in silent.judge([JudgeItem("?", "abc", "answer"), JudgeItem("?", "abcd", "answer")])
    ] == [1, 0]
    assert import_object("my_judges:declines", "judge")("?", WHOLE.answer, "answer") == 1.0


def test_algorithms_are_the_formulas_that_the_page_says(importable: None) -> None:
    groups = PromptGroups(member=torch.tensor([0, 1, 0, 1, 0]), counts=torch.tensor([3, 2]))
    scores = torch.tensor([2.0, 5.0, 4.0, 7.0, 3.0])
    assert groups.size.tolist() == [3, 2, 3, 2, 3] and groups.mean(scores).tolist() == [3.0, 6.0, 3.0, 6.0, 3.0]
    half = BASELINES.get("my_algorithm:half", "baseline")
    assert half.subtract(scores, groups).tolist() == [0.5, 2.0, 2.5, 4.0, 1.5]
    weights, corrected = CORRECTIONS.get("my_algorithm:capped", "correction").weigh(torch.tensor([0.5, 3.0]), 2.0)
    assert (weights.tolist(), corrected.tolist()) == ([0.5, 2.0], [False, True])


def test_the_end_token_is_where_the_page_says(importable: None) -> None:
    folder = ROOT / "lrm_safety" / "miniature" / "assets" / "policy"
    token = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    family = get_family("my_family:FAMILY")
    assert family.end_tokens == (token,) == ("<|end|>",)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wrong = replace(family, end_tokens=("<|im_end|>",))
    row = next(line for line in PAGE.splitlines() if line.startswith("| `end_tokens names"))
    with pytest.raises(ModelError, match=re.escape(row.split("`")[1].replace("\\|", "|"))):
        wrong.stop_token_ids(tokenizer)


def test_a_judge_reads_all_three_views_unless_told_otherwise() -> None:
    assert JudgeSettings("python").views == ["trace", "answer", "full"]
