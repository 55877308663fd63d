"""docs/configuration.md is printed from the schema, so the schema must say everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import get_args, get_type_hints

import pytest

from lrm_safety.settings.compose import COMMANDS
from lrm_safety.settings.keys import known_keys
from lrm_safety.settings.reference import field_docstrings, markdown


def dataclasses_under(node: type) -> Iterator[type]:
    yield node
    for hint in get_type_hints(node).values():
        for candidate in (hint, *get_args(hint)):
            if is_dataclass(candidate) and isinstance(candidate, type):
                yield from dataclasses_under(candidate)


EVERY = {node for schema in COMMANDS for node in dataclasses_under(schema)}


def of_command(command: str) -> str:
    """The part of the page about one command."""
    return markdown().split(f"\n# `lrm-safety {command}`\n")[1].split("\n# `lrm-safety ")[0]


@pytest.mark.parametrize("node", sorted(EVERY, key=lambda node: node.__name__))
def test_every_field_is_explained(node: type) -> None:
    explained = field_docstrings(node)
    for item in fields(node):
        meaning = explained.get(item.name, "")
        assert len(meaning) > 8 and meaning.endswith((".", "`", ")")), f"{node.__name__}.{item.name}: {meaning!r}"
        sentences = [part for part in re.split(r"(?<=\.)\s+", meaning) if len(part) > 20]
        assert len(sentences) == len(set(sentences)), f"{node.__name__}.{item.name} repeats itself"


@dataclass
class Explained:
    plain: int = 1
    """Counts
    two lines."""
    unexplained: int = 2
    later: str = "x"
    """Says."""


def test_a_docstring_belongs_to_the_field_above_it() -> None:
    assert field_docstrings(Explained) == {"plain": "Counts\ntwo lines.", "later": "Says."}


@pytest.mark.parametrize("command", COMMANDS.values())
def test_the_page_has_one_row_for_every_key(command: str) -> None:
    (schema,) = [schema for schema, name in COMMANDS.items() if name == command]
    part = of_command(command)
    rows = set(re.findall(r"^\| `([a-z_.*0-9]+)` \|", part, flags=re.MULTILINE))
    shared = re.findall(r"`([a-z_]+)`", part.split("As above: ")[1].split(". Its own")[0]) if "As above" in part else []
    keys = known_keys(schema)
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    assert leaves == rows | {key for key in leaves if key.partition(".")[0] in shared}
    assert command != "train" or not shared


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("algorithm.gamma", "float, 0 <= x <= 1", "`1.0`"),
        ("algorithm.correction", "str: `tis`, `off`, `mask`, `icepop`, or an import path", "`tis`"),
        ("algorithm.clip_low", r"float \| None, 0 <= x", "`0.2`"),
        ("model.path", "str", "required"),
        ("data.limit", r"int \| None, 1 <= x", "`null`"),
        ("reward.models.*.views", "dict[str, float]", "`{}`"),
    ],
)
def test_a_row_states_type_limits_and_default(key: str, kind: str, default: str) -> None:
    (line,) = [line for line in of_command("train").splitlines() if line.startswith(f"| `{key}` |")]
    assert line.startswith(f"| `{key}` | {kind} | {default} | ")
