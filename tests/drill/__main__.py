"""`make drill`: do harm to runs in every way at random moments, and see whether they survive or end with one line of cause.

    python tests/drill [--seed 0] [--at-once 3] [--patience 1] [--out outputs/drill] [FAULT ...]

Each fault has a run of its own. One that ended is started again by the same command and compared with an undisturbed run. The
table in OUT/drill.md and OUT/drill.json is written anew after each fault, and printed at the end. Exit status 1 where a fault
neither was survived nor ended with one line of cause, was noticed too late, left something behind, or where a result is not what
was promised.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE.parent / "end_to_end")]
# The runs are started in folders of their own.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))

import cluster_faults  # noqa: E402, F401
import learning_faults  # noqa: E402, F401
import psutil  # noqa: E402
import pytest  # noqa: E402
from declared import FAULTS, Fault  # noqa: E402
from scene import GRACE_SECONDS, ROUNDING, NotRun, Row, Scene, difference, last_lines, lives  # noqa: E402

COLUMNS = (
    "fault",
    "harm",
    "outcome",
    "noticed after",
    "what was said",
    "the same command again",
    "left behind",
    "wrong",
    "took",
)
CAUSE_LENGTH = 160


class Drill:
    """Faults, several at once, and the undisturbed runs that they are compared with."""

    def __init__(self, root: Path, seed: int, patience: float) -> None:
        self._root, self._seed, self._patience = root, seed, patience
        self._undisturbed: dict[tuple[str, ...], Path] = {}
        self._one_at_a_time = threading.Lock()
        self._scenes: list[Scene] = []
        self._stopped = False
        self._living: list[tuple[Row, float, psutil.Process]] = []
        """Processes of runs that have ended, and when: some of Ray's need a minute."""

    def undisturbed(self, base: str, lasting: tuple[str, ...]) -> Path:
        """A finished run without harm."""
        key = (base, *lasting)
        with self._one_at_a_time:
            if key not in self._undisturbed:
                folder = self._root / f"undisturbed-{len(self._undisturbed)}"
                scene = self._scene("undisturbed", base, folder)
                scene.lasting = lasting
                try:
                    scene.start()
                    assert scene.finish() == 0, scene.subject.output
                finally:
                    scene.close()
                self._undisturbed[key] = scene.run
            return self._undisturbed[key]

    def _scene(self, name: str, base: str, folder: Path) -> Scene:
        scene = Scene(name, base, folder, self._seed, self._patience)
        self._scenes.append(scene)
        if self._stopped:
            scene.stop()
        return scene

    def stop(self) -> None:
        """End the runs in progress, and let no other begin."""
        self._stopped = True
        for scene in self._scenes:
            scene.stop()

    def play(self, fault: Fault) -> Row:
        """Make one fault and judge what became of it."""
        scene = self._scene(fault.name, fault.base, self._root / fault.name)
        began, judged = time.monotonic(), False
        try:
            fault.make(scene)
            judged = self._judge(fault, scene, scene.watch(fault.says, fault.limit))
        except NotRun as reason:
            scene.row.outcome = f"not run: {reason}"
        except (Exception, pytest.fail.Exception) as error:
            scene.row.outcome = scene.row.outcome or "the drill failed"
            scene.row.wrong.append(f"{type(error).__name__}: {' '.join(str(error).split())[:600]}")
        finally:
            if judged:
                ended = time.monotonic()
                self._living += [(scene.row, ended, one) for subject in scene.subjects for one in subject.living()]
                scene.clean_up()
            else:
                scene.close()
        scene.row.seconds = time.monotonic() - began
        return scene.row

    def _judge(self, fault: Fault, scene: Scene, status: int | None) -> bool:
        """Whether it came to an end, so that whatever is left was left behind."""
        row, said = scene.row, scene.subject.output
        if status is None:
            row.outcome = "HUNG"
            row.wrong.append(
                f"neither ended nor through after {fault.limit * self._patience:g} s: {last_lines(scene.subject)}"
            )
            return False
        restarted = "restart 1 of" in said
        row.outcome = "ended" if status else "restarted" if restarted else "survived"
        if fault.says is not None and row.noticed is None:
            row.wrong.append(f"nothing was said of it: {last_lines(scene.subject)}")
        if row.noticed is not None and row.noticed > fault.within * self._patience:
            row.wrong.append(f"noticed after {row.noticed:.0f} s instead of {fault.within * self._patience:g} s")
        if fault.leaves is not None and not any(scene.run.glob(fault.leaves)):
            row.wrong.append(f"no {fault.leaves} in the run's folder")
        if "Traceback" in said:
            row.wrong.append("a traceback was shown")
        killed = status == -9
        if status and not killed:
            told = [line for line in said.splitlines() if line.startswith(("error:", "stopped by"))]
            if len(told) != 1:
                row.wrong.append(f"status {status} with {len(told)} lines of cause: {last_lines(scene.subject)}")
        if status:
            scene.before_again()
            scene.start()
            status = scene.finish()
            if status:
                row.again = f"status {status}"
                row.wrong.append(f"started again: {last_lines(scene.subject)}")
                return True
        if fault.promise == "finished":
            row.again = "finished"
        else:
            off = difference(scene.run, self.undisturbed(fault.base, scene.lasting))
            row.again = "equal" if off == 0 else "within rounding" if off <= ROUNDING else f"differs by {off:.1e}"
            if off > (0.0 if fault.promise == "equal" else ROUNDING):
                row.wrong.append("the result is not that of the undisturbed run")
        row.orphans += scene.leftovers()
        return True

    def look_for_orphans(self, *, wait: bool = False) -> None:
        """Name what is left of runs that ended, once each had its time."""
        for entry in list(self._living):
            row, ended, process = entry
            while wait and lives(process) and time.monotonic() < ended + GRACE_SECONDS:
                time.sleep(1)
            gone = not lives(process)
            if gone or time.monotonic() >= ended + GRACE_SECONDS:
                self._living.remove(entry)
            if not gone and time.monotonic() >= ended + GRACE_SECONDS:
                with contextlib.suppress(psutil.NoSuchProcess):
                    row.orphans.append(f"process {process.pid} {process.name()}")
                    process.kill()


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        noticed = "" if row.noticed is None else f"{row.noticed:.1f} s"
        told = row.cause[:CAUSE_LENGTH].replace("|", "\\|")
        cells = (row.fault, row.harm, row.outcome, noticed, told, row.again, "; ".join(row.orphans) or "nothing")
        wrong = "; ".join(row.wrong).replace("|", "\\|")
        lines.append("| " + " | ".join((*cells, wrong, f"{row.seconds:.0f} s")) + " |")
    return "\n".join(lines)


