"""Completion in the shell: Hydra completes groups, keys and values, and this the command before them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr

from ..settings.compose import HYDRA_ERRORS, ROOTS, TRAIN
from ..usage import COMMANDS


def complete(arguments: Sequence[str]) -> int:
    """Answer `-sc install=SHELL`, `-sc uninstall=SHELL` or, as the shell asks it with COMP_LINE set, `-sc query=SHELL`.

    SHELL is bash, zsh or fish. Returns the exit status.
    """
    request = [item for item in arguments if item.partition("=")[0] in ("install", "uninstall", "query")]
    try:
        if len(request) == 1 and request[0].startswith("query="):
            _query(request[0])
        else:
            TRAIN.hydra().shell_completion(TRAIN.name, request)
    except HYDRA_ERRORS as error:
        print(f"error: -sc: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _query(request: str) -> None:
    """Print what may follow COMP_LINE."""
    line = os.environ.get("COMP_LINE", "")
    program, *words = line.split() or ["lrm-safety"]
    open_word = [] if line.endswith(" ") or not words else [words.pop()]
    for name in sorted(COMMANDS):
        if name.split()[: len(words)] == words and len(name.split()) > len(words):
            print(name.split()[len(words)])
    chosen = next((name for n in (2, 1) if (name := " ".join(words[:n])) in COMMANDS), None)
    if chosen is not None and len(words) == len(chosen.split()):
        print("\n".join(COMMANDS[chosen].words))
    if chosen is None or (root := COMMANDS[chosen].root) is None:
        return
    overrides = [word for word in words[len(chosen.split()) :] if not word.startswith("-")]
    os.environ["COMP_LINE"] = " ".join([program, *overrides, *(open_word or [""])])
    with redirect_stderr(io.StringIO()):  # the line that is being typed is rarely whole
        ROOTS[root].hydra(overrides).shell_completion(ROOTS[root].name, [request])
