"""What the nodes of a run must have in common, looked at before any model is loaded: one line for each difference."""

from __future__ import annotations

import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from ..environment import DEVICE_PACKAGES, source_digest
from ..errors import ClusterError, ConfigError
from ..files import writing
from ..modeling.folder import model_glance
from ..registry import fingerprint_of, import_function
from ..run_folder import absent_folders, remove_empty
from .every_node import EveryNode, node_names, this_node_id

ANSWER_SECONDS = 180.0
"""Limit of one question; a node's first process has to start for it, which takes minutes on a loaded machine."""
CLOCK_SECONDS = 1.0
CLOCK_ROUNDS = 3
PACKAGES = (*DEVICE_PACKAGES, "ray", "deepspeed", "transformers")
"""Whose versions decide what a run computes, or whether its workers understand each other."""
MEETING = ".nodes"
"""Folder in run.directory in which controller and nodes look for each other."""
SHOWN_NODES = 3
SHOWN_LINES = 8

Loaded = Mapping[str, tuple[str, str | None]]
"""By configuration key what workers load: path and revision of a model, or import path of a function (`....function`)."""


@dataclass(frozen=True)
class NodeReport:
    """What a node has."""

    versions: Mapping[str, str]
    """Of Python and `PACKAGES`, without the build ("+cu130"); one that is not installed is left out."""
    code: str
    """Digest of the sources of this package."""
    models: Mapping[str, Mapping[str, str] | None]
    """By key what tells copies of a model, or of a function's file, apart; None: it is not there."""
    read: str | None = None
    """What the controller wrote for the nodes into the shared folder; None: it is not to be seen."""
    wrote: str | None = None
    """What this node wrote there."""
    refused: str | None = None
    """Why it could not."""
    shares: bool | None = None
    """Whether both have seen what the other wrote; None: there was no folder to share."""
    clock: float = 0.0
    """Seconds by which its clock is ahead of the controller's, as far as the way of the question leaves no doubt."""


@dataclass(frozen=True)
class Difference:
    """Something in which nodes differ from the controller."""

    subject: str
    """A configuration key with its value, or what is compared."""
    nodes: tuple[str, ...]
    fault: str
    mend: str

    def __str__(self) -> str:
        return f"{self.subject}: on {listed(self.nodes)} {self.fault}; {self.mend}"


def check_nodes(
    models: Mapping[str, Loaded], directory: Path | None, on_wait: Callable[[], None] = lambda: None
) -> None:
    """Compare the nodes of a run with the controller's; nothing is asked where that is the only one.

    Args:
        models: what the workers of each node, by Ray's id, will load.
        directory: the run's folder, which all nodes have to share; None: the workers write nothing.
        on_wait: see `EveryNode`.

    Raises:
        ClusterError: with a line for each difference, of which those after the first are notes.
    """
    others = {node: paths for node, paths in models.items() if node != this_node_id()}
    if not others:
        return
    with EveryNode(others, on_wait) as nodes:
        found = compare(nodes, others, directory, f"run.directory={directory}")
    if found:
        first, *rest = map(str, found)
        error = ClusterError(first)
        for line in rest[: SHOWN_LINES - 1]:
            error.add_note(f"error: {line}")
        if len(rest) >= SHOWN_LINES:
            error.add_note(f"and {len(rest) - SHOWN_LINES + 1} more such lines")
        raise error


def compare(nodes: EveryNode, models: Mapping[str, Loaded], directory: Path | None, folder: str) -> list[Difference]:
    """In what `nodes` differ from this process's node; `folder` is what lines call the directory."""
    names = node_names()
    wanted = {key: model for paths in models.values() for key, model in paths.items()}
    token = secrets.token_hex(8)
    with _meeting(directory, folder, token) as meeting:
        asked = {node: (dict(models[node]), meeting and str(meeting), node) for node in nodes}
        reports, failures = nodes.ask(report, asked, ANSWER_SECONDS)
        if meeting is not None:
            reports = {
                node: replace(told, shares=told.read == token and told.wrote == _content(meeting / node))
                for node, told in reports.items()
            }
    for node, told in reports.items():
        reports[node] = replace(told, clock=clock_ahead(_clock_rounds(nodes, node)))
    silent = [
        Difference("lrm_safety", (names.get(node, node),), f"nothing of ours can be called: {why}", _SAME_PACKAGES)
        for node, why in failures.items()
    ]
    here = report(wanted, None, "")
    others = {names.get(node, node): told for node, told in reports.items()}
    return silent + differences(names[this_node_id()], here, others, wanted, folder)


@contextmanager
def _meeting(directory: Path | None, folder: str, token: str) -> Iterator[Path | None]:
    """A folder in which controller and nodes look for each other, with what the controller wrote; nothing of it stays."""
    if directory is None:
        yield None
        return
    meeting, made = directory / MEETING, absent_folders(directory)
    try:
        with writing(folder):
            shutil.rmtree(meeting, ignore_errors=True)  # of a controller that was killed
            meeting.mkdir(parents=True)
            (meeting / "controller").write_text(token)
        yield meeting
    finally:
        shutil.rmtree(meeting, ignore_errors=True)
        remove_empty(made)


