"""From command-line overrides to checked settings: Hydra composes, pydantic types, the command's check judges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from hydra import version
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from hydra_plugins.lrm_safety_launchers import LocalProcessesLauncher, RayJobsLauncher

from ..errors import ConfigError
from . import AnalyzeSettings, EvaluateSettings, JudgeSettings, Settings, SftSettings
from .audit import AuditRewardSettings
from .checks import check
from .command_checks import (
    check_audit,
    check_evaluate,
    check_sft,
    unread_by_analyze,
    unread_by_audit,
    unread_by_evaluate,
    unread_by_sft,
)
from .keys import defaults_of
from .loader import Loader
from .mistakes import Mistakes
from .reward_training import RewardTrainingSettings
from .study import StudySettings
from .types import Conflict, Whole

Schema = TypeVar("Schema", bound=Whole)
PLACES = frozenset({"run.name", "run.directory"})
NAMING = PLACES | {"experiment"}
"""Keys that name a run or its folder rather than say what it does."""
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
"""Hydra has no class of its own for some mistakes, such as a number for a group."""
_SWITCH = TypeAdapter(bool)


@cache
def _register(root: Root[Any]) -> None:
    """Once: make known to Hydra the schema, which its file lists first in its defaults, `${product:..}`, `${if:..}` and our
    launchers, which it finds by itself only where this package is not installed in place (`pip install -e`)."""
    version.setbase("1.3")
    for launcher in (LocalProcessesLauncher, RayJobsLauncher):
        Plugins.instance().register(launcher)
    OmegaConf.register_new_resolver("product", lambda *factors: math.prod(factors), replace=True)
    OmegaConf.register_new_resolver(
        "if", lambda told, then, otherwise: then if _truth(told) else otherwise, replace=True
    )
    ConfigStore.instance().store(name=f"{root.name}_schema", node=defaults_of(root.schema))


def _truth(value: Any) -> bool:
    """What a switch will be read as: `off` comes from the command line as text. What is no switch is refused later."""
    try:
        return _SWITCH.validate_python(value)
    except ValidationError:
        return False


@cache
def _adapter(root: Root[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(root.schema)


@dataclass(frozen=True)
class Root(Generic[Schema]):
    """What one command is configured by. All that composes for it goes through `hydra`, so that what is checked is what runs."""

    command: str
    name: str
    """Its file in conf/, which lists the schema first."""
    schema: type[Schema]
    example: str
    """The command with choices that compose."""
    check: Callable[[Schema], None] | None = None
    """Judges what spans several groups; raises ConfigError."""
    unread: Callable[[Schema], Mapping[str, str]] | None = None
    """Keys, or groups of keys, that the command line may not set, since nothing reads them, with what is read instead. A file of
    conf/ may: it serves several commands."""

    @property
    def choices(self) -> list[str]:
        """Those of the example."""
        return [word for word in self.example.split() if "=" in word]

    def hydra(self, overrides: Sequence[str] = (), folders: Sequence[str] = ()) -> Hydra:
        """Hydra over conf/ and the user's `folders`."""
        _register(self)
        return Hydra(self.command, Loader(self.schema, folders, overrides))

    def compose(self, overrides: Sequence[str], folders: Sequence[str] = ()) -> tuple[Schema, dict[str, Any]]:
        """Checked settings, and the resolved configuration as plain containers.

        Raises ConfigError with one line for an unknown or mistyped key, a missing group file, and every failed check.
        """
        hydra = self.hydra(overrides, folders)
        try:
            config = hydra.compose_config(self.name, list(overrides), RunMode.RUN)
        except HYDRA_ERRORS as error:
            raise ConfigError(self.mistakes(hydra, overrides).explain(error)) from error
        if config.hydra.mode == RunMode.MULTIRUN:
            raise ConfigError("hydra.mode: is MULTIRUN by a file of the configuration, and a multirun wants -m here")
        with open_dict(config):
            del config["hydra"]
        settings, resolved = self.settings_of(config)
        unread = self.unread(settings) if self.unread is not None else {}
        given = parsed(overrides, self)
        for item in given:
            if item.value() == {} and (held := OmegaConf.select(config, item.key_or_group)):
                raise ConfigError(
                    f"{item.input_line}: takes nothing out, as {{}} is merged; write ~{item.key_or_group}.{next(iter(held))} "
                    "for each that is to go"
                )
        for key in (item.key_or_group for item in given):
            if instead := next((unread[name] for name in unread if f"{key}.".startswith(f"{name}.")), None):
                raise ConfigError(f"{key}: `lrm-safety {self.command}` does not read it; {instead}")
        return settings, resolved

    def settings_of(self, config: DictConfig) -> tuple[Schema, dict[str, Any]]:
        """What `compose` returns, of a configuration that Hydra has composed."""
        try:
            values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            raise ConfigError(self.mistakes().unset(str(error.full_key))) from error
        except OmegaConfBaseException as error:
            raise ConfigError(self.mistakes().explain(error)) from error
        settings = self.checked(values)
        return settings, asdict(settings)

    def checked(self, values: Any) -> Schema:
        """Settings of these values by key; raises ConfigError for the first that is none of its type, or does not go with
        others."""
        try:
            settings: Schema = _adapter(self).validate_python(values)
            if self.check is not None:
                self.check(settings)
        except ValidationError as error:
            cause = error.errors()[0].get("ctx", {}).get("error")  # which has the traceback of what is the user's
            raise ConfigError(self.mistakes().invalid(error)) from cause or error
        except Conflict as error:
            raise ConfigError(str(error)) from error
        return settings

    def mistakes(self, hydra: Hydra | None = None, overrides: Sequence[str] = ()) -> Mistakes:
        """How errors of Hydra are told for this command."""
        return Mistakes(
            self.command, self.example, self.choices, self.schema, (hydra or self.hydra()).config_loader, overrides
        )


