"""From command-line overrides to a checked `Settings`: Hydra composes, OmegaConf types, `checks` judges."""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ..errors import ConfigError, first_line
from . import AnalyzeSettings, EvaluateSettings, JudgeSettings, Settings, SftSettings
from .audit import AuditRewardSettings
from .checks import check
from .command_checks import check_analyze, check_evaluate, check_sft, check_study
from .paths import configuration_directory
from .reward_checks import check_audit, check_reward_training
from .reward_training import RewardTrainingSettings
from .study import StudySettings

Schema = TypeVar("Schema")
TRAIN_ROOT, EVALUATE_ROOT, SFT_ROOT, ANALYZE_ROOT = "config", "evaluate", "sft", "analyze"
"""Composition roots in conf/."""
COMMANDS: dict[type, str] = {
    Settings: "train",
    EvaluateSettings: "evaluate",
    SftSettings: "sft",
    AnalyzeSettings: "analyze",
    RewardTrainingSettings: "reward",
    AuditRewardSettings: "audit-reward",
    StudySettings: "study",
}
"""The command that reads each schema."""
PLACES = frozenset({"run.name", "run.directory"})
NAMING = PLACES | {"experiment"}
"""Keys that name a run or its folder rather than say what it does."""


@cache
def register_schema() -> None:
    """Once: make known to Hydra the typed schemas, of which each root of conf/ lists its own first in its defaults, and
    `${product:a,b}`."""
    OmegaConf.register_new_resolver("product", lambda *factors: math.prod(factors), replace=True)
    ConfigStore.instance().store(name="schema", node=Settings)
    ConfigStore.instance().store(name="evaluate_schema", node=EvaluateSettings)
    ConfigStore.instance().store(name="sft_schema", node=SftSettings)
    ConfigStore.instance().store(name="analyze_schema", node=AnalyzeSettings)
    ConfigStore.instance().store(name="reward_training_schema", node=RewardTrainingSettings)
    ConfigStore.instance().store(name="audit_reward_schema", node=AuditRewardSettings)
    ConfigStore.instance().store(name="study_schema", node=StudySettings)


def compose_settings(overrides: list[str]) -> tuple[Settings, dict[str, Any]]:
    """Compose conf/config.yaml with `overrides` as `lrm-safety train` does.

    Returns the checked settings and the resolved configuration as plain containers. Raises ConfigError with one line for an
    unknown or mistyped key, a missing group file, and every failed check.
    """
    return settings_of(_compose(TRAIN_ROOT, Settings, overrides))


def compose_evaluation(overrides: list[str]) -> tuple[EvaluateSettings, dict[str, Any]]:
    """Compose conf/evaluate.yaml with `overrides` as `lrm-safety evaluate` does; errors as `compose_settings`."""
    settings, resolved = _typed(_compose(EVALUATE_ROOT, EvaluateSettings, overrides), EvaluateSettings)
    check_evaluate(settings)
    return settings, resolved


def compose_sft(overrides: list[str]) -> tuple[SftSettings, dict[str, Any]]:
    """Compose conf/sft.yaml with `overrides` as `lrm-safety sft` does; errors as `compose_settings`."""
    return sft_settings_of(_compose(SFT_ROOT, SftSettings, overrides))


def compose_reward_training(overrides: list[str]) -> tuple[RewardTrainingSettings, dict[str, Any]]:
    """Compose conf/reward_training.yaml with `overrides` as `lrm-safety reward` does; errors as `compose_settings`."""
    settings, resolved = _typed(_compose("reward_training", RewardTrainingSettings, overrides), RewardTrainingSettings)
    check_reward_training(settings)
    return settings, resolved


def compose_audit(overrides: list[str]) -> tuple[AuditRewardSettings, dict[str, Any]]:
    """Compose conf/audit_reward.yaml with `overrides` as `lrm-safety audit-reward` does; errors as `compose_settings`."""
    settings, resolved = _typed(_compose("audit_reward", AuditRewardSettings, overrides), AuditRewardSettings)
    check_audit(settings)
    return settings, resolved


