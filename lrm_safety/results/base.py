"""What every file of results is: a dataclass, written and read as JSON, and the numbers that it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from ..errors import DataError
from ..files import read_json, write_json
from ..statistics import Estimate, PairedDifference


class Results:
    """A file of results. `FORMAT` is its first key; an audit of before had none, which counts as 1."""

    FILE: ClassVar[str]
    COMMAND: ClassVar[str]
    """What makes the file, for messages."""
    FORMAT: ClassVar[int] = 1

    def write(self, folder: Path) -> None:
        """Write FOLDER/FILE."""
        write_json(folder / self.FILE, {"format": self.FORMAT} | as_json(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`, or FILE in the folder `path`. Raises DataError in one line."""
        path = path if path.is_file() else path / cls.FILE
        content = read_json(path, mend=f"run {cls.COMMAND}, or name another folder")
        number = content.pop("format", 1)
        if type(number) is not int or number != cls.FORMAT:
            raise DataError(
                f"{path}: has format {number!r}, this version of lrm-safety reads {cls.FORMAT}; run {cls.COMMAND} again, or use "
                "the version that wrote it"
            )
        try:
            result: Self = _fit(cls, content, "")
        except _Misfit as error:
            raise DataError(
                f"{path}: {error}; this version of {cls.COMMAND} writes no such file: run it again, or name another folder"
            ) from error
        return result


@dataclass(frozen=True)
class Metric:
    """A number with its 95% interval over `n` questions, responses or rows."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, estimate: Estimate) -> Metric:
        """A statistic, whose numbers may be NaN."""
        return cls(known(estimate.value), known(estimate.low), known(estimate.high), estimate.n)


@dataclass(frozen=True)
class Difference(Metric):
    """A paired difference; without a question in common it has no value and no p-value."""

    p_value: float | None
    test: str
    num_unmatched: int
    """Questions that only one side has, which are left out."""

    @classmethod
    def between(cls, paired: PairedDifference) -> Difference:
        """A paired statistic, whose numbers may be NaN."""
        one = Metric.of(paired.estimate)
        return cls(one.value, one.low, one.high, one.n, known(paired.p_value), paired.test, paired.num_unmatched)


# --- dataclasses as JSON and back


def known(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return None if math.isnan(value) else value


def as_json(value: Any) -> Any:
    """A dataclass and everything in it as JSON has it. A field that is None by default is left out where it is None."""
    if is_dataclass(value):
        return {
            one.name: as_json(member)
            for one in fields(value)
            if (member := getattr(value, one.name)) is not None or one.default is not None
        }
    if isinstance(value, Mapping):
        return {key: as_json(member) for key, member in value.items()}
    return [as_json(member) for member in value] if isinstance(value, list | tuple) else value


class _Misfit(Exception):
    """A field that is not what its dataclass says; `str(error)` names it."""


_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _fit(kind: Any, value: Any, where: str) -> Any:
    """`value` of a JSON file as the type hint `kind` has it; `where` names it from the top of the file."""
    origin, members = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):  # of something and None
        return None if value is None else _fit(members[0], value, where)
    if origin is Literal:
        if value not in members:
            raise _Misfit(f"{where} is {value!r} and not {' or '.join(members)}")
        return value
    json_type: Any = dict if is_dataclass(kind) or origin is Mapping else list if origin is tuple else kind
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not json_type:
        raise _Misfit(f"{where} is {_NAMES[type(value)]} and not {_NAMES[json_type]}")
    if kind is float and not math.isfinite(value):
        raise _Misfit(f"{where} is {value} and not {_NAMES[float]}")
    if is_dataclass(kind):
        return _fit_fields(kind, value, where)
    if origin is Mapping:
        return {key: _fit(members[1], member, _below(where, key)) for key, member in value.items()}
    if origin is tuple:
        return tuple(_fit(members[0], member, f"{where}[{place}]") for place, member in enumerate(value))
    return value


def _fit_fields(kind: Any, content: Mapping[str, Any], where: str) -> Any:
    hints = _hints(kind)
    known_fields = {one.name: one for one in fields(kind)}
    if unknown := next((key for key in content if key not in known_fields), None):
        raise _Misfit(f"holds the unknown key {_below(where, unknown)}")
    for name, one in known_fields.items():
        if name not in content and one.default is MISSING and one.default_factory is MISSING:
            raise _Misfit(f"lacks {_below(where, name)}")
    return kind(**{name: _fit(hints[name], member, _below(where, name)) for name, member in content.items()})


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