TRAIN = Root("train", "config", Settings, "train experiment=miniature", check)
SFT = Root("sft", "sft", SftSettings, "sft model=miniature", check_sft, unread_by_sft)
EVALUATE = Root(
    "evaluate",
    "evaluate",
    EvaluateSettings,
    "evaluate model=miniature evaluation=miniature",
    check_evaluate,
    unread_by_evaluate,
)
ANALYZE = Root("analyze", "analyze", AnalyzeSettings, "analyze reflection model=miniature", unread=unread_by_analyze)
REWARD = Root("reward", "reward_training", RewardTrainingSettings, "reward recipe=miniature")
AUDIT = Root(
    "audit-reward",
    "audit_reward",
    AuditRewardSettings,
    "audit-reward reward=miniature rows=miniature",
    check_audit,
    unread_by_audit,
)
STUDY = Root("study", "study", StudySettings, "study study=miniature")
ROOTS: dict[str, Root[Any]] = {root.command: root for root in (TRAIN, EVALUATE, SFT, ANALYZE, REWARD, AUDIT, STUDY)}
COMMANDS: dict[type, str] = {root.schema: root.command for root in ROOTS.values()}
"""The command that reads each schema."""

compose_settings = TRAIN.compose
compose_evaluation = EVALUATE.compose
compose_sft = SFT.compose
compose_reward_training = REWARD.compose
compose_audit = AUDIT.compose
compose_analysis = ANALYZE.compose
compose_study = STUDY.compose


def compose_judges(names: list[str], overrides: Sequence[str] = ()) -> dict[str, JudgeSettings]:
    """The judges of these files of the group judge, changed by `overrides` of their keys; raises ConfigError."""
    chosen = ["model=miniature", "evaluation=none", f"judge=[{','.join(names)}]"]
    return EVALUATE.compose([*chosen, *overrides])[0].evaluation.judges


def parsed(overrides: Sequence[str], root: Root[Any] = TRAIN) -> list[Override]:
    """What Hydra reads in them; raises ConfigError."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(root.mistakes().explain(error)) from error


def effective(overrides: Sequence[str], root: Root[Any] = TRAIN) -> list[Override]:
    """What Hydra's basic sweeper makes of the overrides of a multirun: of a key that is given again the last one counts, in the
    place of the first.

    Raises ConfigError where several values are given twice: their union may be meant.
    """
    last: dict[str, Override] = {}
    for item in parsed(overrides, root):
        key = item.get_key_element()
        if (before := last.get(key)) is not None and before.is_sweep_override() and item.is_sweep_override():
            raise ConfigError(
                f"{key}: several values are given twice, {before.input_line} and {item.input_line}; give {key} once, with "
                "every value it is to have"
            )
        last[key] = item
    return list(last.values())


def sweep(overrides: Sequence[str], root: Root[Any] = TRAIN, hydra: Hydra | None = None) -> Iterator[list[str]]:
    """The override lists of a multirun, in the order of Hydra's basic sweeper (the last sweep varies fastest)."""
    alternatives = [
        [f"{item.get_key_element()}={value}" for value in _swept_values(item, hydra or root.hydra(overrides))]
        if item.is_sweep_override()
        else [str(item.input_line)]
        for item in effective(overrides, root)
    ]
    for combination in itertools.product(*alternatives):
        yield list(combination)


def _swept_values(item: Override, hydra: Hydra) -> Iterator[str]:
    """The values of one swept override; a pattern, `glob(*)`, stands for options of its group, an interval for its ends."""
    match item.value():
        case IntervalSweep(start=start, end=end):
            yield from (str(start), str(end))
        case Glob() as pattern:
            options = hydra.config_loader.get_group_options(item.key_or_group, ObjectType.CONFIG)
            if not (found := pattern.filter(options)):
                known = ", ".join(options) or "no options: it is no group of conf/"
                raise ConfigError(f"{item.input_line}: fits none of {known}")
            yield from found
        case _:
            yield from item.sweep_string_iterator()


def differences(combinations: Sequence[Sequence[str]], swept: set[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """What tells the runs of a multirun apart besides `names`, their run.name: `KEY=VALUE` of the `swept` keys.

    The experiment is left out where the rest tells all runs apart.
    """
    told = [tuple(item for item in one if item.partition("=")[0] in swept - NAMING) for one in combinations]
    if len(set(zip(names, told, strict=True))) == len(names):
        return told
    return [tuple(item for item in one if item.partition("=")[0] in swept - PLACES) for one in combinations]
