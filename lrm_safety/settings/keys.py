"""The keys of a schema: every dotted name with its type and default, and which of them hold what the user may add to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from . import Settings
from .types import default


def walk(node: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with the type of its value; a member of a dictionary of groups is called `*`."""
    for name, hint in get_type_hints(node, include_extras=True).items():
        yield f"{prefix}{name}", hint
        if group := group_of(hint):
            yield from walk(group, f"{prefix}{name}." if group is hint else f"{prefix}{name}.*.")


def group_of(hint: Any) -> Any:
    """The dataclass that a key of this type holds, or a dictionary's members are; None where it holds values."""
    return next((part for part in (hint, *get_args(hint)) if isinstance(part, type) and is_dataclass(part)), None)


def known_keys(node: type = Settings) -> list[str]:
    """Every dotted key of the schema, members of dictionaries shown as `*`."""
    return [key for key, _ in walk(node)]


@cache
def dictionaries(node: type) -> dict[str, Any]:
    """Dotted keys that hold a dictionary, with what its members are: a dataclass, or Any."""
    return {key: get_args(hint)[1] for key, hint in walk(node) if get_origin(hint) is dict}


def defaults_of(node: type) -> dict[str, Any]:
    """A schema's defaults as Hydra takes them, with those of the groups that have to be chosen."""
    found: dict[str, Any] = {}
    hints = get_type_hints(node)
    for item in fields(node):
        value = default(item)
        if is_dataclass(hints[item.name]):
            value = defaults_of(hints[item.name]) if value == MISSING else asdict(value)
        found[item.name] = value
    return found


def with_defaults(older: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """A configuration that an earlier version wrote, and the keys that the schema got since, at their defaults.

    A new key's default means what was done before there was the key; one that cannot has to be refused by its own check.
    """
    filled, hints = dict(older), get_type_hints(schema)
    for item in fields(schema):
        hint = hints[item.name]
        group = group_of(hint)
        if item.name not in older:
            value = default(item)
            filled[item.name] = asdict(value) if group is hint else value
        elif group is hint:
            filled[item.name] = with_defaults(older[item.name], group)
        elif group:
            filled[item.name] = {name: with_defaults(one, group) for name, one in older[item.name].items()}
    return filled
