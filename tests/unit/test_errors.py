"""Where a failure inside a function of the user's, or a worker, is told to have happened."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from lrm_safety import cli
from lrm_safety.errors import (
    ConfigError,
    DataError,
    JudgeError,
    LrmSafetyError,
    RewardError,
    WorkerError,
    failure_inside,
    frames,
    shown,
    traceback_inside,
    whole_traceback,
)
from lrm_safety.evaluation.judges.judge import JudgeItem, PythonJudge
from lrm_safety.evaluation.limited import LimitedFunction
from lrm_safety.registry import import_function
from lrm_safety.rewards.kinds import FunctionScorer
from lrm_safety.rewards.row_sources import made_rows
from lrm_safety.run_folder import owned
from lrm_safety.settings import RewardModelSettings
from lrm_safety.workers.group import describe

MINE = """\
import json
def length(conversations):
    return [one.tracee for one in conversations]
def judge(request, text, view):
    return text.upper().missing
def rows(num, seed):
    return json.loads("{")
def grade(row, trace, answer, finished):
    try:
        return row["target"]
    except KeyError as error:
        raise ValueError("no target") from error
def deep(conversations, left=5):
    return deep(conversations, left - 1) if left else 1 / 0
"""


class Answer:
    """Something without a `tracee`."""


@pytest.fixture
def mine(users_module: Callable[[str], str]) -> str:
    return users_module(MINE)


def scorer(name: str, function: str) -> FunctionScorer:
    return FunctionScorer("x", RewardModelSettings(kind="python", function=f"{name}:{function}"))


def _reward(name: str) -> object:
    return scorer(name, "length").score_texts([Answer()], "trace")  # type: ignore[list-item]


def _judge(name: str) -> object:
    return PythonJudge(name="x", function=f"{name}:judge").judge([JudgeItem("r", "t", "trace")])


def _rows(name: str) -> object:
    return made_rows(f"{name}:rows", 1, 0, key="rows.function", prompt_field="p", category_field="c")


def _grade(name: str) -> object:
    function = LimitedFunction(f"{name}:grade", "grader", 60.0)
    try:
        return function({}, "", "", True)
    finally:
        function.close()


CASES: list[tuple[Callable[[str], object], type[LrmSafetyError], str]] = [
    (_reward, RewardError, "3 in length: return [one.tracee for one in conversations]"),
    (_judge, JudgeError, "5 in judge: return text.upper().missing"),
    (_rows, DataError, '7 in rows: return json.loads("{")'),
    (_grade, JudgeError, '12 in grade: raise ValueError("no target") from error'),
]


@pytest.mark.parametrize(("call", "kind", "place"), CASES)
def test_the_users_line_is_named_and_no_line_of_a_library(
    mine: str, call: Callable[[str], object], kind: type[LrmSafetyError], place: str
) -> None:
    with pytest.raises(kind) as caught:
        call(mine)
    found = shown(caught.value).splitlines()
    assert found[0].startswith("error: ") and "raised " in found[0]
    # In python before 3.12 a comprehension is a frame of its own.
    assert found[-1] == f"  at {mine}.py:{place}" and all(f"at {mine}.py:" in line for line in found[1:])
    assert f'{mine}.py", line {place.split()[0]}, in ' in whole_traceback(caught.value)


def test_a_grader_in_its_process_tells_its_cause_too(mine: str) -> None:
    with pytest.raises(JudgeError) as caught:
        _grade(mine)
    assert "KeyError: 'target'" in whole_traceback(caught.value)


def test_the_innermost_three_frames_stand_first_to_last(mine: str) -> None:
    with pytest.raises(RewardError) as caught:
        scorer(mine, "deep").score_texts([], "trace")
    line = f"  at {mine}.py:14 in deep: return deep(conversations, left - 1) if left else 1 / 0"
    assert shown(caught.value).splitlines()[1:] == [line] * 3


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import absent_of_mine", "1 in <module>: import absent_of_mine"),
        ("x = 1\ndef f(:\n", "2: def f(:"),
    ],
)
def test_a_module_that_cannot_be_imported(mine: str, text: str, place: str) -> None:
    Path(f"broken_{mine}.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        import_function(f"broken_{mine}:f", "key")
    assert shown(caught.value).splitlines()[1:] == [f"  at broken_{mine}.py:{place}"]


@pytest.mark.parametrize("function", ["no_such_module_at_all:f", "{mine}:absent", "not a path"])
def test_a_function_that_is_not_there_stays_one_line(mine: str, function: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_function(function.format(mine=mine), "key")
    assert shown(caught.value) == f"error: {caught.value}"


def through_ray(error: Exception) -> Exception:
    """What ray.get raises of an error that a method of an actor raised, after it has travelled."""
    cause = pickle.loads(pickle.dumps(error))
    task = RayTaskError("score", whole_traceback(error), cause, proctitle="ray::Worker.score", pid=1, ip="1")
    return pickle.loads(pickle.dumps(task)).as_instanceof_cause()


def test_the_place_travels_out_of_an_actor(mine: str) -> None:
    with pytest.raises(RewardError) as inside:
        _reward(mine)
    found = describe("reward", 0, "score", through_ray(inside.value))
    assert type(found) is RewardError and found.inside == inside.value.inside != ""
    assert shown(found) == shown(inside.value)


def test_of_another_failure_in_an_actor_the_workers_frames_are_told(mine: str) -> None:
    module: Any = importlib.import_module(mine)
    with pytest.raises(ValueError) as inside:
        module.grade({}, "", "", True)
    with pytest.raises(WorkerError) as caught:
        error = through_ray(inside.value)
        raise describe("policy", 1, "update", error) from error
    lines = shown(caught.value).splitlines()
    assert lines[0] == "error: policy worker 1 failed in `update`: ValueError: no target"
    assert lines[1] == f'  at {mine}.py:12 in grade: raise ValueError("no target") from error'
    assert "KeyError: 'target'" in whole_traceback(caught.value) and "\x1b" not in whole_traceback(caught.value)


def test_who_says_more_keeps_the_place() -> None:
    try:
        raise JudgeError("question 3: raised") from JudgeError("raised", "the traceback")
    except JudgeError as error:
        assert failure_inside(error) == "the traceback"
    assert failure_inside(DataError("a file is torn")) == ""


def test_frames_of_nothing() -> None:
    assert frames("") == frames("no traceback") == []


def fail(folder: Path, error: Exception, *, begun: bool) -> None:
    with owned(folder, ["train"]) as own:
        if begun:
            own.begin()
        raise error


def inside_of_mine(name: str) -> RewardError:
    with pytest.raises(RewardError) as caught:
        _reward(name)
    return caught.value


def test_what_fails_inside_a_function_leaves_its_traceback_in_the_folder(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = inside_of_mine(mine)

    def end(*_: object) -> int:
        fail(Path("run"), error, begun=False)
        return 0

    monkeypatch.setattr(cli, "_start", end)
    assert cli.main(["train"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: reward.models.x.function=") and lines[-1] == "the whole traceback: run/error.txt"
    assert f"  at {mine}.py:3 in length: return [one.tracee for one in conversations]" in lines[1:-1]
    text = Path("run/error.txt").read_text()
    assert "AttributeError: 'Answer' object has no attribute 'tracee'" in text
    assert text.splitlines()[-1] == f"lrm_safety.errors.RewardError: {error}"
    (start,) = json.loads(Path("run/environment.json").read_text())["starts"]
    assert (start["command"], start["exit_status"]) == ("lrm-safety train", 1) and start["ended"] >= start["started"]
    with owned(Path("run"), ["train"]) as own:
        own.begin()
    assert not Path("run/error.txt").exists(), "the start after it went well"


@pytest.mark.parametrize("error", [ConfigError("a key is wrong"), ZeroDivisionError("of ours")])
def test_what_fails_before_anything_is_begun_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        fail(tmp_path / "run", error, begun=False)
    assert not (tmp_path / "run").exists() and not hasattr(error, "__notes__")


def test_a_begun_run_keeps_whatever_ended_it(tmp_path: Path) -> None:
    mistake, defect = DataError("a file is torn"), ZeroDivisionError("of ours")
    with pytest.raises(DataError):
        fail(tmp_path / "mistake", mistake, begun=True)
    assert (tmp_path / "mistake" / "error.txt").read_text().endswith("DataError: a file is torn\n")
    assert shown(mistake) == "error: a file is torn"
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "defect", defect, begun=True)
    assert defect.__notes__ == [f"the whole traceback: {tmp_path / 'defect' / 'error.txt'}"]


def test_secrets_do_not_get_into_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        fail(tmp_path / "run", DataError("https://me:hunter2secret@host refused"), begun=True)
    assert "hunter2secret" not in (tmp_path / "run" / "error.txt").read_text()


def test_the_frame_that_caught_is_no_frame_of_the_function() -> None:
    try:
        raise_in_here()
    except ValueError as error:
        (place,) = frames(traceback_inside(error))
        assert "in raise_in_here" in place


def raise_in_here() -> None:
    raise ValueError
