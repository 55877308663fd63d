"""`lrm-safety COMMAND [overrides]`: the one entry point."""

from __future__ import annotations

import logging
import os
import platform
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from . import credentials
from .errors import ConfigError, LrmSafetyError, shown
from .files import disk_says
from .interruption import StopRequested
from .usage import USAGE, help_of

STDOUT = 1
AFTER_SIGINT = {
    "train": "training had not begun, nothing was lost",
    "sft": "training had not begun, nothing was lost",
    "demo": "training had not begun, nothing was lost",
    "evaluate": "the same command goes on with the responses that it has",
    "reward": "it keeps no checkpoints, and the same command begins anew",
}
"""What becomes of the work of a command whose training, if any, does not catch the signal itself."""


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
        print(USAGE)
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "sft": _sft,
        "evaluate": _evaluate,
        "analyze": _analyze,
        "export": _export,
        "reward": _reward,
        "audit-reward": _audit_reward,
        "study": _study,
        "report": _report,
        "compare": _compare,
        "plan": _plan,
        "samples": _samples,
        "tensorboard": _tensorboard,
        "demo": _demo,
        "fetch": _fetch,
        "doctor": _doctor,
        "build-miniature": _build_miniature,
        "docs": _docs,
    }
    if command not in commands:
        print(f"error: unknown command {command}\n\n{USAGE}", file=sys.stderr)
        return 2
    if "-h" in rest or "--help" in rest:
        print(help_of(command))
        return 0
    if platform.system() != "Linux" and command not in ("doctor", "docs"):
        print(
            f"error: lrm_safety runs on Linux, and this is {platform.system()}: use a Linux machine, a container or, on "
            "Windows, WSL 2",
            file=sys.stderr,
        )
        return 1
    if "" not in sys.path:
        sys.path.append("")  # functions of the user's are found in the working folder, as with `python -m`
    try:
        os.getcwd()
    except FileNotFoundError:
        print("error: the folder that this shell is in does not exist any more; change to another", file=sys.stderr)
        return 1
    try:
        credentials.load()
        return commands[command](rest)
    except LrmSafetyError as error:
        print(shown(error), file=sys.stderr)
        return 1
    except StopRequested as stop:
        print(f"stopped by {stop}; the same command goes on from the last checkpoint", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print(f"stopped by SIGINT: {AFTER_SIGINT.get(command, 'nothing was lost')}", file=sys.stderr)
        return 130
    except Exception as error:
        if (reason := disk_says(error)) is None:
            raise  # a defect of ours
        place = getattr(error, "filename", None) or "the disk"
        print(f"error: {place}: {reason}; mend it and start the same command again", file=sys.stderr)
        return 1


def _train(arguments: list[str]) -> int:
    from .commands.launch import launch

    return launch(arguments)


def _sft(arguments: list[str]) -> int:
    from .commands.launch import SFT, launch

    return launch(arguments, SFT)


def _evaluate(arguments: list[str]) -> int:
    from .commands.evaluate import evaluate

    return evaluate(arguments)


def _analyze(arguments: list[str]) -> int:
    from .commands.analyze import analyze

    return analyze(arguments)


def _export(arguments: list[str]) -> int:
    from .commands.export import export

    return export(arguments)


def _reward(arguments: list[str]) -> int:
    from .commands.reward import reward

    return reward(arguments)


def _audit_reward(arguments: list[str]) -> int:
    from .commands.audit_reward import audit_reward

    return audit_reward(arguments)


def _study(arguments: list[str]) -> int:
    from .commands.study import study

    return study(arguments)


def _report(arguments: list[str]) -> int:
    from .commands.report import report

    return report(arguments)


def _compare(arguments: list[str]) -> int:
    from .commands.compare import compare

    return compare(arguments)


def _samples(arguments: list[str]) -> int:
    from .commands.samples import samples

    return samples(arguments)


def _tensorboard(arguments: list[str]) -> int:
    from .commands.tensorboard import tensorboard

    return tensorboard(arguments)


def _plan(arguments: list[str]) -> int:
    from .commands.plan import plan

    return plan(arguments)


def _demo(arguments: list[str]) -> int:
    from .commands.demo import demo

    return demo(arguments)


def _fetch(arguments: list[str]) -> int:
    from .commands.fetch import fetch

    return fetch(arguments)


def _doctor(arguments: list[str]) -> int:
    from .commands.doctor import doctor

    return doctor(arguments)


def _build_miniature(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise ConfigError(
            "build-miniature: give the output folder, e.g. `lrm-safety build-miniature outputs/miniature`"
        )
    from .miniature.build import build

    build(Path(arguments[0]))
    return 0


def _docs(arguments: list[str]) -> int:
    from .commands.docs import docs

    return docs(arguments)


if __name__ == "__main__":
    sys.exit(main())
