"""The keys of a schema: every dotted name, and which of them are dictionaries that the user may add to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from . import Settings


@cache
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


def added_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Keys that `+key=value` put into a part of the schema that does not have them."""
    if is_dataclass(node):
        known = {item.name for item in fields(node)}
        for name, value in vars(node).items():
            if name in known:
                yield from added_keys(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from added_keys(value, f"{prefix}{name}.")


def with_defaults(older: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """A configuration that an earlier version wrote, and the keys that the schema got since, at their defaults.

    A new key's default means what was done before there was the key; one that cannot has to be refused by its own check.
    """
    filled, hints = dict(older), get_type_hints(schema)
    for item in fields(schema):
        if item.name not in older:
            default = item.default if item.default_factory is MISSING else item.default_factory()
            if default is not MISSING:
                filled[item.name] = asdict(default) if is_dataclass(default) else default  # type: ignore[arg-type]
            continue
        value, hint = older[item.name], hints[item.name]
        member: Any = get_args(hint)[1] if get_origin(hint) is dict else None
        if is_dataclass(hint):
            filled[item.name] = with_defaults(value, hint)
        elif is_dataclass(member):
            filled[item.name] = {name: with_defaults(one, member) for name, one in value.items()}
    return filled
