"""A sweep on a cluster as users have them: two models, two seeds, one reward group; a point is killed, the sweep interrupted.

    python tests/cluster/sweep.py

Three hosts are the cluster (tests/hosts.py; as root, some ten minutes on two cores). `lrm-safety train -m hydra/launcher=ray_jobs
model=A,B seed=1,2 reward.shared=NAME` sends four points, two at a time. The driver of one is killed; the sweep gets SIGTERM once
a point is done, and is given again. The exit status is 0 where two points ran at once and never more, all came to their ends,
the killed one was started twice and the others once, the reward was loaded once, and nothing is left on the cluster.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
CHECKOUT = TESTS.parent
sys.path[:0] = [str(folder) for folder in (CHECKOUT, TESTS, TESTS / "end_to_end") if str(folder) not in sys.path]

from hosts import BIN, Hosts, Node, why_not  # noqa: E402
from running import TINY  # noqa: E402
from tiny_models import tiny_model  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402

SECONDS = 1200.0
"""Limit of each wait."""
JOBS = """
import json, sys
from ray.job_submission import JobSubmissionClient
found = [(job.start_time, job.end_time) for job in JobSubmissionClient(sys.argv[1]).list_jobs() if job.submission_id]
print(json.dumps(found))
"""
NAMES = [f"model={model} seed={seed}" for model in ("miniature", "llama") for seed in (1, 2)]


def second_family(folder: Path) -> None:
    """`model=llama`: a miniature of another architecture, untrained, in a user's folder of groups."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "num_attention_heads": 2}
    model = tiny_model(LlamaForCausalLM, seed=1, **sizes, vocab_size=768, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder / "weights")
    assets = CHECKOUT / "lrm_safety/miniature/assets/policy"
    for file in (*assets.glob("*token*"), *assets.glob("*.jinja"), assets / "generation_config.json"):
        shutil.copy(file, folder / "weights")
    (folder / "conf/model").mkdir(parents=True)
    told = f"defaults: [miniature]\nname: llama\npath: {folder}/weights\n"
    (folder / "conf/model/llama.yaml").write_text(told)


class Sweep:
    """The command, as often as it is given, on the first host."""

    def __init__(self, hosts: Hosts, groups: Path) -> None:
        self.hosts, self.folder, self.given = hosts, hosts.shared / "runs", 0
        self._arguments = [
            *(
                "-m",
                "hydra/launcher=ray_jobs",
                f"hydra.launcher.address={hosts.dashboard}",
                "hydra.launcher.concurrency=2",
                f"hydra.launcher.working_dir={CHECKOUT}",
            ),
            *("--config-dir", str(groups), *TINY, "schedule.max_updates=6", "tracking.wandb=disabled"),
            *("model=miniature,llama", "seed=1,2", "reward.shared=families", f"run.directory={self.folder}"),
        ]

    def give(self) -> subprocess.Popen[bytes]:
        """Start it; what it prints goes into a file of its own."""
        self.given += 1
        with self.log.open("wb") as log:
            command = [str(BIN / "lrm-safety"), "train", *self._arguments]
            return self.hosts[0].popen(command, log, stdin=subprocess.DEVNULL)

    @property
    def log(self) -> Path:
        return self.hosts.logs / f"sweep-{self.given}.log"

    def point(self, name: str) -> Path:
        """The folder of a point."""
        return self.folder / "__".join(word.replace("=", "-") for word in name.split())

    def starts(self, name: str) -> list[int | None]:
        """How each start of a point ended."""
        file = self.point(name) / "environment.json"
        return [one["exit_status"] for one in json.loads(file.read_text())["starts"]] if file.is_file() else []

    def updates(self, name: str) -> int:
        """Lines of metrics that a point has written."""
        file = self.point(name) / "metrics.jsonl"
        return len(file.read_text().splitlines()) if file.is_file() else 0

    def signal(self, number: signal.Signals, *words: str) -> None:
        """Send a signal to the processes `python .../lrm-safety train` of the first host whose arguments hold these words."""
        found = [
            one
            for one in self.hosts[0].processes()
            if "lrm-safety train" in (line := " ".join(one.cmdline())) and all(word in line.split() for word in words)
        ]
        found = [one for one in found if "python" in one.cmdline()[0]]
        assert len(found) == 1, f"{words}: {[one.cmdline() for one in found]}"
        found[0].send_signal(number)

    def wait(self, process: subprocess.Popen[bytes], what: str, seen: Callable[[], bool]) -> None:
        """Until it is seen, while the command runs."""
        deadline = time.monotonic() + SECONDS
        while not seen():
            assert process.poll() is None, f"waited for {what}; the sweep ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"waited for {what}:\n{self.log.read_text()}"
            time.sleep(0.3)
        print(f"seen: {what}", flush=True)


