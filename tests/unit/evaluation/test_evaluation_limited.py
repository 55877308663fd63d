"""A user's function that takes too long, ends its process, or raises."""

import pickle
import re
import signal
import time

import pytest

from lrm_safety.errors import ConfigError, JudgeError
from lrm_safety.evaluation.limited import LimitedFunction

MODULE = """
import os, re, time
def grade(row, trace, answer, finished):
    print("prints are no replies")
    if answer == "sleep":
        time.sleep(60)
    if answer == "regex":
        re.match(r"(a+)+$", "a" * 60 + "b")
    if answer == "exit":
        os._exit(3)
    if answer == "raise":
        raise KeyError("of the user's")
    return {"lambda": (lambda: 0)}.get(answer, len(row) + finished)
"""


@pytest.fixture
def grade(tmp_path, monkeypatch):
    (tmp_path / "slow_grader.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    function = LimitedFunction("slow_grader:grade", "grader", 1.0)
    yield function
    function.close()


def test_a_call_over_the_limit_ends_and_the_next_one_is_answered(grade):
    start = time.monotonic()
    for stuck in ("sleep", "regex"):
        with pytest.raises(TimeoutError):
            grade({}, "", stuck, True)
    assert grade({"a": 1}, "", "fine", True) == 2
    assert time.monotonic() - start < 40


def test_the_third_in_a_row_names_the_key_and_the_mend(grade):
    for _ in range(2):
        with pytest.raises(TimeoutError):
            grade({}, "", "regex", True)
    with pytest.raises(
        JudgeError, match=r"grader=slow_grader:grade: 3 calls in a row took more than 1 s; .*timeout_seconds"
    ):
        grade({}, "", "regex", True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [("raise", "raised KeyError"), ("exit", "its process ended with exit code 3"), ("lambda", "cannot be handed on")],
)
def test_what_else_goes_wrong_is_one_line(grade, answer, said):
    with pytest.raises(JudgeError, match=re.escape(said)) as caught:
        grade({}, "", answer, True)
    assert str(caught.value).startswith("grader=slow_grader:grade: ")
    assert grade({}, "", "fine", False) == 0


def test_a_call_that_nobody_waits_for_any_more_ends_by_itself(grade):
    """The command may be killed without a chance to end its grader's process."""
    assert grade({}, "", "fine", False) == 0
    request = pickle.dumps(({}, "", "regex", True))
    grade._process.stdin.write(len(request).to_bytes(8, "big") + request)
    assert grade._process.wait(30) == -signal.SIGALRM


def test_a_limit_must_be_above_zero():
    with pytest.raises(ConfigError, match="above 0"):
        LimitedFunction("m:f", "grader", 0.0)
