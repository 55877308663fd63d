"""What a value of the configuration may be: types with their limits, which pydantic checks and docs/configuration.md prints.

A choice is a `Literal`, a limit a `Field`; both stand in the type, once. A rule about several keys of one group is a validator
of that group's class. Settings are plain dataclasses: they are checked where a configuration is composed (`Root.checked`),
not again where our own code builds or replaces one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field as FieldOfGroup
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from ..errors import ConfigError
from ..registry import Registry

MAX_SEED = 2**32 - 1
"""The largest seed that numpy and vLLM take."""
RUNS_VARIABLE = "LRM_SAFETY_RUNS"
"""Folder below which runs are put; without it `outputs` in the working directory."""
DIRECTORY = f"${{oc.env:{RUNS_VARIABLE},outputs}}/${{run.name}}"
"""Default of every run.directory."""


@dataclass
class Whole:
    """Base of the schemas of whole commands: how pydantic reads them and all groups in them."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


class Unfit(ValueError):
    """What is wrong with a value or a group; the line that the user reads begins with its key."""


class Conflict(ValueError):
    """Keys of one group that cannot work together; the text begins with a key's name within the group."""


def rule(check: Callable[[Any], None]) -> Any:
    """A method of a group's class that raises Conflict, or Unfit, where its keys do not go together."""

    def checked(group: Any) -> Any:
        check(group)
        return group

    return model_validator(mode="after")(checked)


def nothing_reads(group: Any, names: Sequence[str], reason: str, prefix: str = "") -> None:
    """Raise Conflict for a key that was given another value than its default while nothing reads it: whoever sets it
    expects something of it, and would wait in vain without a word."""
    for item in fields(group):
        value, usual = getattr(group, item.name), default(item)
        if item.name in names and value != usual:
            raise Conflict(f"{prefix}{item.name}={shown(value)}: does nothing {reason}, or leave it at {shown(usual)}")


def one_is_given(group: Any, keys: Sequence[str]) -> None:
    """Raise Unfit unless exactly one of these dotted keys of the group has a value."""
    if sum(getattr(group, key.rpartition(".")[2]) is not None for key in keys) != 1:
        raise Unfit(f"set exactly one of {', '.join(keys)}")


def default(item: FieldOfGroup[Any]) -> Any:
    """What a field is if nothing else is said; `???` where something has to be."""
    return item.default if item.default_factory is NO_DEFAULT else item.default_factory()


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):  # Python counts with them
        raise Unfit("must be a number")
    return value


def _no_fraction(value: Any) -> Any:
    """`1e3` has become 1000.0 before we see it, and a commit such as `12e4567` infinity: what was typed cannot be told."""
    if isinstance(value, float):
        raise Unfit("must be text, and this was read as a number; quote it twice, as in \"run.name='1e3'\"")
    return value


def _no_blank(value: str) -> str:
    if not value.strip():
        raise Unfit("is empty; give it a value, or leave the key out")
    return value


def _plain(name: str) -> str:
    if not name.replace("_", "").isalnum():
        raise Unfit("a name may hold letters, digits and _ only")
    return name


@dataclass(frozen=True)
class OneOf:
    """Of names that only the running program knows; others are a Literal."""

    names: Collection[str]

    def __call__(self, value: str) -> str:
        """The value; raises Unfit for one that is not among the names, and is no import path of such an object."""
        if isinstance(self.names, Registry):
            try:
                self.names.get(value, self.names.kind)
            except ConfigError as error:
                raise Unfit(str(error).removeprefix(f"{self.names.kind}={value}: ")) from error
        elif value not in self.names:
            raise Unfit(f"must be one of {', '.join(self.names)}")
        return value


def one_of(names: Collection[str]) -> AfterValidator:
    """Text that is one of the names; of a registry, or the import path of an object of the user's own."""
    return AfterValidator(OneOf(names))


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    match value:
        case None | bool():
            return "null" if value is None else str(value).lower()
        case list():
            return f"[{','.join(map(shown, value))}]"
        case dict():
            return f"{{{','.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
        case str() if not value.strip():
            return repr(value)
        case _:
            return str(value)


Int = Annotated[int, BeforeValidator(_no_switch)]
Float = Annotated[float, BeforeValidator(_no_switch)]
Text = Annotated[str, BeforeValidator(_no_fraction), AfterValidator(_no_blank)]
PositiveInt = Annotated[Int, Field(ge=1)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
Seed = Annotated[Int, Field(ge=0, le=MAX_SEED)]
"""A seed that every generator of random numbers takes."""
NonNegativeFloat = Annotated[Float, Field(ge=0)]
PositiveFloat = Annotated[Float, Field(gt=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
Decay = Annotated[Float, Field(ge=0, lt=1)]
"""Of a moving average."""
Name = Annotated[str, AfterValidator(_plain)]
"""Becomes a folder and part of metrics' names."""
Device = Literal["cpu", "cuda"]
AutoDevice = Literal["auto", "cpu", "cuda"]
"""auto: cuda where there is one."""
