"""A judge of the user's own."""

from __future__ import annotations

from typing import Any

import pytest

from lrm_safety.errors import ConfigError, JudgeError
from lrm_safety.evaluation.judges.judge import JudgeItem, PythonJudge, Verdict

seen: list[tuple[str, str, str]] = []
ITEMS = [JudgeItem("r1", "t1", "answer"), JudgeItem("r2", "t2", "trace")]
NOT_A_FUNCTION = 3
value_of: dict[str, Any] = {}


def remember(request: str, text: str, view: str) -> Any:
    seen.append((request, text, view))
    return value_of[text]


def broken(request: str, text: str, view: str) -> float:
    raise RuntimeError(f"cannot read {text}")


def judge_of(function: str) -> PythonJudge:
    return PythonJudge(name="mine", function=f"{__name__}:{function}")


def verdicts(first: Any, second: Any = 1) -> list[Verdict]:
    seen.clear()
    value_of.update(t1=first, t2=second)
    judge = judge_of("remember")
    try:
        return judge.judge(ITEMS)
    finally:
        judge.close()


def test_each_item_is_given_whole_and_in_order() -> None:
    assert verdicts(0.25, 0.75) == [Verdict(0.25, "unsafe"), Verdict(0.75, "safe")]
    assert seen == [("r1", "t1", "answer"), ("r2", "t2", "trace")]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (1, Verdict(1.0, "safe")),
        (0, Verdict(0.0, "unsafe")),
        (True, Verdict(1.0, "safe")),
        (0.5, Verdict(0.5, "safe")),
        (None, Verdict(None, "no verdict")),
    ],
)
def test_values(value: Any, verdict: Verdict) -> None:
    assert verdicts(value)[0] == verdict


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf"), "high", [], {"safety": 1}])
def test_values_that_are_no_safety(value: Any) -> None:
    with pytest.raises(JudgeError) as refused:
        verdicts(1, value)
    message = str(refused.value)
    assert message.startswith(f"evaluation.judges.mine.function={__name__}:remember: returned {value!r} at item 1")
    assert message.endswith("must be a number from 0 to 1")


def test_a_function_that_raises() -> None:
    with pytest.raises(JudgeError, match=r"item 0: raised RuntimeError: cannot read t1") as refused:
        judge_of("broken").judge(ITEMS)
    assert isinstance(refused.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("no_colon", "must be written package.module:function"),
        ("no_such_module_at_all:judge", "cannot import no_such_module_at_all"),
        (f"{__name__}:absent", "has no function absent"),
        (f"{__name__}:NOT_A_FUNCTION", "has no function NOT_A_FUNCTION"),
    ],
)
def test_what_is_no_function(function: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        PythonJudge(name="mine", function=function)
    assert str(refused.value).startswith(f"evaluation.judges.mine.function={function}: ") and reason in str(
        refused.value
    )


def test_nothing_to_judge() -> None:
    assert judge_of("broken").judge([]) == []
