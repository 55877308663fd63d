"""What is said of a word that a command without Hydra's parser does not know: the commands of folders with a few keys beside."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import ConfigError, nearest


def unknown_word(command: str, word: str, known: Collection[str], takes: str) -> ConfigError:
    """The error for a `KEY=VALUE` or a flag that is none of those `known` (keys without their `=`, flags with their dashes): the
    nearest of them, or else all that the command `takes`."""
    name = word.partition("=")[0]
    is_flag = word.startswith("-")
    if near := nearest(name, [one for one in known if one.startswith("-") == is_flag]):
        return ConfigError(f"{command}: unknown {'flag' if is_flag else 'key'} {name}; did you mean {near}?")
    return ConfigError(f"{command}: knows {takes}, not {name}")


def is_assignment(word: str) -> bool:
    """Whether a word is KEY=VALUE and no folder that exists, whose name may hold `=` as those of a sweep do."""
    return "=" in word and not word.startswith("-") and not Path(word).exists()
