"""What the configurations of training runs are called, so that no two of them have one name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ...files import flatten
from .folders import TrainingRun

NOT_COMPARED = ("seed", "run", "tracking", "checkpoint")
"""Parts of a configuration that do not make another experiment."""
MOST_KEYS = 3
"""Keys of which the values may stand in a name."""


def names_of(groups: Sequence[Sequence[TrainingRun]]) -> list[str]:
    """What the user calls each configuration, or else the folder that it asks for; where several are called alike, with what
    tells them apart."""
    names = [runs[0].given or called(runs[0].folder, runs[0].config) for runs in groups]
    alike: dict[str, list[TrainingRun]] = {}
    for name, runs in zip(names, groups, strict=True):
        alike.setdefault(name, []).append(runs[0])
    unique = {name: [name] if len(mine) == 1 else _told_apart(name, mine) for name, mine in alike.items()}
    return [unique[name].pop(0) for name in names]


def called(folder: Path, config: Mapping[str, Any]) -> str:
    """The name that a folder's configuration asks for, or where that is of one point of a sweep, the run's own."""
    asked = _asked(folder, config)
    of_a_point = _of_one_seed(asked) or any(tag.replace("=", "-") in asked.split("__") for tag in _tags(config))
    return str((config.get("run") or {}).get("name", asked)) if of_a_point else asked


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """`trainer.lr=1e-06` of each: the keys of which the values differ among them. None where that takes too many keys, or does
    not tell all of them apart."""
    flat = [flatten(one) for one in configs]
    keys = [key for key in dict.fromkeys(chain.from_iterable(flat)) if len({str(one.get(key)) for one in flat}) > 1]
    told = [" ".join(f"{key}={shown(one.get(key))}" for key in keys) for one in flat]
    return told if len(keys) <= MOST_KEYS and len(set(told)) == len(told) else None


def shown(value: object) -> str:
    """A value of a configuration as it is typed."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def _told_apart(name: str, runs: Sequence[TrainingRun]) -> list[str]:
    """The name of each with the overrides that tell it apart, as its sweep tagged it (`name algorithm=grpo`); or with the values
    that differ; or with the overrides that its folder is called after; with a number where none of them does."""
    compared = [{key: value for key, value in run.config.items() if key not in NOT_COMPARED} for run in runs]
    told = _distinct(_tags(run.config) for run in runs) or differing(compared) or _distinct(map(_folder_parts, runs))
    return [f"{name} {one}".strip() for one in told or (f"({i})" for i in range(1, len(runs) + 1))]


def _distinct(words: Iterable[Sequence[str]]) -> list[str] | None:
    """Of each the words that are not everyone's, None where they do not tell all apart."""
    each = list(words)
    common = set.intersection(*map(set, each))
    told = [" ".join(word for word in mine if word not in common) for mine in each]
    return told if len(set(told)) == len(told) else None


def _tags(config: Mapping[str, Any]) -> list[str]:
    """The overrides that a sweep gave its run as tags, without the seed."""
    tags = map(str, (config.get("tracking") or {}).get("tags") or ())
    return [tag for tag in tags if "=" in tag and not tag.startswith("seed=")]


def _folder_parts(run: TrainingRun) -> list[str]:
    """`algorithm-grpo` of `algorithm-grpo__seed-1`, the folder of one seed of a sweep; of another folder nothing."""
    asked = _asked(run.folder, run.config)
    return [part for part in asked.split("__") if not part.startswith("seed-")] if _of_one_seed(asked) else []


def _asked(folder: Path, config: Mapping[str, Any]) -> str:
    return Path(str((config.get("run") or {}).get("directory", folder))).name


def _of_one_seed(asked: str) -> bool:
    return any(part.startswith("seed-") for part in asked.split("__"))
