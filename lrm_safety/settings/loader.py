"""Hydra's own loader of configurations, with folders of the user's and with defaults for the members of dictionaries."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError
from .keys import defaults_of, dictionaries
from .paths import configuration_directory

FOLDERS_VARIABLE = "LRM_SAFETY_CONF"
"""Folders of groups of the user's own, separated as in PATH."""


class _Repository(ConfigRepository):
    """Hydra's, of which a copy costs nothing: Hydra makes one for each composition and for each group that `--hydra-help` lists,
    and would copy its store of all registered configurations with it, a fifth of the time that a composition takes."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Repository:
        return copy.copy(self)  # its sources are replaced as a whole, and the store copies what it gives out


class Loader(ConfigLoaderImpl):
    """Composes what one command is configured by, for its checks and for its runs alike."""

    def __init__(self, schema: type, folders: Sequence[str] = (), overrides: Sequence[str] = ()) -> None:
        """`folders` have groups of the user's own besides `hydra.searchpath` of `overrides`, of which only that is read."""
        super().__init__(_search_path(folders))
        self.repository = _Repository(self.config_search_path)
        self._members = {
            key: group for key, group in dictionaries(schema).items() if isinstance(group, type) and is_dataclass(group)
        }
        self._searchpath = [item for item in overrides if is_searchpath(item)]
        self._added: dict[str, list[str]] = {}

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a folder that is absent, which is an error here
            parsed, repository = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        _check_sources(repository)
        self._added = {}
        for item in parsed:
            _check_chosen_once(item, repository)
            for parent in self._members:
                if (item.is_add() or item.is_force_add()) and item.key_or_group.startswith(f"{parent}."):
                    name = item.key_or_group.removeprefix(f"{parent}.").partition(".")[0]
                    self._added.setdefault(parent, []).append(name)
                    item.type = OverrideType.FORCE_ADD  # its default stands there already
        return parsed, repository

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        """Members of dictionaries, of files and of the command line, have all their keys: they are shown, and can be set."""
        config = super()._compose_config_from_defaults_list(defaults, repo)
        for parent, group in self._members.items():
            if isinstance(members := OmegaConf.select(config, parent), DictConfig):
                for name in dict.fromkeys([*map(str, members), *self._added.get(parent, [])]):
                    given = members.get(name)
                    if given is None or isinstance(given, DictConfig):
                        members[name] = OmegaConf.merge(defaults_of(group), given or {})
        return config

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Options of a group in all folders: Hydra asks without overrides for those of `group=glob(*)`."""
        return super().get_group_options(group_name, results_filter, config_name, overrides or self._searchpath)


def is_searchpath(item: str) -> bool:
    """Whether an override names folders of groups of the user's own."""
    return item.lstrip("+").startswith("hydra.searchpath=")


def _search_path(folders: Sequence[str]) -> ConfigSearchPath:
    path = create_config_search_path(str(configuration_directory()))
    named = [folder for folder in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if folder]
    for folder, key in [*((each, "--config-dir") for each in folders), *((each, FOLDERS_VARIABLE) for each in named)]:
        if not Path(folder).is_dir():
            raise ConfigError(f"{key}: {folder} is no folder")
        path.prepend(key, f"file://{Path(folder).absolute()}", SearchPathQuery(provider="schema"))
    return path


def _check_sources(repository: CachingConfigRepository) -> None:
    """Raise ConfigError for a folder of `hydra.searchpath` that is absent, and for files of the user's that would not be
    read: those of conf/ come first."""
    ours = configuration_directory()
    for source in repository.get_sources():
        if not source.available():
            raise ConfigError(f"hydra.searchpath: {source.scheme()}://{source.path} is absent, or no folder")
        folder = Path(source.path)
        if source.scheme() != "file" or folder.resolve() == ours:
            continue
        for path in sorted(ours.rglob("*.yaml")):
            if (mine := folder / path.relative_to(ours)).exists():
                raise ConfigError(f"{mine}: conf/ has a file of this name, which is read first; give yours another")


def _check_chosen_once(item: Override, repository: CachingConfigRepository) -> None:
    """Raises ConfigError for `evaluation=[attaq,attaq]`: Hydra would take it for one."""
    value = None if item.is_sweep_override() else item.value()
    if isinstance(value, list) and repository.group_exists(item.key_or_group):
        names = [str(name) for name in value]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ConfigError(
                f"{item.key_or_group}: names {', '.join(twice)} twice; give each once, or another name to a second one"
            )
