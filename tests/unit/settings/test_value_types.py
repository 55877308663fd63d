"""A value of a wrong type, or just beyond the limit that docs/configuration.md states, is refused in one line, for every key."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from typing import Any

import pytest

from lrm_safety.errors import ConfigError
from lrm_safety.settings.compose import COMMANDS, ROOTS
from lrm_safety.settings.keys import defaults_of, dictionaries, known_keys
from lrm_safety.settings.reference import markdown

ROW = re.compile(r"^\| `([a-z_.*0-9]+)` \| (.+?) \| (?:`.*?`|required) \| ", flags=re.MULTILINE)
LIMITS = re.compile(r", (?:(\S+) (<=?) )?x(?: (<=?) (\S+))?$")
MEMBER = "made"
REQUIRED = {"evaluation.benchmarks": {"task": "attaq"}, "reward.models": {"path": "somewhere"}}


@dataclass
class Wrong:
    """Values that no key of a type takes, with how the command line writes them, and what is wanted."""

    wanted: str
    values: dict[str, Any]


WRONG = {
    "float": Wrong("must be a number", {"abc": "abc", "true": True, "[1]": [1]}),
    "int": Wrong("must be a (?:whole )?number", {"abc": "abc", "true": True, "[1]": [1], "1.5": 1.5}),
    "bool": Wrong("must be true or false", {"perhaps": "perhaps", "7": 7, "[true]": [True]}),
    "str": Wrong("must be (?:text|one of .*)", {"[a,b]": ["a", "b"], "true": True, "{a: 1}": {"a": 1}}),
    "list": Wrong(r"must be a list, \[a,b\]", {"a": "a", "3": 3, "null": None}),
    "dict": Wrong(r"must be a dictionary, \{key: value\}", {"a": "a", "3": 3, "null": None}),
}


@cache
def types(command: str) -> dict[str, str]:
    """What the page says of the type of each key of the command; groups that several share stand at the first."""
    told: dict[str, str] = {}
    for name in COMMANDS.values():
        part = markdown().split(f"\n# `lrm-safety {name}`\n")[1].split("\n# `lrm-safety ")[0]
        told |= dict(ROW.findall(part))
        if name == command:
            break
    schema = ROOTS[command].schema
    return {key: told[key].replace(r"\|", "|") for key in known_keys(schema) if key in told}


@cache
def valid(command: str) -> dict[str, Any]:
    """A configuration of the command that is accepted, with a member of every dictionary of groups."""
    root = ROOTS[command]
    values = asdict(root.compose(root.choices)[0])
    for key, group in dictionaries(root.schema).items():
        if is_dataclass(group):
            node = values
            for part in key.split("."):
                node = node[part]
            node[MEMBER] = defaults_of(group) | REQUIRED.get(key, {})
    return values


def refusal(command: str, key: str, value: Any) -> str:
    """What is said of a value of a key, or nothing."""
    values = copy.deepcopy(valid(command))
    *above, last = key.replace("*", MEMBER).split(".")
    node = values
    for part in above:
        node = node[part]
    node[last] = value
    try:
        ROOTS[command].checked(values)
    except ConfigError as error:
        return str(error)
    return ""


def limits(kind: str) -> Iterator[tuple[float, bool, float]]:
    """Each limit of a type: the value, whether it is allowed itself, and the direction beyond it."""
    found = LIMITS.search(kind)
    if found is None or kind.startswith("list"):
        return
    low, below, above, high = found.groups()
    if low is not None:
        yield float(low), below == "<=", -1.0
    if high is not None:
        yield float(high), above == "<=", 1.0


@pytest.mark.parametrize("command", ROOTS)
def test_a_limit_is_where_the_page_says(command: str) -> None:
    counted = 0
    for name, kind in types(command).items():
        key = f"{name}.*" if kind.startswith("dict") else name  # its values have it
        for limit, allowed, direction in limits(kind):
            counted += 1
            whole = kind.startswith("int")
            beyond = int(limit + direction) if whole else math.nextafter(limit, direction * math.inf)
            at: float = int(limit) if whole else limit
            named = (
                rf"^{re.escape(key.replace('*', MEMBER))}=\S+: must be (at least|at most|above|below) [-+.0-9e]+(;.*)?"
            )
            assert re.fullmatch(named, refusal(command, key, beyond)), (key, beyond)
            assert bool(re.fullmatch(named, refusal(command, key, at))) != allowed, (key, at)
    assert counted


@pytest.mark.parametrize("command", ROOTS)
def test_a_value_of_a_wrong_type_is_named_with_what_is_wanted(command: str) -> None:
    for key, kind in types(command).items():
        wrong = WRONG[re.split(r"[\[ :,|]", kind)[0]]
        for written, value in wrong.values.items():
            if (key, value) == ("checkpoint.export", True):
                continue  # what it was before there was a choice
            said = refusal(command, key, value)
            expected = rf"{re.escape(f'{key}={written}'.replace('*', MEMBER))}: {wrong.wanted}"
            assert re.fullmatch(expected, said), (key, value, said)
        if "None" not in kind and not kind.startswith(("list", "dict")):
            said = refusal(command, key, None)
            assert said.startswith(f"{key.replace('*', MEMBER)}=null: must be "), (key, said)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_infinite(value: float) -> None:
    for key, kind in types("train").items():
        if kind.startswith(("float", "int")):
            assert "must be a finite number" in refusal("train", key, value), key


def test_text_that_is_blank_is_refused_but_for_a_system_prompt() -> None:
    for key, kind in types("train").items():
        if kind.startswith("str") and key != "model.system_prompt":
            assert re.search(r"=' ': (is empty|must be one of)", refusal("train", key, " ")), key
    assert not refusal("train", "model.system_prompt", "")
