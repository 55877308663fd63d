"""A run's folder: it has one owner at a time, and it says what made it.

    RUN/.owner            who works there now, from before anything in the folder is touched until the end
    RUN/environment.json  every start: command, versions, commit, host, those of the workers, begin, end, exit status
    RUN/error.txt         the whole traceback of the last start, where that failed

An owner on this machine is alive while its process is. Of an owner elsewhere (another machine, another container, this
machine before it was started anew) only the heartbeat can be seen, the time stamp of `.owner`, renewed every `BEAT_SECONDS`: it is
gone once that has not moved for `GONE_SECONDS`. No clocks of machines are compared: who comes second watches the file, unless it is
older than `LONG_AGO_SECONDS` by the clock of the storage. An owner that is gone is replaced.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from .environment import environment
from .errors import ConfigError, DataError, LrmSafetyError, failure_inside, from_here, whole_traceback
from .files import digest_of, read_json, write_atomically, write_json
from .secret_text import without_secrets
from .settings.types import RUNS_VARIABLE
from .signals import later

OWNER, ENVIRONMENT, ERROR = ".owner", "environment.json", "error.txt"
BEAT_SECONDS = 10.0
GONE_SECONDS = 120.0
LONG_AGO_SECONDS = 1800.0
RAY_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the command of a job

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """One process that works, or worked, in a folder."""

    host: str
    pid: int
    started: int
    """When the process began, in the kernel's ticks since its start: tells it from a later process of the same number."""
    system: str
    """The running kernel and its space of process numbers: only within it do `pid` and `started` mean anything."""
    since: str
    command: str
    token: str
    """Random, so that no two owners are alike."""

    @classmethod
    def of_this_process(cls, command: str) -> Owner:
        """This process, now."""
        started = process_start(os.getpid())
        assert started is not None
        return cls(socket.gethostname(), os.getpid(), started, this_system(), now(), command, secrets.token_hex(8))

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}, since {self.since}: {self.command}"


