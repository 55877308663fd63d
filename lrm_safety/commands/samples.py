"""`lrm-safety samples`: what the model said, out of a run's or an evaluation's files."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ..errors import ConfigError, DataError
from ..files import read_json_lines
from .words import unknown_word

KEYS = ("n", "show", "set", "update", "status")
PATTERNS = ("rollouts/update-*.jsonl", "evaluation/update-*.jsonl", "samples.jsonl", "rollouts/offending-*.jsonl")
"""Where samples stand in a folder of train or evaluate."""
NOT_SHOWN = ("prompt", "trace", "answer", "extracted", "prompt_ids", "response_ids", "nonfinite")


def samples(arguments: list[str]) -> int:
    """Run `samples FOLDER [n=5] [set=NAME] [update=N] [status=NAME] [show=text]`; returns the exit status.

    Text may be harmful. It is printed with `show=text`, or after a yes at a terminal; otherwise ids, lengths, scores and
    verdicts alone.
    """
    # A folder may have a "=" in its name.
    folders = [item for item in arguments if "=" not in item or Path(item).is_dir()]
    given = dict(item.partition("=")[::2] for item in arguments if item not in folders)
    if unknown := [*(key for key in given if key not in KEYS), *(item for item in folders if item.startswith("-"))]:
        raise unknown_word("samples", unknown[0], KEYS, f"FOLDER, {', '.join(f'{key}=' for key in KEYS)}")
    if len(folders) != 1:
        raise ConfigError("samples: give one folder of a run or an evaluation, e.g. outputs/demo")
    if given.get("show", "text") != "text":
        raise ConfigError(f"show={given['show']}: must be text")
    count = _number("n", given.get("n", "5"))
    update = None if "update" not in given else _number("update", given["update"])
    rows = select(read_samples(Path(folders[0]), update), count, given.get("set"), given.get("status"))
    if not rows:
        raise DataError(f"{folders[0]}: no sample is of that set and status")
    console, shown = Console(), "show" in given
    if not any("answer" in row for row in rows):
        shown = False
        key = "evaluation.log_text" if (Path(folders[0]) / "samples.jsonl").exists() else "tracking.log_text"
        print(f"no text was kept: {key}=true keeps it (an evaluation's same command then generates nothing again)")
    elif not shown and sys.stdin.isatty() and sys.stdout.isatty():
        shown = input("Prompts and responses may be harmful. Show them? [y/N] ").strip().lower() in ("y", "yes")
    elif not shown:
        print("prompts and responses may be harmful: show=text prints them")
    for row in rows:
        print_sample(row, console, with_text=shown)
    return 0


def read_samples(folder: Path, update: int | None = None) -> list[dict[str, Any]]:
    """The samples of a folder, of the last update (or of `update`) where it has several.

    Raises DataError where there is none, or a line that is not JSON.
    """
    files = [path for pattern in PATTERNS for path in sorted(folder.glob(pattern))]
    if not files:
        raise DataError(
            f"{folder}: holds no samples: a run keeps them with tracking.log_text=true or evaluation.every_updates, an "
            "evaluation always"
        )
    numbers = {path: int(path.stem.rpartition("-")[2]) for path in files if path.stem.rpartition("-")[2].isdigit()}
    wanted = max(numbers.values(), default=None) if update is None else update
    chosen = [path for path in files if numbers.get(path, wanted) == wanted]
    if not chosen:
        held = ", ".join(map(str, sorted(set(numbers.values()))))
        raise DataError(f"update={update}: {folder} has samples of updates {held}")
    rows = []
    for path in chosen:
        for _, _, row in read_json_lines(path):
            where = {"update": numbers[path]} if path in numbers else {}
            # A run's rollouts are of no benchmark: `training`, and those that stopped it `offending`.
            kind = {"rollouts/update": "training", "rollouts/offending": "offending"}
            name = kind.get(f"{path.parent.name}/{path.stem.rpartition('-')[0]}", "")
            rows.append({"set": name, **where, **row})
    return rows


def select(
    rows: Sequence[Mapping[str, Any]], count: int, name: str | None, status: str | None
) -> list[Mapping[str, Any]]:
    """The first `count` rows of each set, of a set and a status where those are given."""
    kept = [row for row in rows if name in (None, row["set"]) and status in (None, row.get("status"))]
    kept.sort(key=lambda row: str(row["set"]))  # stable
    return [row for _, group in itertools.groupby(kept, lambda row: row["set"]) for row in list(group)[:count]]


def print_sample(row: Mapping[str, Any], console: Console, *, with_text: bool) -> None:
    """One sample: what is known of it in one line, then prompt, trace (dim) and answer (bold)."""
    known = {key: value for key, value in row.items() if key not in NOT_SHOWN and value != ""}
    line = " | ".join(f"{key} {_short(value)}" for key, value in known.items())
    console.print(Text(line, style="cyan"), soft_wrap=True)
    if with_text:
        for part, style in (("prompt", ""), ("trace", "dim"), ("answer", "bold green")):
            if part in row:
                console.print(
                    Text(f"{part}: ", style="bold") + Text(_printable(str(row[part])), style=style), soft_wrap=True
                )
    console.print()


def _printable(text: str) -> str:
    """`text` without what a terminal would obey: a model may write escape codes too."""
    return "".join(one if one in "\n\t" or one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(key: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"{key}={text}: must be a whole number")
    return int(text)
