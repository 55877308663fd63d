"""How a report tells names, intervals and the number of runs: alike on the terminal and on the page."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from made_study import figure
from rich.console import Console
from test_run_comparison import made_run

from lrm_safety import cli
from lrm_safety.commands.report import show_subjects
from lrm_safety.diagnosis.evidence import Finding, Measured
from lrm_safety.lab.reports.combine import Combined, combine
from lrm_safety.lab.reports.figures import dots
from lrm_safety.lab.reports.findings import Seen
from lrm_safety.lab.reports.style import looks_of
from lrm_safety.lab.reports.tables import NO_WIDTH, Table, cell, show


def on_the_page(folder: Path) -> str:
    """The text of report.html."""
    return " ".join(re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text()).split())


def test_at_a_glance_seeds_that_agree_have_no_interval(tmp_path: Path) -> None:
    """Two seeds of 0.97 each tell nothing of a third; of 0.95 and 0.97 there is an interval."""
    for seed in (1, 2):
        made_run(tmp_path / "alike" / f"{seed}", seed, [0.1, 0.97, 0.97])
        made_run(tmp_path / "apart" / f"{seed}", seed, [0.1, 0.97, 0.93 + 0.02 * seed])
    for name in ("alike", "apart"):
        assert cli.main(["report", f"{name}={tmp_path / name}", f"output={tmp_path / 'report'}"]) == 0
        said = on_the_page(tmp_path / "report")
        assert "0.970 to 0.970" not in said and "0.970, 0.970" not in said
        wanted = (
            r"safety 0\.100 → 0\.970 \(no interval: all alike\)" if name == "alike" else r"→ 0\.960 \(0\.\d+ to 0\."
        )
        assert re.search(wanted, said)


def test_no_picture_shows_a_width_that_cannot_be_seen() -> None:
    alike = combine([figure(0.97), figure(0.97)], share=True)
    one = Combined(0.97, 0.97, 0.97, 10**9, 1)
    assert alike is not None and alike.ends is None and one.ends == (0.97, 0.97), (
        "of one evaluation it is what was measured"
    )
    drawn = dots({"rl": alike}, looks_of(["rl"]), title="", x_label="")
    (tip,) = [line.get_gid() for line in drawn.axes[0].get_lines() if line.get_gid()]
    assert tip == "tip: rl: 0.970"
    assert NO_WIDTH in cell(alike).small and NO_WIDTH not in cell(one).small


def test_the_terminal_says_in_how_many_runs_a_finding_was_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed 2 alone runs away from its reference: 2 nats a token, above 1."""
    for seed in (1, 2):
        folder = made_run(tmp_path / "sweep" / f"{seed}", seed, [0.1, 0.5, 0.9])
        if seed == 2:
            text = (folder / "metrics.jsonl").read_text()
            (folder / "metrics.jsonl").write_text(text.replace('"kl/k3": 0.02', '"kl/k3": 2.0'))
    assert cli.main(["report", str(tmp_path / "sweep"), f"output={tmp_path / 'report'}"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("FAIL kl_blow_up")]
    often = "the policy has left the model that could reason. Seen in 1 of 2 runs, the worst shown."
    assert line.endswith(often) and often in on_the_page(tmp_path / "report")
    assert cli.main(["report", str(tmp_path / "sweep" / "2"), "--no-page"]) == 0
    assert "Seen in" not in capsys.readouterr().out, "of one run it says nothing"


def test_names_reach_the_terminal_as_they_are() -> None:
    """A value in square brackets is no markup, and numbers of a name have no colour of their own."""
    name = "tiny algorithm.extra=[red, 1] trainer.lr=1e-06"
    finding = Finding("kl_blow_up", "warn", "seen.", (Measured("kl/k3", 0.5, "x"),), "none")
    file = io.StringIO()
    show_subjects(
        [Seen(name, finding, 1, 1)], Console(file=file, width=200, force_terminal=True, color_system="standard")
    )
    assert file.getvalue().splitlines()[0] == f"\x1b[1m{name}\x1b[0m"
    file = io.StringIO()
    table = Table("t", f"Difference from {name}.", ["run", "[red]"], [[name, "1"]])
    show(table, Console(file=file, width=200))
    assert " ".join(file.getvalue().split()).startswith(f"Difference from {name}. run [red] ─")


def test_a_run_that_is_left_out_is_told_though_a_longer_name_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run-1` repeats the seed of `a`; `run-10` stopped and is told of as a run of its row already."""
    for name, seed, updates in (("a", 1, 3), ("run-1", 1, 3), ("run-10", 2, 2)):
        made_run(tmp_path / name, seed, [0.1, 0.5, 0.9][:updates])
    assert cli.main(["report", str(tmp_path), "--no-page"]) == 0
    out = capsys.readouterr().out
    assert f"left out: {tmp_path / 'run-1'}: repeats seed 1 of {tmp_path / 'a'}" in out
    assert out.count(str(tmp_path / "run-10")) == 1


def test_a_folder_in_square_brackets_is_told_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "[red]"
    assert cli.main(["report", str(made_run(tmp_path / "run", 0, [0.1, 0.2, 0.3])), f"output={output}"]) == 0
    assert f"report: {output}/report.html" in capsys.readouterr().out
