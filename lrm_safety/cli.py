"""`lrm-safety COMMAND [overrides]`: the one entry point."""

from __future__ import annotations

import logging
import os
import platform
import select
import signal
import sys

from . import credentials
from .environment import packages
from .errors import LrmSafetyError, nearest, of_the_user, shown
from .files import disk_says
from .interruption import StopRequested
from .usage import COMMANDS, ONCE, Command, Later, help_of, kinds_of, usage

STDOUT = 1


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. What a user can mend is one line on stderr."""
    try:
        status = _main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        output = select.poll()
        output.register(STDOUT, 0)
        if not any(event & select.POLLERR for _, event in output.poll(0)):
            raise  # a socket's: a defect of ours
        # Whoever read our output has closed it, as `head` does; the interpreter's own last flush wants a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        return 128 + signal.SIGPIPE


def _main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if "--version" in arguments:
        print(f"lrm-safety {packages().get('lrm-safety', 'of a checkout that is not installed')}")
        return 0
    if "-sc" in arguments or "--shell-completion" in arguments:
        return int(Later("commands.completion:complete")(arguments))
    name = next((two for two in [" ".join(arguments[:2])] if two in COMMANDS or two in ONCE), arguments[0])
    rest = arguments[len(name.split()) :]
    kinds = kinds_of(name)
    if name not in COMMANDS and not kinds:
        words = [*COMMANDS, *{one.split()[0] for one in COMMANDS}]
        near = ONCE.get(name) or nearest(name, words)
        meant = f"; did you mean {near}?" if near else "; `lrm-safety --help` lists all"
        print(f"error: unknown command {name}{meant}", file=sys.stderr)
        return 2
    if "-h" in rest or "--help" in rest:
        print(help_of(name))
        return 0
    if platform.system() != "Linux" and name not in ("doctor", "docs"):
        print(
            f"error: lrm_safety runs on Linux, and this is {platform.system()}: use a Linux machine, a container or, on "
            "Windows, WSL 2",
            file=sys.stderr,
        )
        return 1
    if "" not in sys.path:
        sys.path.append("")  # functions of the user's are found in the working folder, as with `python -m`
    if name not in COMMANDS:
        known = " and ".join(kind.name.split()[1] for kind in kinds)
        print(f"error: {name}: knows {known}, not {rest[0] if rest else 'nothing'}", file=sys.stderr)
        return 1
    try:
        os.getcwd()
    except FileNotFoundError:
        print("error: the folder that this shell is in does not exist any more; change to another", file=sys.stderr)
        return 1
    try:
        credentials.load()
        return _start(COMMANDS[name], rest)
    except LrmSafetyError as error:
        print(shown(error), file=sys.stderr)
        return 1
    except StopRequested as stop:
        print(f"stopped by {stop}; the same command {stop.then}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print(f"stopped by SIGINT: {COMMANDS[name].interrupted}", file=sys.stderr)
        return 130
    except Exception as error:
        if reason := disk_says(error):
            place = getattr(error, "filename", None) or "the disk"
            print(f"error: {place}: {reason}; mend it and start the same command again", file=sys.stderr)
        elif theirs := of_the_user(error):
            print(shown(theirs), file=sys.stderr)
        else:
            raise  # a defect of ours
        return 1


def _start(command: Command, arguments: list[str]) -> int:
    """Run it; returns the exit status."""
    function = Later(command.function)
    if not command.configured:
        return int(function(arguments))
    assert command.root is not None
    from .commands.launch import launch
    from .settings.compose import ROOTS

    return launch(ROOTS[command.root], function, arguments, command.name)


if __name__ == "__main__":
    sys.exit(main())
