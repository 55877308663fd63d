"""What a multirun is before it runs: its points, what each is called and where it goes; and one table of what they came to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from ..errors import ConfigError, LrmSafetyError
from ..results import Evaluation
from ..run_folder import owned
from ..settings.compose import HYDRA_ERRORS, Root, differences, effective, parsed
from ..settings.types import RUNS_VARIABLE
from ..sweep_files import holds, refuse_in_a_run, what_it_does

SUBDIRECTORY_EXCLUDES = "hydra.job.config.override_dirname.exclude_keys"
"""A run of a sweep has a folder named after its overrides; all of them would be over a file name's length."""

SWEEP_DIRECTORY = f"{os.environ.get(RUNS_VARIABLE, 'outputs')}/sweep"
"""Where the runs of a sweep go whose own folders differ, each below in a folder named after its overrides."""

SWEEP_KEY = "hydra.sweep.dir"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

LONGEST_TAG = 64
"""W&B refuses longer ones."""

MAXIMUM_NAME_BYTES = 255
"""Of a file or folder, on every usual file system."""


@dataclass(frozen=True)
class Tracked:
    """How a run of a multirun is called in the tracker."""

    name: str
    group: str
    tags: tuple[str, ...]
    """Its overrides."""


def with_params(root: Root[Any], overrides: Sequence[str], hydra: Hydra) -> list[str]:
    """The overrides of a multirun with those of `hydra.sweeper.params`, which Hydra's basic sweeper puts before them; what is typed
    takes the place of the same key there."""
    if any(item.lstrip("+").startswith("hydra.sweeper.params") for item in overrides):
        raise ConfigError("hydra.sweeper.params: belongs into a file of conf/; here give each key its values, KEY=A,B")
    try:
        sweeper = hydra.compose_config(root.name, list(overrides), RunMode.MULTIRUN).hydra.sweeper
    except HYDRA_ERRORS as error:
        raise ConfigError(root.mistakes(hydra, overrides).explain(error)) from error
    if OmegaConf.select(sweeper, "_target_") != BASIC_SWEEPER:  # what `params` means to another one is its own affair
        return list(overrides)
    typed = {item.get_key_element(): str(item.input_line) for item in effective(overrides, root)}
    params = [typed.pop(key, f"{key}={value}") for key, value in (sweeper.params or {}).items()]
    return [*params, *typed.values()]


def swept_keys(overrides: Sequence[str], root: Root[Any]) -> set[str]:
    """The keys and groups that have several values."""
    return {item.get_key_element() for item in effective(overrides, root) if item.is_sweep_override()}


def places(overrides: Sequence[str], root: Root[Any], composed: Sequence[Any]) -> list[str]:
    """Where the runs of a multirun go: each into a folder that is named after what is swept."""
    fixed = [item.key_or_group for item in effective(overrides, root) if not item.is_sweep_override()]
    found = [f"{SUBDIRECTORY_EXCLUDES}=[{','.join(fixed)}]"]
    if not any(item.startswith("hydra.mode=") for item in overrides):
        found.append("hydra.mode=MULTIRUN")
    if folder_key(overrides) != SWEEP_KEY:
        # Stated here: Hydra resolves it without the swept groups, of which the run's name is made.
        directories = {settings.run.directory for settings in composed}
        found.append(f"{SWEEP_KEY}={quoted(directories.pop() if len(directories) == 1 else SWEEP_DIRECTORY)}")
    return found


def sweep_folder(overrides: Sequence[str]) -> Path:
    """What `hydra.sweep.dir=FOLDER` names among the overrides of a multirun; the last one counts."""
    return Path(str(parsed([one for one in overrides if _is_folder(one)])[-1].value()))


def folder_key(words: Sequence[str]) -> str:
    """The key by which a multirun of these words names its folder."""
    return SWEEP_KEY if any(map(_is_folder, words)) else "run.directory"


def _is_folder(word: str) -> bool:
    return word.lstrip("+").startswith(f"{SWEEP_KEY}=")


def quoted(value: str) -> str:
    """As Hydra reads it on the command line, whatever stands in it; in double quotes, which a shell's single ones enclose as
    they are, and only where Hydra needs them."""
    try:
        if OverridesParser.create().parse_override(f"x=[{value}]").value() == [
            value
        ]:  # in a list more has to be quoted
            return value
    except HydraException:
        pass
    return QuotedString(value, Quote.double).with_quotes()


