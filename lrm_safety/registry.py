"""Things of one kind by name: families, benchmarks, judges, rewards, baselines, corrections.

Ours declare themselves where they are written. Others add theirs from a package of their own, without an edit here: by
import path, `package.module:object` in the place of a name, or under a name of their own by an entry point in the group
`lrm_safety.KIND`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import replace
from functools import cached_property, wraps
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from .errors import ConfigError, calling, is_ours, nearest, raised, traceback_inside
from .files import digest_of

T = TypeVar("T")
Complaint = Callable[..., "str | None"]
"""What is wrong with what a function returned, given that and the function's arguments; None: nothing."""


def is_import_path(name: str) -> bool:
    """Whether `name` is written `package.module:object`."""
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def import_object(path: str, key: str, what: str = "object") -> Any:
    """The object at `package.module:object`; ConfigError, opening with `key`, when there is none. `what` it is in messages."""
    if not is_import_path(path):
        raise ConfigError(f"{key}={path}: must be written package.module:{what}")
    module_name, _, name = path.partition(":")
    try:
        found = importlib.import_module(module_name)
    # Whatever a user's module raises on import is the user's to mend, and is told as the cause.
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        told = f" ({type(error).__name__}: {error}); is its folder on PYTHONPATH?" if absent else f": {raised(error)}"
        raise ConfigError(f"{key}={path}: cannot import {module_name}{told}", traceback_inside(error)) from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"{key}={path}: {module_name} has no {what} {name}") from None
    return found


def import_function(path: str, key: str) -> Callable[..., Any]:
    """The function at `package.module:function`; ConfigError, opening with `key`, when there is none."""
    found = import_object(path, key, "function")
    if not callable(found):
        module, _, name = path.partition(":")
        raise ConfigError(f"{key}={path}: {module} has no function {name}")
    return found


def check_choices(declared: Any) -> None:
    """Raises ConfigError for a text in a field of a declaration, a dataclass with a `name`, that is none of the values of the
    `Literal` in the field's type; a tuple is checked value by value."""
    for field, hint in get_type_hints(type(declared)).items():
        literals = [one for one in (hint, *get_args(hint)) if get_origin(one) is Literal]
        choices = [choice for literal in literals for choice in get_args(literal)]
        value = getattr(declared, field)
        for one in value if isinstance(value, tuple) else (value,):
            # What is no text is of another member of the type, such as a function that chooses, unless there is none.
            if choices and one not in choices and (isinstance(one, str) or hint in literals):
                name = f"{type(declared).__name__} {declared.name}"
                raise ConfigError(f"{name}: {field}={one!r}: must be one of {', '.join(choices)}")


def check_named(name: object, decorator: str) -> None:
    """Raises ConfigError for a decorator that has to be given a name, and was given the thing below it."""
    if not isinstance(name, str):
        above = getattr(name, "__name__", name)
        raise ConfigError(f"@{decorator} above {above} needs brackets and a name: @{decorator}({above!r}, ...)")


def fingerprint_of(*things: object) -> str | None:
    """sha256 of the files that hold these classes, functions and modules (by name); None where there is no such file."""
    modules = {
        one if isinstance(one, str) else getattr(one, "__module__", None) or type(one).__module__ for one in things
    }
    files = [file for name in sorted(modules) if (file := getattr(sys.modules.get(name), "__file__", None))]
    return digest_of(Path(file).read_bytes() for file in files) if files else None


