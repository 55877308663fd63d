"""Fenced blocks of the written pages: what a reader saves, types and sees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrm_safety.cli import main
from lrm_safety.settings.compose import sweep


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    title: str
    """The file that it is to be saved as; empty for a block that is none."""
    text: str
    section: str
    """The heading (`## ...`) above it; empty before the first one."""

    @property
    def lines(self) -> list[str]:
        """Without empty ones, comments and the backslashes that join lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found, section = [], ""
    pattern = re.compile(r'^## ([^\n]+)$|^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
    for match in pattern.finditer(page.read_text(encoding="utf-8")):
        heading, language, title, text = match.groups()
        if heading:
            section = heading
        else:
            found.append(Block(language, title or "", text, section))
    return found


def save_files(page: Path, folder: Path) -> None:
    """Save the files of a page, as its reader does."""
    for block in blocks(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def commands(page: Path) -> list[str]:
    """The lines of the bash blocks of a page."""
    return [line for block in blocks(page) if block.language == "bash" for line in block.lines]


def composes(command: str, arguments: Sequence[str]) -> bool:
    """Whether a configured command accepts its arguments; `--cfg job` prints what would run and starts nothing."""
    given = [word for word in arguments if word not in ("-m", "--cfg", "job")]
    runs = sweep(given) if "-m" in arguments else [given]
    return all(main([command, *one, "--cfg", "job"]) == 0 for one in runs)
