"""The harness of every configured command: Hydra's flags, one composition, all runs checked before the first one starts."""

from __future__ import annotations

import argparse
import io
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError, LrmSafetyError, nearest, shown
from ..evaluation.plan import check_early
from ..files import disk_says
from ..interruption import heard
from ..monitoring.progress import CHECKING
from ..monitoring.registry import find
from ..run_folder import RunFolder, absent_folders, owned, remove_empty
from ..settings import EvaluateSettings, Settings, SftSettings
from ..settings.compose import Root, parsed, sweep
from ..settings.loader import is_searchpath
from ..sweep_files import finished, objective_of, record_of_a_sweep, refuse_another_point, refuse_in_a_sweep
from ..sweeping import Point
from .multirun import (
    LONGEST_TAG,
    Tracked,
    check_apart,
    check_folder_names,
    once,
    one_at_a_time,
    places,
    quoted,
    report_sweep,
    sweep_folder,
    swept_keys,
    tracker_names,
    with_params,
)

REPORTED = (Settings, SftSettings, EvaluateSettings)
"""Schemas of the commands whose runs `lrm-safety report` compares."""

Run = Callable[[Any, dict[str, Any], RunFolder], int | None]
"""One run of settings, resolved configuration and folder; returns its exit status, or None for 0."""


class RunFailed(Exception):
    """A run of a sweep failed. Its error has been told where it happened."""


@dataclass(frozen=True)
class Task:
    """What Hydra, its sweepers and its launchers call for each run.

    The one run of a command returns its exit status. A run of a sweep returns its objective (`run.objective`), which sweepers
    choose the next values by, or raises RunFailed once it has told its error: the others go on, and whatever launcher runs
    them, Hydra hands the exception on.
    """

    root: Root[Any]
    run: Run
    command: tuple[str, ...]
    """What the user typed after `lrm-safety`."""
    sweeps: bool = False
    called: tuple[str, ...] = ()
    """The command itself and the folders of the user's groups: what stands before the overrides of a run."""
    names: tuple[Tracked, ...] = ()
    """Of every run of a multirun; empty where a sweeper chooses values of its own."""
    runs: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    """Folder and resolved configuration of those that this process started, or had started."""

    def __call__(self, config: DictConfig) -> float | None:
        settings, resolved = self.root.settings_of(config)
        folder = Path(HydraConfig.get().runtime.output_dir)
        if self.sweeps:
            self.runs.append((folder, resolved))
            number = HydraConfig.get().job.num
            name = self.names[number].name if self.names else str(folder)
            print(f"run {number + 1}{f' of {len(self.names)}' if self.names else ''}: {name}", flush=True)
            if finished(folder, resolved):
                print(f"it is finished; remove {folder} to have it again", flush=True)
                return objective_of(folder, settings_objective(settings))
            self._tracked(settings, number)
            if hasattr(settings, "tracking"):
                resolved["tracking"] = asdict(settings.tracking)
        status = self._status(settings, resolved, folder)
        if not self.sweeps:
            return status
        if status:
            print(f"failed: {name}", file=sys.stderr, flush=True)
            raise RunFailed(name)
        return objective_of(folder, settings_objective(settings))

    def point(self, config: DictConfig, number: int, overrides: Sequence[str], folder: Path) -> tuple[Point, Any]:
        """A run of a sweep for a launcher that starts commands of its own, and its settings."""
        settings, resolved = self.root.settings_of(config)
        self._tracked(settings, number)
        self.runs.append((folder, resolved))
        words = [*self.called, *overrides, f"run.directory={quoted(str(folder))}"]
        if (tracking := getattr(settings, "tracking", None)) is not None and self.names:
            tags = ",".join(map(quoted, tracking.tags))
            words += [f"tracking.name={quoted(tracking.name)}", f"tracking.group={quoted(tracking.group)}"]
            words.append(f"tracking.tags=[{tags}]")
        point = Point(self.names[number].name if self.names else folder.name, tuple(once(words)), folder)
        schedule = getattr(settings, "schedule", None)
        if schedule is not None and not getattr(schedule, "passes", None):
            limits = (schedule.max_updates, getattr(schedule, "stop_after_updates", None))
            point.updates = min(filter(None, limits), default=None)
        if finished(folder, resolved):
            point.state = "done before"
        else:
            try:
                refuse_another_point(folder, settings)
            except ConfigError as error:
                raise ConfigError(f"{point.name}: {error}") from error
        return point, settings

    def failed(self, point: Point) -> RunFailed:
        """What a sweeper is given of a point that failed."""
        return RunFailed(point.name)

    def _tracked(self, settings: Any, number: int) -> None:
        if (
            self.names and (tracking := getattr(settings, "tracking", None)) is not None
        ):  # a study's runs have their own
            own = self.names[number]
            tracking.name, tracking.group = tracking.name or own.name, tracking.group or own.group
            tracking.tags = list(dict.fromkeys([*tracking.tags, *(tag for tag in own.tags if len(tag) <= LONGEST_TAG)]))

    def _status(self, settings: Any, resolved: dict[str, Any], folder: Path) -> int:
        """Exit status of the run, whose error has been told where it failed."""
        try:
            if folder != Path(settings.run.directory).absolute():  # of a sweep: one of its own for each run
                settings.run.directory = resolved["run"]["directory"] = str(folder)
            if getattr(getattr(settings, "tracking", None), "console", "off") != "off":
                # The imports that follow take their time, and so do the checks of what the configuration names.
                print(CHECKING, flush=True)
            with owned(Path(settings.run.directory), self.command) as own:
                own.exit_status = self.run(settings, resolved, own) or 0
                return own.exit_status
        except LrmSafetyError as error:
            print(shown(error), file=sys.stderr)
        except Exception as error:
            if reason := disk_says(error):
                place = getattr(error, "filename", None) or "run.directory"
                print(f"error: {place}: {reason}; make room and start the same command again", file=sys.stderr)
            else:
                # Hydra would hide the traceback of what is our own mistake behind one line.
                traceback.print_exc()
        return 1