def report(models: Loaded, meeting: str | None, name: str) -> NodeReport:
    """What the node has on which this is called; in the folder `meeting` it leaves a file of its name."""
    read = wrote = refused = None
    if meeting is not None:
        token = secrets.token_hex(8)
        try:
            read = (Path(meeting) / "controller").read_text()
            (Path(meeting) / name).write_text(token)
            wrote = token
        except OSError as error:
            refused = error.strerror
    return NodeReport(
        versions=versions(),
        code=source_digest(),
        models={key: _glance(key, *model) for key, model in models.items()},
        read=read,
        wrote=wrote,
        refused=refused,
    )


def _glance(key: str, path: str, revision: str | None) -> Mapping[str, str] | None:
    if not key.endswith(".function"):
        return model_glance(path, revision)
    try:
        return {"its file": fingerprint_of(import_function(path, key)) or ""}
    except ConfigError:
        return None


def versions() -> dict[str, str]:
    """Of Python and the packages that are compared; the two builds of vLLM count as one."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name.removesuffix("-cpu")] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def differences(
    controller: str, here: NodeReport, others: Mapping[str, NodeReport], models: Loaded, folder: str
) -> list[Difference]:
    """In what the nodes differ from the controller's (`here`), nodes with the same fault together.

    Args:
        controller: the name of its node.
        others: by the names of their nodes.
        models: paths and revisions of the models that stand in the reports.
        folder: what lines call the folder that all have to share.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for node, told in others.items():
        for line in _faults(controller, here, told, models, folder):
            found.setdefault(line, []).append(node)
    return [Difference(subject, tuple(nodes), fault, mend) for (subject, fault, mend), nodes in found.items()]


_SHARED = "put it on storage that every node sees"
_SAME_PACKAGES = "install the same packages on every node (`make setup`, or one image)"


def _faults(
    controller: str, here: NodeReport, there: NodeReport, models: Loaded, folder: str
) -> Iterator[tuple[str, str, str]]:
    """(subject, fault, mend) of one node."""
    if there.shares is False:
        if there.read is not None and there.refused is not None:
            yield folder, f"it cannot be written ({there.refused})", "let the user of Ray's processes write there"
        else:
            yield folder, f"it is not the folder that the controller on {controller} writes to", _SHARED
    for key, files in there.models.items():
        subject = f"{key}={models[key][0]}"
        if files is None:
            yield subject, "it is absent", f"copy it there, or {_SHARED}"
        elif fault := _file_fault(here.models[key] or {}, files):
            yield subject, f"{fault}, compared with {controller}", f"copy it anew, or {_SHARED}"
    if other := [
        f"{name} {there.versions.get(name, 'absent')} instead of {version}"
        for name, version in here.versions.items()
        if there.versions.get(name) != version
    ]:
        yield "packages", f"{', '.join(other)} (as on {controller})", _SAME_PACKAGES
    if there.code != here.code:
        mend = "update it on every node, or start the run as a job, which brings its code along"
        yield "lrm_safety", f"its code is not that of {controller}", mend
    if abs(there.clock) > CLOCK_SECONDS:
        direction = "ahead of" if there.clock > 0 else "behind"
        mend = "let all nodes keep the time by NTP (chrony, systemd-timesyncd)"
        yield "clock", f"it is {abs(there.clock):.1f} s {direction} that of {controller}", mend


def _file_fault(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """The first file by which two copies of a model differ. A file that only one side's copy has counts too."""
    for name in sorted(here.keys() | there.keys()) if here and there else ():
        if name not in there:
            return f"{name} is missing"
        if name not in here:
            return f"there is a {name} more"
        if here[name] != there[name]:
            return f"{name} is another"
    return None


def _clock_rounds(nodes: EveryNode, node: str) -> Iterable[tuple[float, float, float]]:
    for _ in range(CLOCK_ROUNDS):
        sent = time.time()
        answers = nodes.ask(time.time, {node: ()}, ANSWER_SECONDS)[0]
        if node in answers:
            yield sent, answers[node], time.time()


def clock_ahead(rounds: Iterable[tuple[float, float, float]]) -> float:
    """Seconds by which a clock is ahead of ours (negative: behind), of which half the way there and back, in which it may have
    been read at any moment, is taken off.

    `rounds`: (when we asked by our clock, what the other said, when the answer was here by ours); the quickest counts. 0 where
    there is none.
    """
    sent, told, received = min(rounds, key=lambda one: one[2] - one[0], default=(0.0, 0.0, 0.0))
    ahead, doubt = told - (sent + received) / 2, (received - sent) / 2
    return max(0.0, ahead - doubt) + min(0.0, ahead + doubt)


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, the first few of many."""
    known = list(names)
    shown = known if len(known) <= SHOWN_NODES + 1 else [*known[:SHOWN_NODES], f"{len(known) - SHOWN_NODES} more nodes"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _content(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