class RunFolder:
    """A folder that this process owns: see `owned`."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.exit_status = 0
        """What environment.json will say of an end without an exception."""
        self._owner = owner
        self._start: dict[str, Any] | None = None

    def begin(self, configuration: Mapping[str, Any] | None = None, name: str = "config.yaml") -> None:
        """Everything has been checked: write the configuration (None: later or never) and this start into the folder, which
        stays from now on."""
        self._start = {"command": self._owner.command, "started": self._owner.since, "ended": None, "exit_status": None}
        self._start |= {"host": self._owner.host, "pid": self._owner.pid, **environment()}
        self._write_start(add=True)
        (self.path / ERROR).unlink(missing_ok=True)  # of the start before
        if configuration is not None:
            self.write_configuration(configuration, name)

    def write_configuration(self, configuration: Mapping[str, Any], name: str = "config.yaml") -> None:
        """Write a resolved configuration into the folder."""
        write_atomically(self.path / name, yaml.safe_dump(dict(configuration), sort_keys=False).encode())

    def tell(self, **facts: Any) -> None:
        """Add to what environment.json says of this start."""
        if self._start is not None:
            self._start |= facts
            self._write_start(add=False)

    def keep(self, error: Exception) -> None:
        """Write the traceback of what failed into the folder, and note on the error where it is.

        A mistake that was found before anything was begun, and a defect of ours then, are told whole on the terminal: the
        folder is not made for them. Of what failed inside a function of the user's the terminal shows the innermost frames
        alone, so that this start is kept in any case.
        """
        inside = failure_inside(error)
        if self._start is None and inside:
            self.begin()
        if self._start is not None:
            path = self.path / ERROR
            write_atomically(path, without_secrets(whole_traceback(error)))
            if inside or not isinstance(error, LrmSafetyError):
                error.add_note(f"the whole traceback: {from_here(str(path))}")

    def end(self, exit_status: int) -> None:
        """Say in environment.json how it ended."""
        self.tell(ended=now(), exit_status=exit_status)

    def _write_start(self, *, add: bool) -> None:
        path = self.path / ENVIRONMENT
        try:
            starts = read_json(path)["starts"]
            assert isinstance(starts, list)
        except (DataError, LookupError, AssertionError):
            starts = []  # none yet, or lost with the folder
        starts = [*starts, self._start] if add or not starts else [*starts[:-1], self._start]
        write_json(path, {"starts": starts}, indent=1)


@contextmanager
def owned(directory: Path, command: Sequence[str]) -> Iterator[RunFolder]:
    """The folder, made if it is absent, for this process alone; `command` is what the user typed after `lrm-safety`.

    Raises ConfigError in one line, with nothing changed, where somebody else owns it, and where it cannot be written. A
    folder in which nothing was written is not left behind.
    """
    refuse_what_a_job_would_lose(directory)
    line = shlex.join(["lrm-safety", *map(without_secrets, command)])
    made = absent_folders(directory)
    with ExitStack() as signals_wait:
        try:
            owner = _take(directory, line, signals_wait)
        except OSError as error:
            remove_empty(made)
            raise ConfigError(
                f"run.directory={directory}: cannot be written ({error.strerror}); choose another"
            ) from error
        folder, stopped = RunFolder(directory, owner), threading.Event()
        beat = threading.Thread(target=_beat, args=(directory, owner, stopped), daemon=True)
        beat.start()
        status, failure = 1, None
        try:
            signals_wait.close()
            yield folder
            status = folder.exit_status
        except BaseException as error:
            status = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
            failure = error if isinstance(error, Exception) else None
            raise
        finally:
            with later():
                stopped.set()
                beat.join()
                if owner_of(directory) in (owner, None):
                    try:
                        if failure is not None:
                            folder.keep(failure)
                        folder.end(status)
                    except OSError as error:
                        _logger.warning("%s: cannot be written (%s)", directory / ENVIRONMENT, error.strerror)
                    (directory / OWNER).unlink(missing_ok=True)
                    remove_empty(made)


def refuse_what_a_job_would_lose(directory: Path, key: str = "run.directory") -> None:
    """`refuse_relative`, where this process is a Ray job."""
    if RAY_JOB_VARIABLE in os.environ:
        refuse_relative(directory, key)


def refuse_relative(directory: Path, key: str = "run.directory", given_by: str = "submit --env") -> None:
    """Raise ConfigError for a relative folder of a Ray job's results, which `key` names: a job runs in a copy that others share.
    `given_by`: what gives a variable to whatever reads it."""
    if not directory.is_absolute():
        or_all = f", or leave {key} out and let {RUNS_VARIABLE} name one for all runs (`{given_by} {RUNS_VARIABLE}=/shared/runs`)"
        raise ConfigError(
            f"{key}={directory}: is relative, and a Ray job's working directory is a temporary copy of the checkout; "
            f"name an absolute folder that lasts{or_all * (key == 'run.directory')}"
        )


def owner_of(directory: Path) -> Owner | None:
    """Who is written down as the owner, alive or not; None where nobody is, or the file cannot be read."""
    return _parse(_content(directory / OWNER))


def at_work(directory: Path) -> Owner | None:
    """The owner that is alive, as far as one look tells: of one elsewhere, by its heartbeat and this machine's clock."""
    owner = owner_of(directory)
    if owner is None or owner.system == this_system():
        return owner if owner is not None and _lives_here(owner) else None
    beat = _heartbeat(directory / OWNER)
    return owner if beat is not None and time.time() - beat < GONE_SECONDS else None


def owned_by_another(directory: Path) -> Owner | None:
    """Another process that has taken a folder which was this one's."""
    owner = owner_of(directory)
    return None if owner is None or (owner.pid == os.getpid() and owner.system == this_system()) else owner