def listed(hosts: Hosts, kind: str) -> list[dict[str, Any]]:
    """Everything of a kind that the cluster had or has, by Ray's own account."""
    command = [str(BIN / "ray"), "list", kind, "--address", hosts.dashboard, "--format", "json", "--limit", "1000"]
    told = hosts[0].run(command)
    assert told.returncode == 0, told.stderr
    found: list[dict[str, Any]] = json.loads(told.stdout[told.stdout.index("[") :])
    return found


def jobs(hosts: Hosts) -> list[tuple[int, int]]:
    """Begin and end of every job of the cluster, by Ray's own account, in milliseconds."""
    told = hosts[0].run([sys.executable, "-c", JOBS, hosts.dashboard])
    assert told.returncode == 0, told.stderr
    return [(begin, end) for begin, end in json.loads(told.stdout)]


def most_at_once(found: list[tuple[int, int]]) -> int:
    """The largest number of jobs that ran at one moment."""
    return max(sum(begin <= moment < end for begin, end in found) for moment, _ in found)


def main() -> int:
    """See the module."""
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        return 1
    with Hosts(3, subnet="10.83.0") as hosts:
        second_family(hosts.shared / "user")
        hosts.start_ray([Node(2), Node(2), Node(2)])
        sweep = Sweep(hosts, hosts.shared / "user/conf")
        began = time.monotonic()

        process, (killed, beside) = sweep.give(), (NAMES[0], NAMES[1])
        sweep.wait(process, "two points that train", lambda: min(map(sweep.updates, (killed, beside))) > 0)
        sweep.signal(signal.SIGKILL, "model=miniature", "seed=1")
        sweep.wait(process, "the killed point's end", lambda: f"{killed}: exit status" in sweep.log.read_text())
        sweep.wait(process, "a point that is done", lambda: any(0 in sweep.starts(name) for name in NAMES))
        sweep.signal(signal.SIGTERM, "-m")
        assert process.wait(SECONDS) == 128 + signal.SIGTERM, sweep.log.read_text()
        print(sweep.log.read_text(), flush=True)
        done = [name for name in NAMES if 0 in sweep.starts(name)]

        process = sweep.give()
        status = process.wait(SECONDS)
        told = sweep.log.read_text()
        print(told, flush=True)
        found, actors = jobs(hosts), Counter(one["class_name"] for one in listed(hosts, "actors"))
        most = most_at_once(found)
        print(
            f"{time.monotonic() - began:.0f} s; {len(found)} jobs, {most} at once; started: "
            f"{ {name: sweep.starts(name) for name in NAMES} }; actors: {dict(actors)}",
            flush=True,
        )
        assert status == 0
        assert {name: len(sweep.starts(name)) for name in NAMES} == {name: 1 + (name == killed) for name in NAMES}
        assert all(sweep.starts(name)[-1] == 0 for name in NAMES) and len(found) == 5 and most == 2
        assert done and all(re.search(rf"{name}\s+(state )?done before", told) for name in done)
        assert actors["SharedRewards"] == actors["RewardWorker"] == 1
        deadline = time.monotonic() + 120
        while left := [one for kind in ("actors", "placement-groups") for one in listed(hosts, kind) if alive(one)]:
            assert time.monotonic() < deadline, left
            time.sleep(1)
    return 0


def alive(one: dict[str, Any]) -> bool:
    """Whether an actor or a placement group still takes anything."""
    return one["state"] not in ("DEAD", "REMOVED")


if __name__ == "__main__":
    raise SystemExit(main())
