"""docs/tutorials, followed from an empty folder: every command is run, and prints what the page shows but for the numbers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import Block, blocks, composes, save_files
from running import Command, all_metric_lines

from lrm_safety.cli import main

pytestmark = pytest.mark.timeout(900)

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
ORDER = ("train", "evaluate", "compare", "analyse", "reward", "sweep")
"""Each goes on with what those before it left."""
NOT_RUN = ("With a real model on GPUs", "The same with RL")
"""Sections whose commands are composed instead."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mine")


def masked(text: str) -> str:
    """Without what another machine may show otherwise: numbers, widths, rules of tables."""
    return re.sub(r"[-+]?\d[\d,.]*(e[-+]?\d+)?", "#", " ".join(text.replace("─", "").split()))


def shown(block: Block) -> Iterator[str]:
    """What every line of an expected output has to begin with: as far as the page shows it, and no text of a model."""
    for line in block.text.splitlines():
        if line.strip() not in ("", "..."):
            yield masked(re.sub(r"^(trace|answer): .*", r"\1:", line).removesuffix("...")).strip()


def run(line: str, folder: Path) -> Command:
    command = Command(folder, shlex.split(line)[1:], COLUMNS="120")
    try:
        assert command.wait(600) == 0, command.output
    finally:
        command.close()
    return command


def test_every_tutorial_is_followed() -> None:
    assert sorted(ORDER) == sorted(page.stem for page in TUTORIALS.glob("*.md"))


@pytest.mark.parametrize("name", ORDER)
def test_a_tutorial_shows_what_its_commands_print(name: str, folder: Path) -> None:
    page = TUTORIALS / f"{name}.md"
    save_files(page, folder)
    output: list[str] = []
    for block in blocks(page):
        if block.section in NOT_RUN:
            continue
        if block.language == "bash":
            output = [masked(part) for line in block.lines for part in run(line, folder).output.splitlines()]
        elif block.language == "text" and not block.title:
            assert [line for line in shown(block) if not any(one.startswith(line) for one in output)] == [], output
    if name == "train":
        trained = [line for line in all_metric_lines(folder / "outputs" / "mine") if "reward/raw_mean" in line]
        first, last = (sum(line["reward/raw_mean"] for line in some) for some in (trained[:3], trained[-3:]))
        assert last > first + 0.3, "the mean of three iterations rose by more than 0.1"
    if name == "compare":
        safety = {
            one: json.loads((folder / "outputs" / one / "results.json").read_text())["benchmarks"]["forbidden"]
            for one in ("base", "rl", "sft_evaluation")
        }
        values = {one: found["figures"]["safety/miniature/full"]["value"] for one, found in safety.items()}
        assert values["base"] + 0.2 < min(values["rl"], values["sft_evaluation"])


@pytest.mark.parametrize(
    "line",
    [
        line
        for name in ORDER
        for block in blocks(TUTORIALS / f"{name}.md")
        if block.section in NOT_RUN and block.language == "bash"
        for line in block.lines
    ],
)
def test_a_command_for_gpus_composes(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_files(TUTORIALS / "train.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    program, command, *arguments = shlex.split(line)
    assert program == "lrm-safety"
    if command == "plan" or "--steps" in arguments:
        assert main([command, *arguments]) == 0, capfd.readouterr().err
    else:
        assert composes(command, arguments), capfd.readouterr().err
