"""One reward group for several drivers of a real cluster: loaded once, outliving its first user, ended with its last."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray_head import Head, ray_head

pytestmark = pytest.mark.timeout(900)
USER = Path(__file__).with_name("shared_user.py")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head({}, num_cpus=4) as started:
        yield started


def user(head: Head, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(USER), *arguments, f"cluster.address={head.address}"],
        env=head.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(process: subprocess.Popen[str], question: str) -> None:
    assert process.stdin
    process.stdin.write(f"{question}\n")
    process.stdin.flush()


def ask(process: subprocess.Popen[str], question: str) -> str:
    say(process, question)
    return heard(process)


def actors(head: Head, kind: str) -> set[psutil.Process]:
    """The processes of the living actors of this class."""
    titles = {one: " ".join(one.cmdline()) for one in head.children() if one.status() != psutil.STATUS_ZOMBIE}
    return {one for one, title in titles.items() if title.startswith(f"ray::{kind}")}


def actor(head: Head, kind: str) -> psutil.Process:
    """The only one."""
    (found,) = actors(head, kind)
    return found


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    while "(raylet)" in (line := process.stdout.readline()):
        pass  # Ray's own word on a killed worker
    return line.strip()


def test_a_group_is_loaded_once_outlives_a_killed_user_and_ends_with_the_last(head: Head) -> None:
    first, second = user(head, "one"), user(head, "one")  # at one moment
    users = [first, second]
    try:
        assert all(heard(one).startswith("joined: miniature, ") for one in users)
        scores = {ask(one, "score") for one in users}
        assert ask(second, "count") == "1 1 1"  # one service, one worker, one reservation

        worker = actor(head, "RewardWorker")
        worker.suspend()
        for one in users:
            say(one, "score")
        time.sleep(1)  # one of the two is with the worker, the other in the queue
        worker.kill()
        assert {heard(one) for one in users} == scores
        assert ask(second, "count") == "1 1 1" and actor(head, "RewardWorker").pid != worker.pid

        refused = user(head, "one", "reward.models.miniature.weight=2.0")
        users.append(refused)
        line = heard(refused)
        assert line.startswith("reward.shared=one: the group that runs under this name differs: reward.models.")
        assert "weight is 1.0 there, 2.0 here" in line

        first.kill()
        first.wait(30)
        watcher = user(head, "two")
        users.append(watcher)
        assert heard(watcher).startswith("joined: miniature, 1 run, ")
        time.sleep(8)  # longer than a lease: the killed user's is over, the second's is not
        scores.add(ask(second, "score"))
        assert ask(watcher, "count") == "2 2 2"

        own = user(head, "own")
        users.append(own)
        scores.add(heard(own))
        assert len(scores) == 1 and scores != {""}
        assert own.wait(60) == 0  # its worker has ended with it

        workers = actors(head, "RewardWorker")
        say(second, "leave")
        assert {ask(watcher, "visit one")} == scores and actors(head, "RewardWorker") == workers  # it was still loaded
        second.wait(30)
        deadline = time.monotonic() + 30
        while ask(watcher, "count") != "1 1 1":
            assert time.monotonic() < deadline
            time.sleep(0.5)

        actor(head, "SharedRewards").kill()
        assert ask(watcher, "score").startswith("reward.shared=two: the group is gone, during `score`: ")
        while ask(watcher, "count") != "0 0 0":
            assert time.monotonic() < deadline + 30
            time.sleep(0.5)
    finally:
        for one in users:
            one.kill()
            one.wait(30)