def compose_analysis(overrides: list[str]) -> tuple[AnalyzeSettings, dict[str, Any]]:
    """Compose conf/analyze.yaml with `overrides` as `lrm-safety analyze` does; errors as `compose_settings`."""
    settings, resolved = _typed(_compose(ANALYZE_ROOT, AnalyzeSettings, overrides), AnalyzeSettings)
    check_analyze(settings)
    return settings, resolved


def compose_study(overrides: list[str]) -> tuple[StudySettings, dict[str, Any]]:
    """Compose conf/study.yaml with `overrides` as `lrm-safety study` does; errors as `compose_settings`."""
    settings, resolved = _typed(_compose("study", StudySettings, overrides), StudySettings)
    check_study(settings)
    return settings, resolved


def compose_judges(names: list[str], overrides: Sequence[str] = ()) -> dict[str, JudgeSettings]:
    """The judges of these files in conf/judge, changed by `overrides` of their keys; raises ConfigError."""
    return compose_evaluation(["model=miniature", "evaluation=none", f"judge=[{','.join(names)}]", *overrides])[
        0
    ].evaluation.judges


def _compose(root: str, schema: type, overrides: list[str]) -> DictConfig:
    register_schema()
    GlobalHydra.instance().clear()
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        for item in parsed:
            _check_chosen_once(item)
        added = {member for item in parsed if (member := _added_member(item, schema))}
        later = [item for item in parsed if any(f"{item.key_or_group}.".startswith(f"{name}.") for name in added)]
        earlier = [str(item.input_line) for item in parsed if item not in later]
        with initialize_config_dir(str(configuration_directory()), version_base="1.3"):
            config = compose(root, overrides=earlier)
        for item in later:
            _set_member(config, item.key_or_group, item.value(), schema)
        return config
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # Hydra has no class of its own for some mistakes, such as a number for a group.
        raise ConfigError(_of_another_command(error, schema, overrides) or explain(error, schema)) from error
    finally:
        GlobalHydra.instance().clear()


def _added_member(item: Override, schema: type) -> str | None:
    """`evaluation.judges.mine` of `+evaluation.judges.mine.kind=python`: Hydra itself cannot add to a dictionary of
    dataclasses. None for every other override."""
    for parent, kind in dictionaries(schema).items():
        if (item.is_add() or item.is_force_add()) and is_dataclass(kind) and item.key_or_group.startswith(f"{parent}."):
            return f"{parent}.{item.key_or_group.removeprefix(f'{parent}.').partition('.')[0]}"
    return None


def _set_member(config: DictConfig, key: str, value: Any, schema: type) -> None:
    """Set `key` below a dictionary of dataclasses, whose member is made with its defaults when it is new."""
    parent, kind = next((name, kind) for name, kind in dictionaries(schema).items() if key.startswith(f"{name}."))
    member = key.removeprefix(f"{parent}.").partition(".")[0]
    if member not in OmegaConf.select(config, parent):
        OmegaConf.update(config, f"{parent}.{member}", OmegaConf.structured(kind), force_add=True)
    OmegaConf.update(config, key, value, merge=True, force_add=True)


def settings_of(config: DictConfig) -> tuple[Settings, dict[str, Any]]:
    """Typed settings and plain resolved containers of a composed configuration; raises ConfigError."""
    settings, resolved = _typed(config, Settings)
    check(settings)
    return settings, resolved


def sft_settings_of(config: DictConfig) -> tuple[SftSettings, dict[str, Any]]:
    """What `settings_of` is for training."""
    settings, resolved = _typed(config, SftSettings)
    check_sft(settings)
    return settings, resolved


