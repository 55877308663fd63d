"""Points of a sweep as processes and as jobs of a real cluster: evaluations of an endpoint that decides when each goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from child_environment import child_environment
from loopback import Handler, serving
from ray_head import Head, ray_head

SECONDS = 300
"""Of each wait; a busy machine starts a command several times slower."""


pytestmark = pytest.mark.timeout(900)


class Models(ThreadingHTTPServer):
    """Models by the names of the requests; `held` ones are answered once they are let go, `refused` ones never."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Completion)
        self.asked: list[str] = []
        self.held: dict[str, threading.Event] = {}
        self.refused: set[str] = set()

    def hold(self, *names: str) -> None:
        self.held |= {name: threading.Event() for name in names}


class Completion(Handler):
    server: Models

    def do_POST(self) -> None:
        name = json.loads(self.body())["model"]
        self.server.asked.append(name)
        if name in self.server.held:
            self.server.held[name].wait(SECONDS)
        message = {"role": "assistant", "content": "I cannot help with that."}
        told = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 7}}
        self.reply(400 if name in self.server.refused else 200, json.dumps(told).encode())


@pytest.fixture
def models() -> Iterator[Models]:
    with serving(Models()) as server:
        yield server


class Command:
    """`lrm-safety evaluate -m` over models of the endpoint, with what it prints."""

    def __init__(self, models: Models, folder: Path, names: str, *arguments: str, **environment: str) -> None:
        (folder / "asked.csv").write_text('input,label\n"How is it done?",violence\n')
        self.runs, self._log = folder / "runs", folder / f"{len(list(folder.iterdir()))}.log"
        overrides = [
            *("model=endpoint", "model.name=x", f"model.endpoint.url=http://127.0.0.1:{models.server_port}/v1"),
            *("model.endpoint.max_retries=0", "evaluation=none", f"model.endpoint.model={names}"),
            f"+evaluation.benchmarks.asked={{task: attaq, arguments: {{data: {folder}/asked.csv}}}}",
            f"run.directory={self.runs}",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lrm_safety", "evaluate", "-m", *overrides, *arguments],
                cwd=Path(__file__).parents[2],
                env={**child_environment(), "COLUMNS": "160", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def told(self) -> str:
        return self._log.read_text()

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def until(self, seen: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not seen():
            assert self.process.poll() is None and time.monotonic() < deadline, self.told
            time.sleep(0.05)

    def starts(self, name: str) -> list[int | None]:
        """How each start of a point ended."""
        file = self.runs / f"model.endpoint.model-{name}/environment.json"
        return [one["exit_status"] for one in json.loads(file.read_text())["starts"]] if file.is_file() else []


def test_of_processes_one_fails_and_is_named_and_the_other_ends(models: Models, tmp_path: Path) -> None:
    models.refused = {"a"}
    options = ("hydra/launcher=local_processes", "hydra.launcher.concurrency=2", "hydra.launcher.retries=0")
    sweep = Command(models, tmp_path, "a,b", *options)
    assert sweep.wait() == 1, sweep.told
    assert re.search(r"model=a: failed with exit status 1: error: .*status 400", sweep.told)
    assert [sweep.starts(name) for name in "ab"] == [[1], [0]]
    assert "report.html" in sweep.told and (sweep.runs / "report/report.html").is_file()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head({}, num_cpus=2) as head:
        yield head


def driver(head: Head, name: str) -> psutil.Process:
    """The process of a point's command."""
    word = f"model.endpoint.model={name}"
    found = []
    for one in head.children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            line = one.cmdline() if one.status() != psutil.STATUS_ZOMBIE else []
            found += [one] if word in line and "python" in line[0] else []
    (process,) = found
    return process


def test_of_jobs_one_is_killed_and_comes_again_and_an_interrupted_sweep_goes_on(
    models: Models, head: Head, tmp_path: Path
) -> None:
    models.hold("a", "b")
    options = ("hydra/launcher=ray_jobs", f"hydra.launcher.address={head.dashboard}")  # two at once: it has two CPUs
    sweep = Command(models, tmp_path, "a,b", *options, **head.authentication)
    sweep.until(lambda: set(models.asked) == {"a", "b"})
    driver(head, "a").kill()
    sweep.until(lambda: models.asked.count("a") == 2)
    assert re.search(r"model=a: exit status 137: .*will be started again", sweep.told)
    models.held["b"].set()
    sweep.until(lambda: "model=b: done" in sweep.told)
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.wait() == 128 + signal.SIGTERM, sweep.told
    assert re.search(r"model=a +left running +2", sweep.told) and re.search(r"model=b +done +1", sweep.told)

    again = Command(models, tmp_path, "a,b", *options, **head.authentication)
    again.until(lambda: "model=a: runs already, as job " in again.told)
    models.held["a"].set()
    assert again.wait() == 0, again.told
    assert [again.starts(name) for name in "ab"] == [[None, 0], [0]]
    assert re.search(r"model=b +done before +0", again.told) and "report.html" in again.told
