"""Training commands through Hydra: validate every run of the command first, then start them one after the other."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ..errors import ConfigError, LrmSafetyError, shown
from ..evaluation.early import check_early
from ..files import disk_says
from ..run_folder import RunFolder, absent_folders, owned, remove_empty
from ..settings import Settings, SftSettings
from ..settings.compose import (
    COMMANDS,
    SFT_ROOT,
    TRAIN_ROOT,
    compose_settings,
    compose_sft,
    differences,
    fixed_keys,
    register_schema,
    settings_of,
    sft_settings_of,
    sweep,
)
from ..settings.fields import RUNS_VARIABLE
from ..settings.paths import configuration_directory

SUBDIRECTORY_EXCLUDES = "hydra.job.config.override_dirname.exclude_keys"
"""A run of a sweep has a folder named after its overrides; all of them would be over a file name's length."""

SWEEP_DIRECTORY = f"{os.environ.get(RUNS_VARIABLE, 'outputs')}/sweep"
"""Where the runs of a sweep go whose own folders differ, each below in a folder named after its overrides."""

MAXIMUM_NAME_BYTES = 255
"""Of a file or folder, on every usual file system."""


@dataclass(frozen=True)
class Program:
    """A command that Hydra runs."""

    schema: type
    root: str
    """Its composition root in conf/."""
    compose: Callable[[list[str]], tuple[Any, dict[str, Any]]]
    """Checked settings of overrides."""
    settings_of: Callable[[DictConfig], tuple[Any, dict[str, Any]]]
    """Checked settings of what Hydra composed."""
    run: Callable[[Any, dict[str, Any], RunFolder], None]
    """One run of settings, resolved configuration and folder."""


def _train(settings: Settings, resolved: dict[str, Any], folder: RunFolder) -> None:
    if settings.evaluation.every_updates:
        check_early(settings.evaluation, in_training=True)
    # Imported here: Ray and torch take seconds, and a mistyped key need not wait for them.
    from .train import train

    train(settings, resolved, folder)


def _sft(settings: SftSettings, resolved: dict[str, Any], folder: RunFolder) -> None:
    from .sft import fine_tune

    fine_tune(settings, resolved, folder)


TRAIN = Program(Settings, TRAIN_ROOT, compose_settings, settings_of, _train)
SFT = Program(SftSettings, SFT_ROOT, compose_sft, sft_settings_of, _sft)


def launch(arguments: list[str], program: Program = TRAIN) -> int:
    """Run Hydra with `arguments` (overrides and Hydra's own flags); returns the exit status.

    Raises ConfigError before anything starts if any run of a sweep is misconfigured. A failed run of a sweep does not
    keep the others from running; the exit status is 1 then.
    """
    given, arguments = parse(arguments)
    if given.multirun and given.cfg:
        raise ConfigError("--cfg: shows the configuration of one run; leave out -m and give one value to each key")
    combinations = list(sweep(given.overrides)) if given.multirun else [given.overrides]
    composed = [
        program.compose([item for item in combination if not item.lstrip("+~").startswith("hydra.")])[0]
        for combination in combinations
    ]
    command = [COMMANDS[program.schema], *arguments]
    absent = [absent_folders(Path(settings.run.directory)) for settings in composed]
    if not (given.cfg or given.info or given.hydra_help):
        for settings in composed:
            with owned(Path(settings.run.directory), command):
                pass  # it can be written and is free, of which Hydra would know nothing

    if given.multirun:
        _check_folder_names(given.overrides)
        # Beside the other overrides: argparse takes positional arguments from one place only.
        first = arguments.index(given.overrides[0])
        added = [f"{SUBDIRECTORY_EXCLUDES}=[{','.join(fixed_keys(given.overrides))}]"]
        if not any(item.lstrip("+").startswith("hydra.sweep.dir=") for item in given.overrides):
            # Stated here: Hydra resolves it without the swept groups, of which the run's name is made.
            directories = {settings.run.directory for settings in composed}
            added.append(f"hydra.sweep.dir={directories.pop() if len(directories) == 1 else SWEEP_DIRECTORY}")
        arguments = [*arguments[:first], *added, *arguments[first:]]
    names = _tracker_names(given.overrides, composed) if given.multirun else []
    failures: list[str] = []

    def task(config: DictConfig) -> None:
        try:
            settings, resolved = program.settings_of(config)
            if names:
                name, group = names[HydraConfig.get().job.num]
                settings.tracking.name = settings.tracking.name or name
                settings.tracking.group = settings.tracking.group or group
            if settings.tracking.console != "off":
                # The imports that follow take their time, and so do the checks of what the configuration names.
                print("checking configuration, model files and prompts ...", flush=True)
            with owned(Path(HydraConfig.get().runtime.output_dir), command) as folder:
                program.run(settings, resolved, folder)
        except LrmSafetyError as error:
            failures.append(str(error))
            print(shown(error), file=sys.stderr)
        except Exception as error:
            failures.append("unexpected")
            if reason := disk_says(error):
                place = getattr(error, "filename", None) or "run.directory"
                print(f"error: {place}: {reason}; make room and start the same command again", file=sys.stderr)
            else:
                # Hydra would hide the traceback of what is our own mistake behind one line.
                traceback.print_exc()

    register_schema()
    sys.argv = [f"lrm-safety {COMMANDS[program.schema]}", *arguments]
    with ExitStack() as leaving:
        for folders in absent:
            leaving.callback(remove_empty, folders)  # Hydra makes a folder for a run that is then refused
        hydra.main(version_base="1.3", config_path=str(configuration_directory()), config_name=program.root)(task)()
    return 1 if failures else 0


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What Hydra's own parser reads out of the arguments, and the arguments with its flags first: that parser takes overrides
    from one place only. Raises ConfigError in one line, also for flags that would choose another configuration."""
    with redirect_stderr(io.StringIO()) as said:
        try:
            given = get_args_parser().parse_intermixed_args(arguments)
        except SystemExit as end:
            if not end.code:
                raise  # --version
            raise ConfigError(said.getvalue().strip().rpartition("error: ")[2]) from None
    if given.config_name or given.config_path:
        raise ConfigError("--config-name, --config-path: each command has its own configuration; give key=value")
    flags, overrides = list(arguments), given.overrides
    for item in overrides:
        flags.remove(item)
    return given, [*flags, *overrides]


def _check_folder_names(overrides: list[str]) -> None:
    """Raise ConfigError where a run of a multirun would have a folder of a name that no file system takes."""
    fixed = set(fixed_keys(overrides))
    for one in sweep(overrides):
        told = [item for item in one if item.partition("=")[0] not in fixed]
        for part in "__".join(sorted(told)).split("/"):
            if len(os.fsencode(part)) > MAXIMUM_NAME_BYTES:
                key = max(told, key=len).partition("=")[0]
                raise ConfigError(
                    f"{key}: a run of a multirun has a folder named after its values, and this name would have "
                    f"{len(os.fsencode(part))} bytes, above the {MAXIMUM_NAME_BYTES} of a file system; put the values "
                    "into files of conf/ and sweep over their names, or start the runs one by one"
                )


def _tracker_names(overrides: list[str], composed: Sequence[Any]) -> list[tuple[str, str]]:
    """Name and group that each run of a multirun has in W&B. Seeds of one configuration make a group; where no seed is
    swept, the runs of one run.name do."""
    names = [settings.run.name for settings in composed]
    found = []
    for name, told in zip(names, differences(overrides, names), strict=True):
        shared = [item for item in told if not item.startswith("seed=")]
        found.append((" ".join((name, *told)), " ".join((name, *shared)) if len(shared) < len(told) else name))
    return found
