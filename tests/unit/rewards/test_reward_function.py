"""Rewards by python function: what it may return, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_rewards import conversation

from lrm_safety.errors import ConfigError, RewardError
from lrm_safety.rewards.kinds import FunctionScorer
from lrm_safety.settings import RewardModelSettings

MODULE = """
import numpy, torch
def length(conversations): return [len(c.answer) for c in conversations]
def array(conversations): return numpy.arange(len(conversations)) / 4
def tensor(conversations): return torch.arange(len(conversations)) / 4
def with_grad(conversations): return torch.arange(len(conversations), dtype=torch.float32, requires_grad=True) / 4
def half(conversations): return torch.arange(len(conversations)).to(torch.bfloat16) / 4
def list_of_tensors(conversations): return [torch.tensor(i / 4, requires_grad=True) for i in range(len(conversations))]
def tuple_of_scalars(conversations): return tuple(numpy.float16(i / 4) for i in range(len(conversations)))
def flags(conversations): return [i > 0 for i in range(len(conversations))]
def sparse(conversations): return torch.eye(2).to_sparse()
def short(conversations): return [1.0]
def column(conversations): return [[1.0] for _ in conversations]
def nan(conversations): return [1.0, float("nan")]
def huge(conversations): return [1.0, 1e300]
def words(conversations): return ["good", "bad"]
def nothing(conversations): pass
def broken(conversations): raise KeyError("threshold")
number = 3
"""
CONVERSATIONS = [conversation("p", "t", "four"), conversation("p", "t", "eleven char")]


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_rewards.py").write_text(MODULE)
    (tmp_path / "user_broken_module.py").write_text("import a_package_nobody_has")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "user_rewards", raising=False)


def scorer(name: str) -> FunctionScorer:
    return FunctionScorer("mine", RewardModelSettings(kind="python", function=name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("length", [4, 11]),
        ("array", [0, 0.25]),
        ("tensor", [0, 0.25]),
        ("with_grad", [0, 0.25]),
        ("half", [0, 0.25]),
        ("list_of_tensors", [0, 0.25]),
        ("tuple_of_scalars", [0, 0.25]),
        ("flags", [0, 1]),
    ],
)
def test_lists_arrays_and_tensors(name: str, expected: list[float]) -> None:
    scores = scorer(f"user_rewards:{name}").score_texts(CONVERSATIONS, "full")
    assert scores.dtype == np.float32 and scores.tolist() == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("short", r"shape \[1\] for 2 conversations"),
        ("column", r"shape \[2, 1\] for 2"),
        ("nan", "score of conversation 1 is nan"),
        ("huge", "too large for float32"),
        ("words", "must be numbers"),
        ("sparse", "must be numbers"),
        ("nothing", "shape"),
        ("broken", "raised KeyError: 'threshold'"),
    ],
)
def test_wrong_results_are_named(name: str, said: str) -> None:
    with pytest.raises(RewardError, match=rf"reward\.models\.mine\.function=user_rewards:{name}.*{said}"):
        scorer(f"user_rewards:{name}").score_texts(CONVERSATIONS, "full")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("user_rewards.length", "must be written package.module:function"),
        ("no_such_module_here:length", "cannot import no_such_module_here"),
        ("user_broken_module:length", "a_package_nobody_has"),
        ("user_rewards:lenght", "has no function lenght"),
        ("user_rewards:number", "has no function number"),
    ],
)
def test_paths_that_lead_nowhere(path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"reward\.models\.mine\.function={path}.*{said}"):
        scorer(path)


def test_example_function() -> None:
    example = scorer("lrm_safety.rewards.examples:complete_and_brief")
    subjects = [conversation("p", "one two three", "yes"), conversation("p", "one", "", "unfinished_trace")]
    assert example.score_texts(subjects, "full").tolist() == pytest.approx([0.997, -1.001])
