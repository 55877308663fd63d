"""The fault drill's own bookkeeping, with faults that start no run: what is declared, what is said, what it exits with."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

KINDS = ("policy", "engine", "reward", "reference", "raylet", "gcs", "agent", "controller")


@pytest.fixture
def drill(monkeypatch: pytest.MonkeyPatch, repository_root: Path) -> Iterator[dict[str, Any]]:
    """What `tests/drill` defines; it puts folders on the path for itself and for its runs, and handles a signal."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    handler = signal.getsignal(signal.SIGTERM)
    yield runpy.run_path(str(repository_root / "tests" / "drill"))["main"].__globals__
    signal.signal(signal.SIGTERM, handler)


def test_each_kind_of_process_is_killed_and_stopped(drill: dict[str, Any]) -> None:
    declared = drill["FAULTS"]
    stopped = {name.removeprefix("stop_").removesuffix("_for_a_while") for name in declared if name.startswith("stop_")}
    assert {name.removeprefix("kill_") for name in declared if name.startswith("kill_")} >= {*KINDS}
    assert stopped == {*KINDS}
    assert len(declared) >= 25


def test_a_file_in_the_temporary_folder_of_a_run_is_named_as_left_behind(drill: dict[str, Any], tmp_path: Path) -> None:
    scene = drill["Scene"]("one", "train", tmp_path / "one", 0, 1.0)
    assert scene.leftovers() == []
    shell = "touch $TMPDIR/vllm_dist_0123; mkdir $TMPDIR/torchinductor_me"
    subprocess.run(["sh", "-c", shell], env={**os.environ, **scene.temporary}, check=True)
    assert scene.leftovers() == [str(tmp_path / "one" / "tmp" / "vllm_dist_0123")]
    folder = tmp_path / "one" / "tmp" / "pymp-0"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as lives:
        lives.bind(str(folder / "l"))
        lives.listen()
        assert str(folder) not in scene.leftovers(), "somebody who lives works there"
    assert str(folder) in scene.leftovers()


@pytest.mark.parametrize(
    ("raised", "status", "row"),
    [
        ("NotRun", 0, "| one |  | not run: no right to |  |  |  | nothing |  | 0 s |"),
        ("RuntimeError", 1, "| one |  | the drill failed |  |  |  | nothing | RuntimeError: no right to | 0 s |"),
    ],
)
def test_a_fault_that_cannot_be_made_fails_the_drill_only_where_nobody_said_why(
    drill: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    raised: str,
    status: int,
    row: str,
) -> None:
    error = {"NotRun": drill["NotRun"], "RuntimeError": RuntimeError}[raised]

    def make(scene: object) -> None:
        raise error("no right to")

    fault = replace(drill["FAULTS"]["kill_controller"], name="one", make=make)
    monkeypatch.setitem(drill, "FAULTS", {"one": fault})
    monkeypatch.setattr(sys, "argv", ["drill", "--out", str(tmp_path / "out")])
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    assert drill["main"]() == status

    table = (tmp_path / "out" / "drill.md").read_text()
    assert row in table.splitlines()
    assert f"{int(raised == 'NotRun')} not run; {status} not as promised" in table
    assert [one["fault"] for one in json.loads((tmp_path / "out" / "drill.json").read_text())["faults"]] == ["one"]