class Registry(Collection[str], Generic[T]):
    """The things of one kind that are known by name.

    Attributes:
        kind: the plural that messages and the entry points' group use, such as `families`.
        expected: what an object that comes by entry point or import path must be.
        mend: how a thing is made one that it must be, for messages.
    """

    def __init__(
        self,
        kind: str,
        expected: type = object,
        *,
        mend: str = "",
        ours: MutableMapping[str, T] | None = None,
        declared_in: str | None = None,
        calls: Mapping[str, Complaint | None] | None = None,
    ) -> None:
        """`ours`: a dictionary that a package fills which imports nothing of ours. `declared_in`: the module, or the package
        with all its modules, that is imported when a name is first looked up. `calls`: attributes of a thing that are
        functions; those of others' things name key and object when they raise, or return what is complained of."""
        self.kind, self.expected, self.mend = kind, expected, mend
        self._declared_in, self._calls = declared_in, calls or {}
        self._declared: MutableMapping[str, T] = {} if ours is None else ours

    def add(self, name: str, thing: T) -> T:
        """Declare one of ours; raises ValueError for a name that is taken."""
        if name in self._declared:
            raise ValueError(f"{self.kind}: {name} is declared twice")
        self._declared[name] = thing
        return thing

    @property
    def ours(self) -> Collection[str]:
        """The names that are declared in this package."""
        return self._ours.keys()

    def __iter__(self) -> Iterator[str]:
        """The names: ours in the order of their declarations, then those of entry points."""
        yield from self._ours
        yield from (name for name in self._theirs if name not in self._ours)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._theirs

    def refusal(self, name: str) -> str:
        """What to say of a name that is not known, otherwise nothing; whether there is an object at an import path `get` tells."""
        if name in self or is_import_path(name):
            return ""
        near = nearest(name, self)
        hint = f"; did you mean {near}?" if near else ""
        return f"must be one of {', '.join(self)}, or package.module:NAME of your own{hint}"

    def get(self, name: str, key: str) -> T:
        """The thing called `name`, or the one at an import path. Raises ConfigError, naming `key`, where there is none, or it
        is something else."""
        if refusal := self.refusal(name):
            raise ConfigError(f"{key}={name}: {refusal}")
        if name in self._ours:
            return self._ours[name]
        found: Any = import_object(self._import_path(name), key)
        if not isinstance(found, self.expected):
            wanted = "class" if self.expected is type else self.expected.__name__
            mend = self.mend and f"; {self.mend}"
            raise ConfigError(f"{key}={name}: is a {type(found).__name__}, and must be a {wanted}{mend}")
        told = {
            attribute: _told(function, f"{key}={name}", complaint)
            for attribute, complaint in self._calls.items()
            if (function := getattr(found, attribute, None)) is not None and not is_ours(function)
        }
        return cast(T, replace(cast(Any, found), **told) if told else found)

    def content(self, name: str, key: str) -> dict[str, str | None]:
        """sha256 of the files that define what `get` finds, as `file of KEY`: what it made is not to be mixed with what it makes
        once they are edited. Empty for ours, which are those of this version of the package. Raises as `get` does."""
        thing = self.get(name, key)
        if name in self._ours:
            return {}
        module, _, _ = self._import_path(name).partition(":")
        # What stands at the path may be made of a function, or inherit from a class, of another file.
        parts = [thing, *(getattr(thing, one, None) for one in self._calls)]
        written = (base for one in parts for base in getattr(one, "__mro__", (one,)) if not is_ours(base))
        return {f"file of {key}": fingerprint_of(module, *written)}

    def _import_path(self, name: str) -> str:
        return self._theirs[name].value if name in self._theirs else name

    @cached_property
    def _ours(self) -> MutableMapping[str, T]:
        if self._declared_in is None:
            return self._declared
        for module in pkgutil.iter_modules(getattr(importlib.import_module(self._declared_in), "__path__", ())):
            importlib.import_module(f"{self._declared_in}.{module.name}")
        return dict(sorted(self._declared.items()))

    @cached_property
    def _theirs(self) -> dict[str, EntryPoint]:
        return {one.name: one for one in entry_points(group=f"lrm_safety.{self.kind}")}


def _told(function: Callable[..., Any], source: str, complaint: Complaint | None) -> Callable[..., Any]:
    """A function of somebody else's, whose failure is a line that opens with `source`."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with calling(source):
            returned = function(*args, **kwargs)
        if complaint is not None and (wrong := complaint(returned, *args)):
            raise ConfigError(f"{source}: {wrong}")
        return returned

    return call
