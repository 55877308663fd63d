"""Faults of a run, its Ray, its disk and its checkpoints: on supervised runs, which start in seconds and have one group."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from declared import STACKS, fault
from running import checkpoints
from scene import NotRun, Scene, is_root

GCS_SECONDS, RAYLET_SECONDS = 40.0, 75.0
"""Longer than a run, and Ray, wait for one that is away."""
RESTARTS = ("trainer.max_restarts=2", "trainer.restart_pause_seconds=0")


def harm_rays_own(scene: Scene, kind: str, number: signal.Signals, seconds: float) -> None:
    """Workers go on for a while without Ray's own processes. So that no run comes to its end before anybody needs these, its rank
    is held for so long, which is no hang here."""
    scene.layout = ("cluster.silent_seconds=300",)
    scene.start(*RESTARTS)
    scene.moment()
    (rank,) = scene.subject.processes("policy")
    rank.suspend()

    def go_on() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.resume()

    scene.later(seconds, go_on)
    scene.signal(kind, number)


# --- processes


@fault(says=r"policy worker \d died")
def kill_policy(scene: Scene) -> None:
    scene.start(*RESTARTS)
    scene.moment()
    scene.signal("policy", signal.SIGKILL)


@fault(says=r"policy worker \d died")
def kill_policy_without_restarts(scene: Scene) -> None:
    scene.start()
    scene.moment()
    scene.signal("policy", signal.SIGKILL)


@fault(says=r"policy worker \d hung", leaves=STACKS)
def stop_policy(scene: Scene) -> None:
    scene.start(*RESTARTS)
    scene.moment()
    scene.signal("policy", signal.SIGSTOP)


@fault("one rank", says=r"error:|restart \d of")
def kill_raylet(scene: Scene) -> None:
    harm_rays_own(scene, "raylet", signal.SIGKILL, RAYLET_SECONDS)


@fault("one rank", says=r"error:|restart \d of", limit=150)
def stop_raylet(scene: Scene) -> None:
    harm_rays_own(scene, "raylet", signal.SIGSTOP, RAYLET_SECONDS)


@fault("one rank", says=r"error:|restart \d of", limit=150)
def kill_gcs(scene: Scene) -> None:
    harm_rays_own(scene, "gcs", signal.SIGKILL, GCS_SECONDS)


@fault("one rank", says=r"error:|restart \d of", limit=150)
def stop_gcs(scene: Scene) -> None:
    harm_rays_own(scene, "gcs", signal.SIGSTOP, GCS_SECONDS)


@fault("one rank", says=r"restart \d of")
def kill_agent(scene: Scene) -> None:
    scene.start(*RESTARTS)
    scene.moment()
    scene.signal("agent", signal.SIGKILL)


@fault("one rank", says=None)
def stop_agent(scene: Scene) -> None:
    scene.start(*RESTARTS)
    scene.moment()
    scene.signal("agent", signal.SIGSTOP)


@fault("one rank", says=None)
def kill_controller(scene: Scene) -> None:
    scene.start()
    scene.moment()
    scene.signal("controller", signal.SIGKILL)


@fault("one rank", says=None)
def kill_controller_while_it_starts(scene: Scene) -> None:
    scene.start()
    scene.until(lambda: scene.subject.processes("policy"))
    scene.signal("controller", signal.SIGKILL)


@fault("one rank", says=None)
def stop_controller_for_a_while(scene: Scene) -> None:
    """As a suspended laptop: longer than heartbeats are missed for."""
    scene.start()
    scene.moment()
    scene.signal("controller", signal.SIGSTOP)
    scene.later(40, lambda: scene.subject.signal(signal.SIGCONT))


# --- signals


@fault("one rank", says="stopped by SIGTERM")
def term_while_it_starts(scene: Scene) -> None:
    scene.start()
    scene.until(lambda: scene.subject.busy_with("PolicyWorker.start"))
    scene.signal("controller", signal.SIGTERM)


@fault("one rank", says="stopped by SIGTERM")
def term_while_it_waits_for_placement(scene: Scene) -> None:
    too_large = ("cluster.policy.cpus_per_worker=2", "cluster.local_num_cpus=1", "cluster.expected_nodes=2")
    scene.start(*too_large, "cluster.placement_timeout_seconds=300")
    scene.until(lambda: "start groups" in scene.subject.stdout and scene.subject.processes("raylet"))
    time.sleep(scene.random.uniform(2, 5))
    scene.signal("controller", signal.SIGTERM)


@fault("one rank", says="stopped by SIGTERM")
def term_in_update(scene: Scene) -> None:
    scene.start("checkpoint.every_updates=0")
    scene.moment()
    scene.signal("controller", signal.SIGTERM)


@fault(says="stopped by SIGTERM")
def term_in_checkpoint(scene: Scene) -> None:
    scene.start()
    scene.moment(8, 14)
    scene.until(lambda: any(scene.run.glob("checkpoints/.partial-*")), pause=0.002)
    scene.signal("controller", signal.SIGTERM)


@fault("one rank", says="stopped by SIGTERM")
def term_twice(scene: Scene) -> None:
    scene.start()
    scene.moment()
    scene.signal("controller", signal.SIGTERM)
    scene.later(scene.random.uniform(0, 0.3), lambda: scene.subject.signal(signal.SIGTERM))


# --- the disk


def small_disk(scene: Scene, megabytes: int) -> Path:
    """A file system of its own under the run's folder. Raises NotRun without the right to mount one."""
    if not is_root():
        raise NotRun("mounting a file system needs root")
    scene.run = scene.folder / "disk" / "run"
    disk = scene.run.parent
    disk.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk))
    scene.cleanups.append(lambda: subprocess.run(["umount", "-l", str(disk)], check=False))
    return disk


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@fault("one rank", says=r"error: .*(full|No space left|free)")
def disk_full(scene: Scene) -> None:
    disk = small_disk(scene, 200)
    scene.start()
    scene.moment(9, 12)

    def fill() -> None:
        with (disk / "others").open("wb") as file:
            file.write(bytes(shutil.disk_usage(disk).free - 600_000))

    scene.harm("somebody else fills the disk but for 0.6 MB", fill)
    scene.before_again = (disk / "others").unlink