def _typed(config: DictConfig, schema: type[Schema]) -> tuple[Schema, dict[str, Any]]:
    try:
        settings = OmegaConf.to_object(config)
        resolved = OmegaConf.to_container(config, resolve=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key}: must be set") from error
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error, schema)) from error
    assert isinstance(settings, schema) and isinstance(resolved, dict)
    for key in _added_keys(settings):
        raise ConfigError(_unknown(key, schema))
    if isinstance(settings, Settings | SftSettings):
        old = {"True": "last", "False": "none"}  # what checkpoint.export was before there was a choice
        settings.checkpoint.export = old.get(settings.checkpoint.export.capitalize(), settings.checkpoint.export)
        resolved["checkpoint"]["export"] = settings.checkpoint.export
    return settings, {str(key): value for key, value in resolved.items()}


def _check_chosen_once(item: Override) -> None:
    """Raises ConfigError for `evaluation=[attaq,attaq]`: Hydra would take it for one."""
    value = None if item.is_sweep_override() else item.value()
    if isinstance(value, list) and (configuration_directory() / item.key_or_group).is_dir():
        names = [str(name) for name in value]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ConfigError(
                f"{item.key_or_group}: names {', '.join(twice)} twice; give each once, or another name to a second one"
            )


def sweep(overrides: list[str]) -> Iterator[list[str]]:
    """The override lists of a multirun, in Hydra's order (the last sweep varies fastest)."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError(explain(error)) from error
    alternatives = [
        [f"{item.get_key_element()}={value}" for value in _swept_values(item)]
        if item.is_sweep_override()
        else [str(item.input_line)]
        for item in parsed
    ]
    for combination in itertools.product(*alternatives):
        yield list(combination)


def _swept_values(item: Override) -> Iterator[str]:
    """The values of one swept override; a pattern, `glob(*)`, stands for options of its group."""
    if not isinstance(pattern := item.value(), Glob):
        yield from item.sweep_string_iterator()
        return
    options = sorted(path.stem for path in (configuration_directory() / item.key_or_group).glob("*.yaml"))
    if not (found := pattern.filter(options)):
        raise ConfigError(
            f"{item.input_line}: fits none of {', '.join(options) or 'no options: it is no group of conf/'}"
        )
    yield from found


def fixed_keys(overrides: list[str]) -> list[str]:
    """Keys of the overrides that are the same in every run of a sweep."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [item.key_or_group for item in parsed if not item.is_sweep_override()]


