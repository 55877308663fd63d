"""Every command that README.md shows works: it composes here, or another test runs it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from pages import commands, composes

from lrm_safety.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RUN_ELSEWHERE = {
    "make demo": ("end_to_end/test_runs.py", "test_the_demo_shows_before_and_after"),
    "lrm-safety report": ("unit/lab/reports/test_report_html.py", "test_a_run_alone_is_shown_before_and_after"),
    "make setup": ("unit/test_install.py", "test_the_build_is_taken_from_the_first_place_that_has_it"),
    "source .venv/bin/activate": ("unit/test_install.py", "test_a_python_that_works_is_found_by_itself"),
    "lrm-safety doctor": ("unit/commands/test_doctor.py", "test_arguments_are_refused_or_answered"),
    "make test": ("end_to_end/test_readme.py", "test_the_makefile_knows_the_targets"),
    "lrm-safety fetch smollm2_135m": ("end_to_end/test_runs.py", "test_a_real_model_on_real_prompts"),
    "lrm-safety samples": ("unit/commands/test_samples.py", "test_text_is_shown_after_consent_alone"),
    "lrm-safety export": ("unit/commands/test_export_command.py", "test_what_is_exported_and_where"),
    "lrm-safety submit": ("end_to_end/test_cluster.py", "test_jobs_on_a_cluster_are_the_run_of_one_machine"),
}
"""Beginnings of commands that cannot be composed, with the test that runs the same."""

COMPOSED = ("evaluate", "sft", "analyze", "audit-reward", "study")
"""Commands that print what they would run with `--cfg job`."""


@pytest.mark.parametrize("line", commands(README))
def test_a_command_of_the_readme(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line, comments=True)
    if "train" in words:
        assert composes("train", words[words.index("train") + 1 :]), capfd.readouterr().err
    if words[0] == "lrm-safety" and words[1] in COMPOSED:
        assert composes(words[1], words[2:]), capfd.readouterr().err
    elif words[0] == "lrm-safety" and words[1] == "plan":
        assert main(words[1:]) == 0, capfd.readouterr().err
    elif words[:2] != ["lrm-safety", "train"]:
        (test,) = [test for beginning, test in RUN_ELSEWHERE.items() if line.startswith(beginning)]
        file, name = test
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page",
    [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda page: page.name,
)
def test_no_command_needs_quotes_in_another_shell(page: Path) -> None:
    """zsh takes brackets outside quotes for patterns and refuses those that match no file."""
    for line in commands(page):
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"|#.*", "", line)
        assert not set("[]*?{}") & set(unquoted), line


def test_readme_shows_the_ordinary_commands() -> None:
    assert {"make demo", "make test", "lrm-safety train experiment=miniature"} <= set(commands(README))


def test_the_makefile_knows_the_targets() -> None:
    """`make test` is what runs this test, so that running it here would not end."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {words[1] for line in commands(README) if (words := line.split())[0] == "make"}
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
