"""The configuration that a plan is asked for: overrides of the command line above the configuration of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...errors import ConfigError
from ...settings import Settings
from ...settings.compose import HYDRA_ERRORS, TRAIN, parsed

GROUPS = ("model", "reward", "data", "algorithm", "trainer", "rollout", "cluster", "evaluation", "tracking")
"""Groups of conf/ whose options are a part of the configuration by the same name."""
NEEDED = ("model=miniature", "reward=miniature", "data=miniature", "cluster=laptop_cpu")
"""Choices without which no configuration composes; only those that are asked for are read."""


def asked_for(of_run: Mapping[str, Any], overrides: Sequence[str], folders: Sequence[str] = ()) -> Settings:
    """The run's configuration with `key=value` set and `group=OPTION` in place of the run's part of that name. An experiment is
    a whole configuration: with one, nothing is taken from the run's. Raises ConfigError as composing does."""
    items = parsed(overrides)
    if any(item.key_or_group == "experiment" for item in items):
        return TRAIN.compose(overrides, folders)[0]
    config = OmegaConf.create(dict(of_run))
    assert isinstance(config, DictConfig)
    for item in items:
        if item.is_sweep_override():
            raise ConfigError(f"{item.input_line}: a plan is of one configuration; give one value")
        if item.key_or_group in GROUPS:
            config[item.key_or_group] = _option(item, folders)
    try:
        for item in items:
            if item.key_or_group not in GROUPS:
                _set(config, item)
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(TRAIN.mistakes().explain(error)) from error
    return TRAIN.checked(values)


def _option(item: Override, folders: Sequence[str]) -> Any:
    """The part of a group as `train` composes it: of one option, of a list of them, or of none (`~GROUP`)."""
    if not item.is_delete() and not isinstance(item.value(), str | list):
        raise ConfigError(
            f"{item.input_line}: must be an option of the group or a list of them; ~{item.key_or_group} takes none"
        )
    chosen = [*(one for one in NEEDED if one.partition("=")[0] != item.key_or_group), str(item.input_line)]
    hydra = TRAIN.hydra(chosen, folders)
    try:
        config = hydra.compose_config(TRAIN.name, chosen, RunMode.RUN)
        return OmegaConf.to_container(config[item.key_or_group], resolve=True)
    except HYDRA_ERRORS as error:
        raise ConfigError(TRAIN.mistakes(hydra, chosen).explain(error)) from error


def _set(config: DictConfig, item: Override) -> None:
    key = item.key_or_group
    if item.is_delete():
        parent, _, name = key.rpartition(".")
        holder = OmegaConf.select(config, parent) if parent else config
        if not isinstance(holder, DictConfig) or name not in holder:
            raise ConfigError(f"{item.input_line}: the run has no such key")
        del holder[name]
        return
    if OmegaConf.select(config, key.rpartition(".")[0] or key) is None and not item.is_add():
        raise ConfigError(
            f"{key}: unknown with --from; give a key of docs/configuration.md, one of the groups {', '.join(GROUPS)}, or a whole "
            "experiment=NAME"
        )
    OmegaConf.update(config, key, item.value(), force_add=True)
