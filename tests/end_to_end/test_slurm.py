"""launchers/slurm/run.sbatch on this machine: Slurm's own commands are those of tests/stand_in_slurm, all else is real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from child_environment import child_environment
from running import COMMAND_SECONDS, checkpoints, write_traces

pytestmark = pytest.mark.timeout(900)


class Batch:
    """A batch of two nodes, whose working folder is `folder`."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self._script = folder, root / "launchers/slurm/run.sbatch"
        # Ray's folder is called after it, so no two tests of a machine may share one.
        self.number = str(os.getpid())
        path = [str(root / "tests/stand_in_slurm"), str(Path(sys.executable).parent), os.environ["PATH"]]
        self._environment = child_environment() | {
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(root),
            "SLURM_JOB_ID": self.number,
            "SLURM_JOB_NAME": "test",
            "SLURM_JOB_NODELIST": "localhost,127.0.0.2",
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_CPUS_PER_TASK": "1",
            "RAY_START_OPTIONS": "--object-store-memory=100000000",
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        # Slurm runs a copy of the script, whose place says nothing of the checkout.
        copy = self.folder / "slurm_script"
        copy.write_bytes(self._script.read_bytes())
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", str(copy), *arguments], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        return self.process

    @property
    def output(self) -> Path:
        return self.folder / f"slurm-{self.number}.out"

    def logs(self) -> str:
        return "\n".join(file.read_text() for file in self.folder.glob("slurm-*"))

    def left_behind(self) -> list[str]:
        """Processes of its Ray, and its folder."""
        folder = Path(f"/tmp/ray-{self.number}")
        lines = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
        return [line for line in lines if str(folder) in line] + [str(folder)] * folder.exists()


@pytest.fixture
def batch(repository_root: Path, tmp_path: Path) -> Iterator[Batch]:
    batch = Batch(repository_root, tmp_path)
    yield batch
    if batch.process.poll() is None:
        batch.process.terminate()
        batch.process.wait(COMMAND_SECONDS)
    deadline = time.monotonic() + 60
    while left := batch.left_behind():
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def sft(folder: Path, *overrides: str) -> list[str]:
    return [
        *("--env", "WANDB_MODE=offline", "--", "sft", "model=miniature", "run.name=queued"),
        *(
            f"data.path={write_traces(folder)}",
            "sft.batch_size=16",
            "checkpoint.every_updates=100000",
            "schedule.passes=null",
        ),
        *("trainer.gradient_checkpointing=false", "cluster.policy.num_workers=2", "cluster.strategy=STRICT_SPREAD"),
        *("tracking.console=plain", "tracking.wandb=disabled", *overrides),
    ]


def wait_for(what: str, batch: Batch, process: subprocess.Popen[bytes], is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + COMMAND_SECONDS
    while not is_there():
        assert process.poll() is None and time.monotonic() < deadline, f"{what}:\n{batch.logs()}"
        time.sleep(0.2)


def test_before_the_time_limit_the_run_saves_and_the_batch_is_queued_again(batch: Batch) -> None:
    process = batch.start(*sft(batch.folder, "schedule.max_updates=100000"))
    metrics = batch.folder / "outputs/queued/metrics.jsonl"
    wait_for("two updates", batch, process, lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    token = psutil.Process(process.pid).children()[0].environ()["RAY_AUTH_TOKEN"]
    lines = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    process.send_signal(signal.SIGUSR1)
    assert process.wait(COMMAND_SECONDS) == 0, batch.logs()

    output = batch.output.read_text()
    assert "Ray runs on localhost 127.0.0.2" in output
    assert "the run has ended; queued again" in output
    assert (batch.folder / "requeued").read_text().split() == [batch.number]
    last = json.loads(metrics.read_text().splitlines()[-1])["update"]
    assert last < 100000 and checkpoints(metrics.parent) == [f"update-{last:06d}"]
    assert len(token) == 64 and not any(token in text for text in (*lines, batch.logs()))


def test_a_batch_whose_time_is_over_before_the_run_begins_is_not_queued_for_ever(batch: Batch) -> None:
    other = batch.folder / "outputs/another/checkpoints/update-000001"
    process = batch.start(*sft(batch.folder))
    ray_log = batch.folder / f"slurm-{batch.number}.ray"
    wait_for("the first step", batch, process, ray_log.exists)
    other.mkdir(parents=True)  # another run of the folder gets on
    process.send_signal(signal.SIGUSR1)
    assert process.wait(COMMAND_SECONDS) == 75, batch.logs()
    assert "reached its time limit before the run began and saved nothing new" in batch.output.read_text()
    assert not (batch.folder / "requeued").exists()


@pytest.mark.slow
def test_a_batch_that_comes_again_goes_on_and_its_exit_status_is_the_jobs(batch: Batch) -> None:
    first = batch.start(*sft(batch.folder, "schedule.max_updates=4", "schedule.stop_after_updates=2"))
    assert first.wait(COMMAND_SECONDS) == 0, batch.logs()
    again = batch.start(*sft(batch.folder, "schedule.max_updates=4"))
    assert again.wait(COMMAND_SECONDS) == 0, batch.logs()
    assert "resumed from update 2" in batch.output.read_text()
    assert checkpoints(batch.folder / "outputs/queued")[-1] == "update-000004"

    failing = batch.start(*sft(batch.folder, "model=absent"))
    assert failing.wait(COMMAND_SECONDS) == 1
    too_short = batch.start(*sft(batch.folder, "schedule.max_updates=100000", "checkpoint.stop_after_minutes=0.01"))
    assert too_short.wait(COMMAND_SECONDS) == 75, batch.logs()
    assert not (batch.folder / "requeued").exists()
    deadline = batch.start(*sft(batch.folder, "schedule.max_updates=100000", "checkpoint.stop_after_minutes=1.5"))
    assert deadline.wait(COMMAND_SECONDS) == 0, batch.logs()
    assert (batch.folder / "requeued").read_text().split() == [batch.number]