@fault("one rank", says=r"error: .*(ead-only|cannot be written)")
def disk_read_only(scene: Scene) -> None:
    """A file that is open stays writable."""
    if not is_root():
        raise NotRun("mounting a file system needs root")
    scene.start()
    scene.moment()

    def protect() -> None:
        mount("--bind", str(scene.run), str(scene.run))
        scene.before_again = lambda: subprocess.run(["umount", str(scene.run)], check=True)
        mount("-o", "remount,bind,ro", str(scene.run))

    scene.harm("run.directory turns read-only", protect)
    scene.cleanups.append(lambda: subprocess.run(["umount", "-q", str(scene.run)], check=False))


@fault("one rank", says=r"error: .*(removed|gone|is not there|vanished)", promise="finished")
def folder_vanishes(scene: Scene) -> None:
    scene.start()
    scene.moment()

    def remove() -> None:
        while scene.run.exists():  # the run may write a file into what is being removed
            shutil.rmtree(scene.run, ignore_errors=True)

    scene.harm("run.directory is removed", remove)


# --- checkpoints


def stopped_run(scene: Scene) -> Path:
    """A run that was stopped at update 20, with three checkpoints; the newest."""
    scene.start("schedule.stop_after_updates=20")
    assert scene.finish() == 0, scene.subject.output
    return scene.run / "checkpoints" / checkpoints(scene.run)[-1]


def damage(scene: Scene, how: Callable[[Path, bytes], bytes], word: str, *overrides: str) -> None:
    """Change a random file of the newest checkpoint, then start the command again."""
    newest = stopped_run(scene)
    file = scene.random.choice(sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size))

    def change() -> None:
        file.write_bytes(how(file, file.read_bytes()))
        scene.start(*overrides)

    scene.harm(f"{word} in {file.relative_to(newest)}", change)


def flipped(scene: Scene) -> Callable[[Path, bytes], bytes]:
    def how(file: Path, content: bytes) -> bytes:
        place = scene.random.randrange(len(content))
        return content[:place] + bytes([content[place] ^ (1 << scene.random.randrange(8))]) + content[place + 1 :]

    return how


@fault(says="skipped: checkpoint .* is torn")
def flip_a_bit_of_the_newest_checkpoint(scene: Scene) -> None:
    damage(scene, flipped(scene), "a flipped bit")


@fault(says="skipped: checkpoint .* is torn")
def cut_the_newest_checkpoint(scene: Scene) -> None:
    damage(scene, lambda file, content: content[: scene.random.randrange(len(content))], "the end cut off")


@fault(says="skipped: checkpoint .* is torn", promise="rounding")
def flip_a_bit_and_go_on_with_one_rank(scene: Scene) -> None:
    damage(scene, flipped(scene), "a flipped bit", "cluster.policy.num_workers=1")


@fault(says="trainer ranks wrote it and 3 go on", promise="rounding")
def other_numbers_of_ranks(scene: Scene) -> None:
    """Two ranks, then one, then three."""
    stopped_run(scene)
    scene.start("cluster.policy.num_workers=1", "schedule.stop_after_updates=30")
    assert scene.finish() == 0, scene.subject.output
    scene.harm("goes on with 1 rank, then with 3", lambda: scene.start("cluster.policy.num_workers=3"))