def summary(rows: list[Row], declared: int, seed: int, minutes: float) -> str:
    """How many came to what, on one line."""
    outcomes = ("survived", "restarted", "ended", "not run")
    counted = ", ".join(f"{sum(row.outcome.startswith(one) for row in rows)} {one}" for one in outcomes)
    failed = sum(not row.as_promised for row in rows)
    number = f"{len(rows)}" if len(rows) == declared else f"{len(rows)} of {declared}"
    return f"{number} faults with seed {seed} in {minutes:.1f} minutes: {counted}; {failed} not as promised"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make drill", description="Faults: " + ", ".join(FAULTS))
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="those to make; none: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--at-once", type=int, default=3, help="faults in progress at a time, each in a run of its own")
    parser.add_argument("--patience", type=float, default=1.0, help="stretches every limit, on a busy machine")
    parser.add_argument("--out", type=Path, default=Path("outputs/drill"))
    given = parser.parse_args()
    if unknown := [name for name in given.faults if name not in FAULTS]:
        parser.error(f"no fault is called {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    if given.at_once < 1:
        parser.error("--at-once: at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the runs in progress are ended, too
    # Short, and not below the checkout: sockets and mounts are made there.
    root = Path(tempfile.mkdtemp(prefix="drill-"))
    drill, began = Drill(root, given.seed, given.patience), time.monotonic()
    rows: list[Row] = []
    # The longest first, so that no core waits for it at the end.
    faults = sorted((FAULTS[name] for name in given.faults or FAULTS), key=lambda one: -one.limit)
    given.out.mkdir(parents=True, exist_ok=True)

    def write() -> str:
        minutes = (time.monotonic() - began) / 60
        said = summary(rows, len(faults), given.seed, minutes)
        (given.out / "drill.md").write_text(f"# Fault drill\n\n{said}.\n\n{table(rows)}\n")
        (given.out / "drill.json").write_text(
            json.dumps({"seed": given.seed, "minutes": minutes, "faults": [asdict(row) for row in rows]}, indent=1)
        )
        return said

    with ThreadPoolExecutor(given.at_once) as pool:
        try:
            for played in as_completed([pool.submit(drill.play, fault) for fault in faults]):
                rows.append(row := played.result())
                told = "; ".join(filter(None, (row.outcome, row.harm, *row.wrong)))
                print(f"{row.fault}: {told} ({row.seconds:.0f} s)", flush=True)
                drill.look_for_orphans()
                write()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            drill.stop()
            raise
    drill.look_for_orphans(wait=True)
    said = write()
    print(f"\n{table(rows)}\n\n{said}")
    failed = not all(row.as_promised for row in rows)
    if failed:
        print(f"what the runs left: {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
