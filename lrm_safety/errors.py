"""What a user, the data, a model or the cluster did wrong, said in one line.

Every class takes one clear line that names the configuration key or the file, and how to mend it. The command line
prints that line, and below it the place where a function of the user's or a worker failed; anything that is not one of
these classes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

from .secret_text import masked

NUM_FRAMES = 3
"""The innermost frames of a failure that are printed."""
_FRAME = re.compile(r'^ *File "([^"]+)", line (\d+)(?:, in (.+))?(?:\n +(?![\^~ ])(.+))?', re.MULTILINE)
_NEXT_EXCEPTION = re.compile(r"^(?:The above exception was|During handling of the above exception).*:$", re.MULTILINE)
_OF_A_LIBRARY = re.compile(r"^<|\.pyx$|/lib(?:64)?/python3[.\d]*/")
"""Files of Python's own, of installed packages and of what was compiled: no line there is the user's or ours to mend."""
_OURS = f"{Path(__file__).parent}{os.sep}"
_COLOUR = re.compile(r"\x1b\[\d+m")


class LrmSafetyError(Exception):
    """Base of every error that a user can read and act on; `str(error)` is the one line.

    Attributes:
        inside: the traceback of what failed inside a function of the user's or a worker, as text, since a traceback does not
            come along from another process; empty for every other mistake.
    """

    def __init__(self, message: str, inside: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.inside = inside


class ConfigError(LrmSafetyError):
    """A configuration key is missing, unknown, out of range, or contradicts another key."""


class DataError(LrmSafetyError):
    """A data set, a row of it, or a saved state about it is absent, torn, changed or of another shape than expected."""


class FolderLostError(DataError):
    """The run's folder, or its file of metrics, was removed while the run wrote into it; what was lost has been written again."""


class ModelError(LrmSafetyError):
    """A checkpoint, tokenizer or chat template is absent or does not fit the model family or role it was given."""


class ClusterError(LrmSafetyError):
    """The cluster lacks what was asked for: GPUs, CPUs, nodes, memory, or a service did not answer in time."""


class RewardError(LrmSafetyError):
    """A reward could not be computed: a reward model, server or function failed or returned something unusable."""


class InvariantError(LrmSafetyError):
    """A guarantee that training rests on was found broken at run time, such as weights that differ after a sync."""


class WorkerError(LrmSafetyError):
    """A worker process died or raised; the line names the worker and carries its first cause."""


class JudgeError(LrmSafetyError):
    """A judge or grader cannot work: an endpoint stays down, a model is not one that judges, a user's function raises."""


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The known name that was probably meant; empty where none is so near (difflib's ratio)."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)), "")


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the error's name where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def traceback_inside(error: BaseException) -> str:
    """The traceback of an error that has just been caught, with its causes, from the function that was called down: without
    the frame that called and caught."""
    below = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.format_exception(type(error), error, below))


def is_ours(thing: object) -> bool:
    """Whether a class, a function or an object was written in this package."""
    return str(getattr(thing, "__module__", None) or type(thing).__module__).partition(".")[0] == "lrm_safety"


def raised(error: BaseException) -> str:
    """`raised KeyError: 'x' (mine.py:12)` of an error that has just been caught: with the innermost line of a file of the
    user's, where there is one."""
    inside = traceback_inside(error)
    place = next((f" ({where})" for file, where, _ in _frames(inside) if not file.startswith(_OURS)), "")
    return f"raised {type(error).__name__}: {error}{place}"


def of_the_user(error: Exception) -> LrmSafetyError | None:
    """An exception that was raised in a file of the user's, as a line that says so; None where it was in ours or in a library
    that ours called. For what no key is known of: methods of an object of the user's on its way through."""
    innermost = next(iter(_frames(whole_traceback(error))), None)
    if innermost is None or innermost[0].startswith(_OURS):
        return None
    told = LrmSafetyError(f"code of yours {raised(error)}", whole_traceback(error))
    told.__notes__ = getattr(error, "__notes__", [])
    return told


class calling:
    """Around a call of what is the user's: whatever it raises is the user's to mend. It becomes a `kind` whose line opens with
    `source`, the key and the object that stands there, and which keeps the traceback; errors of ours pass unchanged.

    `of`: what is called. Of a thing of ours an exception is a defect of ours, and passes too.
    """

    def __init__(self, source: str, kind: type[LrmSafetyError] = ConfigError, *, of: object = None) -> None:
        self._source, self._kind, self._ours = source, kind, of is not None and is_ours(of)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, LrmSafetyError) and not self._ours:
            raise self._kind(f"{self._source}: {raised(error)}", traceback_inside(error)) from error


def whole_traceback(error: BaseException) -> str:
    """The traceback of an error with all its causes, those in other processes too."""
    return _COLOUR.sub("", "".join(traceback.format_exception(error)))


def failure_inside(error: BaseException | None) -> str:
    """`inside` of an error or of the first of its causes that has one; empty where none does."""
    while error is not None:
        if inside := getattr(error, "inside", ""):
            return str(inside)
        error = error.__cause__
    return ""


def frames(inside: str) -> list[str]:
    """The innermost frames of a traceback, `FILE:LINE in FUNCTION: CODE`, the innermost first; those of libraries left out."""
    return [f"{where}{rest}" for _, where, rest in _frames(inside)[:NUM_FRAMES]]


def _frames(inside: str) -> list[tuple[str, str, str]]:
    """(file, `FILE:LINE` from here, ` in FUNCTION: CODE`) of the frames of a traceback that are not of libraries, innermost
    first."""
    found = _FRAME.findall(_NEXT_EXCEPTION.split(inside)[-1])
    return [
        (file, f"{from_here(file)}:{line}", f"{f' in {name}' if name else ''}{f': {code.strip()}' if code else ''}")
        for file, line, name, code in reversed(found)
        if file.startswith(_OURS) or not _OF_A_LIBRARY.search(file)
    ]


def from_here(path: str) -> str:
    """A path as seen from the working folder, where it lies below that."""
    return path.removeprefix(f"{os.getcwd()}/")


def shown(error: LrmSafetyError) -> str:
    """What the command line prints of an error, without secrets: the one line, then where it happened and what was noted (PEP
    678)."""
    places = [f"  at {frame}" for frame in frames(failure_inside(error))]
    return masked("\n".join([f"error: {error}", *places, *getattr(error, "__notes__", ())]))