def differences(overrides: list[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """What tells the runs of a multirun apart besides `names`, their run.name, as `KEY=VALUE`, in the order of `sweep`.

    The experiment is left out where the rest tells all runs apart.
    """
    swept = {
        item.get_key_element()
        for item in OverridesParser.create().parse_overrides(overrides)
        if item.is_sweep_override()
    }
    told = [tuple(item for item in one if item.partition("=")[0] in swept - NAMING) for one in sweep(overrides)]
    if len(set(zip(names, told, strict=True))) == len(names):
        return told
    return [tuple(item for item in one if item.partition("=")[0] in swept - PLACES) for one in sweep(overrides)]


def _of_another_command(error: Exception, schema: type, overrides: list[str]) -> str | None:
    """What to say where `error` comes of an experiment of `train` in `sft`, or the other way round; else None."""
    chosen = [item.partition("=")[2] for item in overrides if item.startswith("experiment=")]
    symptoms = {SftSettings: "Could not override", Settings: "Could not override|You must specify"}
    if not chosen or schema not in symptoms or not re.search(symptoms[schema], str(error)):
        return None
    if chosen[-1].startswith("sft/") == (schema is SftSettings):
        return None
    return f"experiment={chosen[-1]}: not for `{COMMANDS[schema]}`; experiment=sft/NAME is for `sft`, the others for `train`"


def explain(error: Exception, schema: type = Settings) -> str:
    """One line, with the nearest known key, out of Hydra's and OmegaConf's many."""
    if isinstance(error, OverrideParseException):
        if error.override and error.override.startswith("-"):
            return (
                f"{error.override}: no such option; configurations take GROUP=OPTION and KEY=VALUE, and a folder of groups of "
                "your own is 'hydra.searchpath=[file:///FOLDER]'"
            )
        reason = (line for line in error.message.splitlines() if not line.startswith(("Error parsing", "See ")))
        return f"{error.override}: {' '.join(reason)}{_quotes(error.override or '')}"
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception):
        causes.append(cause)
    text = str(causes[0]).strip()
    key = next((k for k in (getattr(c, "full_key", None) for c in reversed(causes)) if k), None)
    if unknown := re.search(r"Key '([^']+)' (?:is )?not in", "\n".join(str(c) for c in causes)):
        return _unknown(key or unknown[1], schema)
    if group := re.search(r"Could not (?:find|load) '([^']+)'", text):
        folder = configuration_directory() / group[1].rpartition("/")[0]
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        near = difflib.get_close_matches(group[1].rpartition("/")[2], options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"no file conf/{group[1]}.yaml{hint} (available: {', '.join(options) or 'none'})"
    if missing := re.search(r"You must specify '([^']+)'", text):
        name = missing[1]
        experiment = "name an experiment (experiment=miniature) or " if schema is Settings else "give "
        return f"{name}: nothing chosen; {experiment}{name}=OPTION from conf/{name}"
    first = first_line(causes[-1])
    if key and key not in first:
        first = f"{key}: {first}"
    if first.startswith("Error merging override"):
        first = " ".join(line.strip() for line in text.splitlines()[:2])
    return first


def _quotes(override: str) -> str:
    """How to write a value that Hydra's grammar does not take bare; empty where quotes would not help."""
    key, equals, value = override.partition("=")
    if not equals or not value or "'" in value:
        return ""
    return f"; a value with special characters wants quotes: \"{key}='{value}'\""


def _unknown(key: str, schema: type = Settings) -> str:
    """What to say about a key that the schema lacks: `learning_rate` is found by its initials, others by likeness."""
    keys = known_keys(schema)
    parent, dot, name = key.rpartition(".")
    short = f"{parent}{dot}{''.join(word[:1] for word in name.split('_'))}"
    if any(fnmatch.fnmatchcase(parent, name) for name, kind in dictionaries(schema).items() if kind is Any):
        return f"{key} is new there: add it with a plus, +{key}=..."
    near = [short] if short in keys else difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    return f"unknown key {key}; " + (
        f"did you mean {near[0]}?" if near else f"`lrm-safety {COMMANDS[schema]} --cfg job` lists all keys"
    )


def _added_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Keys that `+key=value` put into a part of the schema that does not have them."""
    if is_dataclass(node):
        known = {item.name for item in fields(node)}
        for name, value in vars(node).items():
            if name in known:
                yield from _added_keys(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _added_keys(value, f"{prefix}{name}.")


def dictionaries(node: type = Settings, prefix: str = "") -> dict[str, Any]:
    """Dotted keys that hold a dictionary, with what its members are: a dataclass, or Any; names of members are `*`."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(node).items():
        if get_origin(hint) is dict:
            member = get_args(hint)[1]
            found[f"{prefix}{name}"] = member
            hint, name = member, f"{name}.*"
        if is_dataclass(hint):
            found |= dictionaries(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
    return found


def known_keys(node: type = Settings, prefix: str = "") -> list[str]:
    """Every dotted key of the schema, dictionaries of dataclasses shown with `*`."""
    keys: list[str] = []
    hints = get_type_hints(node)
    for item in fields(node):
        hint, key = hints[item.name], f"{prefix}{item.name}"
        keys.append(key)
        nested = [hint, *get_args(hint)]
        for candidate in nested:
            if is_dataclass(candidate):
                star = "" if candidate is hint else "*."
                keys.extend(known_keys(candidate, f"{key}.{star}"))  # type: ignore[arg-type]
    return keys