def once(words: Sequence[str]) -> list[str]:
    """The words without overrides that a later one of the same key makes void; what sets a whole group of keys adds to it."""
    keys = [word.partition("=")[0] if "=" in word else None for word in words]
    return [
        word
        for i, word in enumerate(words)
        if keys[i] is None or keys[i] not in keys[i + 1 :] or word.partition("=")[2].startswith("{")
    ]


@contextmanager
def one_at_a_time(folder: Path, command: Sequence[str], swept: set[str]) -> Iterator[None]:
    """Around a multirun: its folder is this sweep's alone. Raises ConfigError where another sweep, or this one, uses it now, and
    where it is the folder of a run."""
    if not swept or "$" in str(folder):  # the only run goes into the folder itself; a name that Hydra alone resolves
        yield
        return
    refuse_in_a_run(folder, folder_key(command))
    with owned(folder, command):
        yield


def check_folder_names(combinations: Sequence[Sequence[str]], swept: set[str]) -> None:
    """Raise ConfigError where a run of a multirun would have a folder of a name that no file system takes, or one inside the
    folder of another run, which may write there what it likes."""
    folders: dict[Path, str] = {}
    for one in combinations:
        told = [item for item in one if item.partition("=")[0] in swept]
        folders[Path("__".join(sorted(told)).replace("=", "-"))] = " ".join(told)
        for part in "__".join(sorted(told)).split("/"):
            if len(os.fsencode(part)) > MAXIMUM_NAME_BYTES:
                key = max(told, key=len).partition("=")[0]
                raise ConfigError(
                    f"{key}: a run of a multirun has a folder named after its values, and this name would have "
                    f"{len(os.fsencode(part))} bytes, above the {MAXIMUM_NAME_BYTES} of a file system; put the values "
                    "into files of conf/ and sweep over their names, or start the runs one by one"
                )
    for folder, inner in folders.items():
        if outer := next((folders[parent] for parent in folder.parents if folders.get(parent)), None):
            raise ConfigError(
                f"{inner}: its folder, which is named after these values, would lie inside that of {outer}; give one of the values "
                "another name (a link beside it), or put them into files of conf/ and sweep over their names"
            )


def check_apart(combinations: Sequence[Sequence[str]], swept: set[str], composed: Sequence[Any]) -> None:
    """Raise ConfigError where two runs of a multirun would do the same, which repeats to the bit."""
    found: dict[str, str] = {}
    for one, settings in zip(combinations, composed, strict=True):
        told = " ".join(item for item in one if item.partition("=")[0] in swept)
        does = json.dumps(what_it_does(asdict(settings)), sort_keys=True, default=str)
        if (same := found.setdefault(does, told)) is told:
            continue
        if same == told:
            raise ConfigError(f"{told}: stands twice in this sweep; give each value once")
        raise ConfigError(
            f"{same} and {told}: are the same run twice, which repeats to the bit; give each a seed of its own, or leave one out"
        )


def tracker_names(combinations: Sequence[Sequence[str]], swept: set[str], composed: Sequence[Any]) -> list[Tracked]:
    """How each run of a multirun is called in W&B. Seeds of one configuration make a group; where no seed is
    swept, the runs of one run.name do."""
    names = [settings.run.name for settings in composed]
    found = []
    for name, told in zip(names, differences(combinations, swept, names), strict=True):
        shared = [item for item in told if not item.startswith("seed=")]
        group = " ".join((name, *shared)) if len(shared) < len(told) else name
        found.append(Tracked(" ".join((name, *told)), group, told))
    return found


def report_sweep(folder: Path, runs: Collection[tuple[Path, Mapping[str, Any]]]) -> None:
    """One table of what the runs of a sweep came to, and its page, in `folder`/report. Without `runs`, folders with the
    configurations that were asked for, which a launcher of another package may leave unknown, it is of all that lies in the folder.
    """
    if not folder.is_dir():  # named by something that Hydra alone resolves
        return
    mine = [one for one, resolved in runs if holds(one, resolved)]
    absent = [os.path.relpath(one, folder) for one, _ in runs if one not in mine]
    if runs and not any((one / name).is_file() for one in mine for name in ("metrics.jsonl", Evaluation.FILE)):
        why = "none of its runs has a record yet" if mine else "no folder of a point has a run of what was asked for"
        print(f"no report of the sweep: {why}", file=sys.stderr)
        return
    notes = [f"{len(absent)} of {len(runs)} points have no run of what was asked for: {', '.join(absent)}"] * bool(
        absent
    )
    from .report import report  # draws, and takes its time to import

    try:
        report([str(folder), f"output={folder}/report"], only=mine or None, notes=notes)
    except LrmSafetyError as error:
        print(f"no report of the sweep: {error}", file=sys.stderr)