def launch(root: Root[Any], run: Run, arguments: Sequence[str], name: str | None = None) -> int:
    """Do what `arguments`, overrides and Hydra's own flags, ask of the command; returns the exit status.

    `name` is how the command is called where it is not `root.command`. Raises ConfigError before anything starts if any run
    of a sweep is misconfigured. A failed run of a sweep does not keep the others from running; the exit status is 1 then.
    """
    given = parse(arguments, root)
    hydra = root.hydra(given.overrides, given.folders)
    called = tuple((name or root.command).split())
    try:
        if given.hydra_help:
            given.overrides = [item for item in given.overrides if item.lstrip("+~").startswith(("hydra.", "hydra/"))]
            hydra.hydra_help(root.name, get_args_parser(), given)
        elif given.info == "plugins":
            _show_info(hydra, root, given)
        else:
            with heard():
                return _checked(root, run, called, arguments, given, hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(root.mistakes(hydra, given.overrides).explain(error)) from error
    return 0


def _checked(
    root: Root[Any],
    run: Run,
    called: tuple[str, ...],
    arguments: Sequence[str],
    given: argparse.Namespace,
    hydra: Hydra,
) -> int:
    command = (*called, *arguments)
    is_sweep = _is_sweep(given)
    if is_sweep and given.info:
        raise ConfigError("--info: is of one run; leave out -m and give each key one value")
    overrides, combinations, composed = compositions(root, given, hydra)
    if given.cfg:
        _show_configuration(root, given, hydra, combinations)
        return 0
    if given.info:
        _show_info(hydra, root, given)
        return 0
    told = _told(root, overrides, combinations) if is_sweep else []
    for i, settings in enumerate(composed):
        try:
            _look_early(settings)
        except LrmSafetyError as error:
            _name_point(error, told, i)
            raise
        if (objective := settings_objective(settings)) is not None:
            check_objective(objective)
    if not is_sweep:
        _refuse_launcher(overrides)
        refuse_in_a_sweep(Path(composed[0].run.directory))
        with _can_be_written(composed, command):
            return int(hydra.run(root.name, Task(root, run, command), overrides).return_value)
    swept, names = swept_keys(overrides, root), list[Tracked]()
    if not any(item.lstrip("+").startswith("hydra.sweep.subdir=") for item in overrides):
        check_folder_names(combinations, swept)
    if not any(item.lstrip("+").startswith("hydra/sweeper") for item in overrides):  # another picks values of its own
        if not swept:  # the only run goes into the folder itself
            refuse_in_a_sweep(Path(composed[0].run.directory))
        check_apart(combinations, swept, composed)
        names = tracker_names(combinations, swept, composed)
    task = Task(root, run, command, True, (*called, *own_groups(given)), tuple(names))
    arguments = [*places(overrides, root, composed), *overrides]
    folder = sweep_folder(arguments)
    status = 0
    with _can_be_written(composed, command), one_at_a_time(folder, command, swept):
        try:
            with record_of_a_sweep(folder, task.runs):
                hydra.multirun(root.name, task, arguments)
        except RunFailed:
            status = 1
        finally:
            for one, _ in task.runs:  # of a run that was refused: Hydra has made it all the same
                remove_empty([one, *(parent for parent in one.parents if folder.absolute() in parent.parents)])
        if root.schema in REPORTED:
            report_sweep(folder, task.runs)
    return status


def _refuse_launcher(overrides: Sequence[str]) -> None:
    """Raise ConfigError for a launcher or a sweeper of a single run, which would run here all the same."""
    for item in overrides:
        group, _, chosen = item.lstrip("+").partition("=")
        if group in ("hydra/launcher", "hydra/sweeper") and chosen != "basic":
            raise ConfigError(f"{item}: is read of a multirun alone; add -m, also for a single point")


@contextmanager
def _can_be_written(composed: Sequence[Any], command: Sequence[str]) -> Iterator[None]:
    """Every run's folder can be written and is free, of which Hydra would know nothing; those that stay empty are removed: Hydra
    makes one for a run that is then refused."""
    absent = [absent_folders(Path(settings.run.directory)) for settings in composed]
    for settings in composed:
        with owned(Path(settings.run.directory), command):
            pass
    try:
        yield
    finally:
        for folders in absent:
            remove_empty(folders)


def _show_configuration(
    root: Root[Any], given: argparse.Namespace, hydra: Hydra, combinations: Sequence[Sequence[str]]
) -> None:
    """What `--cfg` asks for; of a multirun one document for each run."""
    kind, part = given.cfg, given.package
    if kind == "hydra" and given.resolve:  # alone it has not the keys that it refers to
        kind, part = "all", part or "hydra"
    for i, one in enumerate(combinations):
        if len(combinations) > 1:
            print(f"---\n# run {i + 1} of {len(combinations)}: {' '.join(one)}")
        hydra.show_cfg(root.name, list(one), kind, part, given.resolve)


def _is_sweep(given: argparse.Namespace) -> bool:
    return bool(given.multirun) or "hydra.mode=MULTIRUN" in given.overrides


def compositions(
    root: Root[Any], given: argparse.Namespace, hydra: Hydra
) -> tuple[list[str], list[list[str]], list[Any]]:
    """All overrides of a command, those of every run that it asks for, and these runs' checked settings."""
    overrides, combinations = given.overrides, [given.overrides]
    if _is_sweep(given):
        overrides = with_params(root, overrides, hydra)
        combinations = list(sweep(overrides, root, hydra))
    each = [[*one, *["hydra.mode=RUN"] * _is_sweep(given)] for one in combinations]
    composed, refused = list[Any](), dict[int, ConfigError]()
    for i, one in enumerate(each):
        try:
            composed.append(root.compose(one, given.folders)[0])
        except ConfigError as error:
            refused[i] = error
        is_of_points = bool(composed) or len({str(error) for error in refused.values()}) > 1
        if refused and (is_of_points or i + 1 == len(each)):
            point, first = next(iter(refused.items()))
            if is_of_points:  # what refuses all alike is no point's
                _name_point(first, _told(root, overrides, combinations), point)
            raise first
    return overrides, combinations, composed


def _told(root: Root[Any], overrides: Sequence[str], combinations: Sequence[Sequence[str]]) -> list[str]:
    """What tells each point of a sweep from the others: its values of the keys that have several."""
    swept = swept_keys(overrides, root)
    return [" ".join(item for item in one if item.partition("=")[0] in swept) for one in combinations]


def _name_point(error: LrmSafetyError, told: Sequence[str], i: int) -> None:
    """Let the line of an error name the point `i` of a sweep that it is of."""
    if len(told) > 1:
        error.args = (f"{error}; in point {i + 1} of {len(told)}, {told[i]}",)


def _show_info(hydra: Hydra, root: Root[Any], given: argparse.Namespace) -> None:
    log = logging.getLogger()
    handlers, level = log.handlers[:], log.level
    log.handlers.clear()  # Hydra adds one of its own, and would be heard twice
    try:
        hydra.show_info(given.info, root.name, given.overrides)
    finally:
        log.handlers[:] = handlers
        log.setLevel(level)


def settings_objective(settings: Any) -> str | None:
    """`run.objective`, where the command has the key."""
    named: str | None = getattr(settings.run, "objective", None)
    return named


def check_objective(name: str) -> None:
    """Raise ConfigError for what is no metric of a run."""
    try:
        find(name)
    except AssertionError:
        raise ConfigError(
            f"run.objective={name}: is no metric; docs/metrics.md lists them, such as evaluation/safety"
        ) from None


def _look_early(settings: object) -> None:
    """What can be told of benchmarks and judges before torch is imported."""
    if isinstance(settings, EvaluateSettings):
        check_early(settings.evaluation)
    elif isinstance(settings, Settings) and settings.evaluation.every_updates:
        check_early(settings.evaluation, in_training=True)


def parse(arguments: Sequence[str], root: Root[Any]) -> argparse.Namespace:
    """What Hydra's own parser reads out of the arguments, in any order, and `folders` of the user's groups.

    Raises ConfigError in one line, also for flags that would choose another configuration.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False
    with redirect_stderr(io.StringIO()) as said:
        try:
            given = parser.parse_intermixed_args(list(arguments))
        except SystemExit:
            raise ConfigError(_mistaken(said.getvalue().strip().rpartition("error: ")[2], parser, root)) from None
    if given.config_name or given.config_path or given.experimental_rerun:
        raise ConfigError(
            "--config-name, --config-path, --experimental-rerun: each command has its own configuration; give key=value, or "
            "a folder of groups of your own with --config-dir"
        )
    if given.resolve and not given.cfg:
        raise ConfigError("--resolve: belongs to --cfg")
    given.folders = [] if given.config_dir is None else [given.config_dir]
    return given


def own_groups(given: argparse.Namespace) -> tuple[str, ...]:
    """The folders of the user's groups that these arguments name, as an override of any command; none: nothing. Those of
    LRM_SAFETY_CONF every command reads by itself."""
    named: list[Any] = [item.value() for item in parsed([one for one in given.overrides if is_searchpath(one)])]
    folders = [str(one) for value in named for one in value]
    folders += [f"file://{Path(one).absolute()}" for one in given.folders]
    return (f"hydra.searchpath=[{','.join(map(repr, folders))}]",) if folders else ()


def _mistaken(said: str, parser: argparse.ArgumentParser, root: Root[Any]) -> str:
    """What argparse says of a flag, with what was probably meant."""
    flag = said.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
    if flag not in said or not flag.startswith("-"):
        return said
    flags = [option for action in parser._actions for option in action.option_strings]
    if near := nearest(flag, flags, 0.8):
        return f"{said}; did you mean {near}?"
    return f"{said}; groups and keys are given as NAME=VALUE without dashes, such as {root.choices[0]}"
