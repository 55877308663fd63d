"""How a report tells names, intervals and the number of runs: alike on the terminal and on the page."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from made_study import RIGHT, benchmark, evaluation, figure, training
from rich.console import Console
from test_run_comparison import compare, made_run

from lrm_safety import cli
from lrm_safety.commands.report import show_subjects
from lrm_safety.diagnosis.evidence import Finding, Measured
from lrm_safety.lab.reports.combine import Combined, combine
from lrm_safety.lab.reports.figures import dots
from lrm_safety.lab.reports.findings import Seen, diagnose_study
from lrm_safety.lab.reports.gather import gather
from lrm_safety.lab.reports.style import looks_of
from lrm_safety.lab.reports.tables import NO_WIDTH, Table, cell, show
from lrm_safety.terminal import BELOW


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


def test_a_narrow_terminal_shows_what_matters_least_below_and_leaves_nothing_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three evaluations, the third of the second configuration alone, beside all that training tells of."""
    beside = ["KL, nats/token", "refusals", "response tokens", "trace tokens", "seconds"]
    for i, name in enumerate(("one", "two")):
        for seed in (1, 2):
            folder = made_run(tmp_path / "sweep" / f"{name}-{seed}", seed, [0.1, 0.3, 0.9 + seed / 100], clip_high=i)
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for line in lines:
                line |= {"response/trace_length_mean": 20.0 + seed, "response/refusal_rate": seed / 10}
                line |= {f"evaluation/{one}": 0.9 + seed / 100 for one in ("arithmetic", *(["benign"] * i))}
            (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = compare([tmp_path / "sweep"])
    assert found.headings == ["safety", "arithmetic", "benign", *beside] and found.spare == 5
    numbers: dict[int, Counter[str]] = {}
    for width in (80, 100, 120, 160, 400):
        monkeypatch.setenv("COLUMNS", str(width))
        output = tmp_path / f"of-{width}"
        assert cli.main(["report", str(tmp_path / "sweep"), f"output={output}"]) == 0
        out = capsys.readouterr().out
        lines = out.splitlines()
        numbers[width] = Counter(re.findall(r"[+-]?\d+\.\d+", out.partition("report: ")[0]))
        assert all(heading in out for heading in found.headings)
        assert (BELOW in [line.strip() for line in lines]) == (100 <= width < 400), "below 100 rows are stacked"
        assert all(len(line.rstrip()) <= width for line in out.splitlines() if " 0.9" in line), "no row is broken"
    assert all(one == numbers[400] for one in numbers.values()), "every number, once"
    for heading in (*beside, "benign"):
        assert heading in (tmp_path / "of-100" / "report.md").read_text()
    assert cli.main(["report", str(tmp_path / "sweep"), "--no-page"]) == 0


def test_the_table_of_models_shows_every_benchmark_at_120_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What belongs to a number stands below it there: three of `0.920 [0.783, 0.974] (2 runs)` and a name have no room."""
    names = ("math500", "gpqa_diamond", "aime24_and_more")
    for seed in (1, 2):
        entries = {name: benchmark(name, "reasoning", RIGHT, 0.9 + seed / 75) for name in names}
        evaluation(tmp_path / f"seed-{seed}", entries, seed)
    monkeypatch.setenv("COLUMNS", "120")
    name = "a_model_whose_name_has_forty_letters_" + 3 * "x"
    assert cli.main(["report", f"{name}={tmp_path}", "--no-page"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:1] == ["model"])
    assert lines[at - 1] == [*names] and lines[at] == ["model", *3 * ["(reasoning)"]]
    assert lines[at + 2][:2] == [name, "0.920"] and len(lines[at + 2]) == 10 and lines[at + 3] == 3 * ["(2", "runs)"]


@pytest.mark.parametrize(
    ("last", "seen"),
    [
        # A fall of 0.06 with a half width of 1.96 x sqrt(0.98 x 0.02 / 100 + 0.92 x 0.08 / 100) = 0.0598; 0.03 of both: below 0.05.
        ((0.92, 0.98), None),
        # 0.98 to 0.84 and to 0.96: the mean of 0.90 is a fall of 0.08, half width 0.065
        ((0.84, 0.96), (1, 2)),
        ((0.84, 0.84), (2, 2)),
        ((0.92,), (1, 1)),
    ],
)
def test_what_one_seed_shows_by_chance_is_no_finding_of_all(
    tmp_path: Path, last: tuple[float, ...], seen: tuple[int, int] | None
) -> None:
    for seed, value in enumerate(last):
        series = {"train/update": [(8, 8.0)], "evaluation/benign": [(0, 0.98), (8, value)]}
        series["evaluation/benign/num_questions"] = [(0, 100.0), (8, 100.0)]
        training(tmp_path / f"seed-{seed}", series, {"seed": seed})
    found = diagnose_study(gather([f"tiny={tmp_path}"]))
    assert [(one.finding.rule, one.num_seen, one.num_runs) for one in found] == (
        [("over_refusal", *seen)] if seen else []
    )