def absent_folders(directory: Path) -> list[Path]:
    """The folder and those above it that do not exist yet, the deepest first."""
    absent: list[Path] = []
    for path in (directory, *directory.parents):
        if os.path.exists(path):  # which is silent about a name that is too long
            break
        absent.append(path)
    return absent


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders as far as they are empty, the deepest first."""
    for path in folders:
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def _take(directory: Path, command: str, signals_wait: ExitStack) -> Owner:
    """Become the owner, with signals to stop kept waiting from then on in `signals_wait`.

    The file is made exclusively, which holds between machines too. Who follows an owner that is gone first makes a file
    named after that owner's record, which only one can, and then renames it over the record: who had read the old
    record finds another one in its place and begins again.
    """
    while True:
        place, content = _last(directory)
        if content is None and place.is_symlink():
            raise ConfigError(
                f"{place}: is a link to nowhere, not a record of ours; remove it, or choose another run.directory"
            )
        if content is not None:
            _refuse_if_alive(directory, place, content)
            if _last(directory) != (place, content):
                continue  # meanwhile it ended, or another one took the folder: look again
            place = directory / _successor(content)
        owner = Owner.of_this_process(command)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            signals_wait.enter_context(later())
            if _write(owner, place, directory):
                return owner
        except (FileExistsError, FileNotFoundError):
            pass  # somebody was faster, or has just removed an empty folder: look again
        signals_wait.close()


def _write(owner: Owner, place: Path, directory: Path) -> bool:
    """Write the owner's record; whether it became the owner by it."""
    with place.open("x", encoding="utf-8") as file:
        file.write(json.dumps(asdict(owner)))
        file.flush()
        os.fsync(file.fileno())
    if _parse(_last(directory)[1]) == owner:
        if place.name != OWNER:
            place.rename(directory / OWNER)
        return True
    place.unlink()
    return False


def _last(directory: Path) -> tuple[Path, bytes | None]:
    """The present owner's file with its content: the last of those that followed one another. None where nobody is."""
    place, content = directory / OWNER, _content(directory / OWNER)
    while content is not None and (later := _content(directory / _successor(content))) is not None:
        place, content = directory / _successor(content), later
    return place, content


def _successor(content: bytes) -> str:
    return f"{OWNER}-{digest_of([content])[:16]}"


def _refuse_if_alive(directory: Path, place: Path, content: bytes) -> None:
    """Raise ConfigError for an owner that is not gone, after watching the heartbeat of one that is elsewhere."""
    owner = _parse(content)
    if owner is not None and owner.system == this_system():
        if _lives_here(owner):
            raise ConfigError(_refusal(directory, str(owner)))
        return
    described = str(owner or "a process that is just writing its name")
    first = _heartbeat(place)
    if first is None or _storage_time(directory) - first > LONG_AGO_SECONDS:
        return
    _logger.warning(
        "run.directory=%s: watching for a heartbeat of its owner (%s), up to %g s", directory, described, GONE_SECONDS
    )
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, BEAT_SECONDS / 10))
        last = _heartbeat(place)
        if last is None:
            return
        if last != first:
            described = str(_parse(_content(place)) or described)
            raise ConfigError(_refusal(directory, described))


def _lives_here(owner: Owner) -> bool:
    """Whether an owner of this system is alive."""
    if (started := process_start(owner.pid)) is not None:
        return started == owner.started
    try:
        os.kill(owner.pid, 0)
    except PermissionError:
        return True  # another user's, whom /proc hides
    except ProcessLookupError:
        return False
    return False  # ended, though nobody has asked for its status yet


def _refusal(directory: Path, owner: str) -> str:
    return (
        f"run.directory={directory}: is in use by {owner}; nothing was changed: wait for it or stop it, "
        "or choose another run.name or run.directory"
    )


def _storage_time(directory: Path) -> float:
    """The time by the clock that stamps a folder's files: on a network file system the server's."""
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_mtime


def _heartbeat(place: Path) -> float | None:
    """Time stamp of an owner's file; None where there is none any more."""
    try:
        with place.open("rb") as file:  # opened: a network file system answers a bare stat from its memory
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _beat(directory: Path, owner: Owner, stopped: threading.Event) -> None:
    while not stopped.wait(BEAT_SECONDS):
        try:
            if owner_of(directory) == owner:
                os.utime(directory / OWNER)
        except OSError:
            continue  # the disk may come back; the recorder says what is lost


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse(content: bytes | None) -> Owner | None:
    try:
        return None if content is None else Owner(**json.loads(content))
    except (ValueError, TypeError):
        return None


def process_start(pid: int) -> int | None:
    """When a process of this machine began, in the kernel's ticks; None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def this_system() -> str:
    """The running kernel and the space of process numbers that this process is in."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def now() -> str:
    """The time, in UTC to the second."""
    return as_told(datetime.now(UTC))


def as_told(time: datetime) -> str:
    """As the folder's files have a time in UTC: the later, the greater as text."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")
