"""The runs of a multirun as one table; every expected number is worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_study import training

from lrm_safety import cli
from lrm_safety.commands.multirun import report_sweep
from lrm_safety.errors import ConfigError
from lrm_safety.lab.reports.folders import TrainingRun
from lrm_safety.lab.reports.gather import gather
from lrm_safety.lab.reports.record import Report
from lrm_safety.lab.reports.sweep import Comparison, cell, changes, places_of, tables
from lrm_safety.lab.reports.sweep import compare as compare_runs

BASE = {
    "model": {"name": "tiny"},
    "algorithm": {"kl": {"coef": 0.05}, "clip_high": 0.2},
    "schedule": {"max_updates": 4},
}


def compare(folders: list[Path]) -> Comparison:
    """The runs in and below the folders by configuration."""
    return compare_runs(gather([str(folder) for folder in folders]).every_run)


def made_run(folder: Path, seed: int, safety: list[float], name: str = "tiny", **algorithm: Any) -> Path:
    """A run with an evaluation every two updates; seconds are 10 an iteration, lengths and KL constant. One of another name
    than `tiny` is an ablation."""
    tags = [] if name == "tiny" else [name]
    config = {**BASE, "seed": seed, "run": {"directory": f"outputs/{name}"}, "tracking": {"tags": tags}}
    config["algorithm"] = {**BASE["algorithm"], **algorithm}
    updates = [2 * i for i in range(len(safety))]
    series = {
        "evaluation/safety": list(zip(updates, safety, strict=True)),
        "evaluation/safety/rate/cut_off": [(0, 0.1)],
    }
    for metric, value in (
        ("train/update", None),
        ("time/iteration_seconds", 10.0),
        ("kl/k3", 0.02),
        ("response/length_mean", 50.0 + seed),
    ):
        series[metric] = [(update, float(update) if value is None else value) for update in updates]
    return training(folder, series, config)


@pytest.mark.parametrize(("passes", "planned"), [(None, 500), (3.0, 500), (2.0, 96), (1.9, 96)])
def test_a_run_that_made_its_passes_came_as_far_as_was_planned(passes: float | None, planned: int) -> None:
    """96 updates were 2 passes over its rows, and of 500 updates."""
    series = {"train/update": [(96, 96.0)], "train/passes": [(48, 1.0), (96, 2.0)]}
    run = TrainingRun(Path("run"), series, {"schedule": {"max_updates": 500, "passes": passes}})
    assert (run.updates, run.planned_updates) == (96, planned)


def logit_ends(mean: float, error: float) -> tuple[float, float]:
    """Student's interval of three seeds on the logit scale."""
    low, high = (math.log(mean / (1 - mean)) + sign * 4.3026527 * error / (mean * (1 - mean)) for sign in (-1, 1))
    return 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, (plain, free, wide) in enumerate([(0.90, 0.80, 0.91), (0.92, 0.84, 0.93), (0.97, 0.85, 0.98)]):
        folder = tmp_path / "sweep"
        made_run(folder / f"experiment=ablation/no_kl,seed={seed}", seed, [0.1, 0.5, free], "no_kl", kl={"coef": 0.0})
        made_run(folder / f"experiment=tiny,seed={seed}", seed, [0.1, 0.6, plain])
        made_run(folder / f"experiment=ablation/wide,seed={seed}", seed, [0.1, 0.6, wide], "wide", clip_high=0.28)
    return tmp_path / "sweep"


def test_seeds_are_one_row_and_the_unchanged_runs_the_reference(sweep: Path) -> None:
    found = compare([sweep])
    assert [row.name for row in found.rows] == ["tiny", "no_kl", "wide"]
    assert [dict(row.changed) for row in found.rows] == [{}, {"algorithm.kl.coef": 0.0}, {"algorithm.clip_high": 0.28}]
    assert [len(row.runs) for row in found.rows] == [3, 3, 3] and not found.left_out
    assert found.headings == ["safety", "KL, nats/token", "response tokens", "seconds"]


def test_the_table_says_what_each_configuration_changed(sweep: Path, tmp_path: Path) -> None:
    def changed(folder: Path) -> list[object]:
        (table, *_) = tables([compare([folder])])
        return [row[1] for row in table.rows]

    kept = "(the reference)"
    assert changed(sweep) == ["", kept, "algorithm.kl.coef=0.0", "algorithm.clip_high=0.28"], "before training first"
    made_run(tmp_path / "alone", 0, [0.1, 0.9])
    assert changed(tmp_path / "alone") == ["", "–"]


def test_of_two_configurations_the_reference_is_the_one_that_is_no_ablation(tmp_path: Path) -> None:
    made_run(tmp_path / "ablation", 0, [0.1, 0.2], "no_kl", kl={"coef": 0.0})
    made_run(tmp_path / "plain", 0, [0.1, 0.5])
    found = compare([tmp_path])
    assert [row.name for row in found.rows] == ["tiny", "no_kl"]
    assert found.differences(found.rows[1])["safety"][0] == pytest.approx(-0.3)


def test_mean_and_interval_over_seeds(sweep: Path) -> None:
    found = compare([sweep])
    mean, low, high = found.reference.cells()["safety"]
    # 0.90, 0.92, 0.97: mean 0.93, deviations -0.03, -0.01, 0.04: variance 0.0026 / 2; t of two degrees 4.303
    # (of a share on the logit scale)
    assert (mean, low, high) == pytest.approx((0.93, *logit_ends(0.93, math.sqrt(0.0013 / 3))))
    cells = found.reference.cells()
    assert cells["response tokens"][0] == pytest.approx(51) and cells["KL, nats/token"] == pytest.approx((0.02,) * 3)
    assert cells["seconds"] == pytest.approx((30.0,) * 3)
    assert found.before(found.reference)["safety"] == pytest.approx((0.1,) * 3)


def test_every_column_of_shares_has_an_interval_within_0_and_1(tmp_path: Path) -> None:
    """Refusals of 0.01 and 0.60: mean 0.305, standard error 0.295, t of one degree 12.706."""
    for seed, refusals in ((1, 0.01), (2, 0.60)):
        series = {"train/update": [(4, 4.0)], "response/refusal_rate": [(4, refusals)], "kl/k3": [(4, refusals)]}
        training(tmp_path / f"seed-{seed}", series, {**BASE, "seed": seed})
    cells = compare([tmp_path]).reference.cells()
    log_odds, half = math.log(0.305 / 0.695), 12.7062047 * 0.295 / (0.305 * 0.695)
    ends = [1 / (1 + math.exp(-(log_odds + sign * half))) for sign in (-1, 1)]
    assert cells["refusals"] == pytest.approx((0.305, *ends)) and 0 <= ends[0] < ends[1] <= 1
    kl = cells["KL, nats/token"]
    assert kl == pytest.approx((0.305, 0.0, 0.305 + 12.7062047 * 0.295)), "nats are no share, and not below 0"


def test_seeds_that_agree_have_a_dash_for_an_interval_and_the_caption_says_why(tmp_path: Path) -> None:
    made_run(tmp_path / "1", 1, [0.1, 0.97])
    (alone,) = tables([compare([tmp_path])])
    assert "[–]" not in alone.caption
    made_run(tmp_path / "2", 2, [0.1, 0.97])
    (table,) = tables([compare([tmp_path])])
    place = list(table.head).index("safety")
    assert [row[place] for row in table.rows] == ["0.100 [–]", "0.970 [–]"]
    assert "[–]: no interval, since the seeds" in table.caption


def test_seconds_are_those_after_each_start(tmp_path: Path) -> None:
    """Two starts of 200 and 100 seconds, two iterations of 11 and 12."""
    series = {
        "train/update": [(1, 1.0), (2, 2.0)],
        "time/iteration_seconds": [(1, 211.0), (2, 112.0)],
        "time/startup_seconds": [(1, 200.0), (2, 100.0)],
    }
    found = compare([training(tmp_path / "run", series, BASE)])
    assert found.reference.cells()["seconds"] == (23.0, None, None)
    assert "after the start" in tables([found])[0].caption


def test_differences_are_paired_by_seed(sweep: Path) -> None:
    found = compare([sweep])
    # -0.10, -0.08, -0.12: mean -0.10, variance 0.0008 / 2
    half = 4.3026527 * math.sqrt(0.0004 / 3)
    assert found.differences(found.rows[1])["safety"] == pytest.approx((-0.1, -0.1 - half, -0.1 + half))
    assert found.differences(found.rows[2])["safety"] == pytest.approx((0.01, 0.01, 0.01)), (
        "seeds vary, the gain does not"
    )


def test_seeds_that_only_one_has_are_not_paired(sweep: Path) -> None:
    made_run(sweep / "one more", 9, [0.1, 0.1, 0.1], "no_kl", kl={"coef": 0.0})
    found = compare([sweep])
    assert len(found.rows[1].runs) == 4
    assert found.differences(found.rows[1])["safety"][0] == pytest.approx(-0.1)


def test_the_evaluation_before_training_is_counted_once_a_seed(sweep: Path) -> None:
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        made_run(sweep / f"experiment=tiny,seed={seed}", seed, [value, 0.6, 0.9])
    # 0.1, 0.2, 0.3 of the reference alone: variance 0.02 / 2
    (start,) = compare([sweep]).starts
    assert start.cells["safety"] == pytest.approx((0.2, *logit_ends(0.2, math.sqrt(0.01 / 3))))


def test_a_run_counts_once_and_a_seed_counts_once(sweep: Path) -> None:
    again = made_run(sweep / "z again", 1, [0.1, 0.6, 0.5])
    found = compare([sweep, sweep / "experiment=tiny,seed=0"])
    assert len(found.reference.runs) == 3 and found.reference.cells()["safety"][0] == pytest.approx(0.93)
    assert found.left_out == [f"{again}: repeats seed 1 of {sweep / 'experiment=tiny,seed=1'}"]


def test_a_reward_training_beside_the_runs_is_none_of_them(sweep: Path) -> None:
    reward = training(sweep / "a reward", {"loss": [(1, 0.7), (2, 0.6)]})
    (reward / "results.json").write_text(json.dumps({"base": "made/up", "head_is_new": True}))
    assert [len(row.runs) for row in compare([sweep]).rows] == [3, 3, 3]
    with pytest.raises(ConfigError, match=r"a reward: is the training of a reward model \(lrm-safety reward\)"):
        compare([reward])


def test_a_run_that_stopped_early_is_left_out_and_named(sweep: Path) -> None:
    made_run(sweep / "experiment=tiny,seed=0", 0, [0.1, 0.6])
    found = compare([sweep])
    (line,) = found.left_out
    assert "experiment=tiny,seed=0: stopped at update 2 of 4" in line
    assert len(found.reference.runs) == 2


def test_a_run_without_a_record_is_named(sweep: Path) -> None:
    for name, text in (("a torn start", json.dumps(BASE | {"trainer": {}, "data": {}})), ("an evaluation", "{}")):
        (sweep / name).mkdir()
        (sweep / name / "config.yaml").write_text(text)
    found = compare([sweep])
    assert found.left_out == [f"{sweep / 'a torn start'}: stopped before its first record"] and len(found.rows) == 3


def test_a_configuration_without_a_record_is_no_reference(tmp_path: Path) -> None:
    """Two configurations differ from each other alike; the first one stopped before its first record."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text(json.dumps(BASE | {"trainer": {}, "data": {}}))
    made_run(tmp_path / "b", 0, [0.1, 0.6], clip_high=0.3)
    found = compare([tmp_path])
    assert found.left_out == [f"{tmp_path / 'a'}: stopped before its first record"]
    assert not found.reference.changed and [row.runs[0].folder.name for row in found.rows] == ["b"]


def test_one_run_has_the_interval_of_its_questions(tmp_path: Path) -> None:
    for i, clip in enumerate((0.2, 0.3)):
        folder = made_run(tmp_path / str(i), 0, [0.1, 0.2, 0.3 + i / 10], clip_high=clip)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"update": 4, "evaluation/safety/num_questions": 100}) + "\n")
    found = compare([tmp_path / "0", tmp_path / "1"])
    assert [row.name for row in found.rows] == ["tiny algorithm.clip_high=0.2", "tiny algorithm.clip_high=0.3"]
    # Wilson's interval of 40 of 100: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    z = 1.959963984540054
    half = z * math.sqrt(0.24 / 100 + z * z / 40000)
    ends = [(0.4 + z * z / 200 + sign * half) / (1 + z * z / 100) for sign in (-1, 1)]
    assert found.rows[1].cells()["safety"] == pytest.approx((0.4, *ends))
    # two independent shares of 100 questions: variances add
    half = z * math.sqrt(0.24 / 100 + 0.21 / 100)
    assert found.differences(found.rows[1])["safety"] == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert found.rows[1].cells()["seconds"] == (30.0, None, None)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, {"b.c": 3}),
        ({"a": 1}, {}, {"a": None}),
        ({}, {"a": 1}, {"a": 1}),
        # another reward is one change, not every key of both
        (
            {"models": {"skywork": {"path": "x", "kind": "y"}}},
            {"models": {"phrases": {"kind": "z"}}},
            {"models": ["phrases"]},
        ),
    ],
)
def test_changes(old: dict[str, Any], new: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changes(old, new) == expected


@pytest.mark.parametrize(
    ("one", "places", "signed", "text"),
    [
        (None, 3, False, "–"),
        ((0.93, None, None), 3, False, "0.930"),
        ((0.9314, 0.9014, 0.9614), 3, False, "0.931 [0.901, 0.961]"),
        ((-0.1, -0.15, -0.05), 3, True, "-0.100 [-0.150, -0.050]"),
        ((2.8e-06, 0.0, 0.0), 3, True, "+0.000 [–]"),
        ((133.4, 3.2, 263.6), 0, False, "133 [3, 264]"),
    ],
)
def test_cells(one: Any, places: int, signed: bool, text: str) -> None:
    assert cell(one, places, signed=signed) == text


def test_a_column_has_one_number_of_decimals() -> None:
    assert [places_of(one) for one in ([0.02, 0.93], [133.0, 2.0], [12.0], [0.002, 0.0], [])] == [3, 0, 1, 4, 4]


def test_the_command_prints_and_writes(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep.parent)
    assert cli.main(["report", "sweep", "--no-page"]) == 0
    out = capsys.readouterr().out
    assert "algorithm.kl.coef=0.0" in out and "0.930 [0.770, 0.981]" in out and "before training" in out
    assert "paired by seed" in out and "-0.100 [-0.150, -0.050]" in out and "diagnosis: " in out
    assert max(map(len, out.splitlines()[2:6])) <= 80, "a log of 80 columns breaks between figures alone"
    assert sorted(path.name for path in sweep.parent.iterdir()) == ["sweep"], "nothing is written"
    assert cli.main(["report", str(sweep), "output=elsewhere"]) == 0
    assert capsys.readouterr().out.startswith(out), "the page comes on top"
    text = Path("elsewhere/report.md").read_text()
    assert "| no_kl | algorithm.kl.coef=0.0 | 3 | 0.830 [0.754, 0.886] | 0.0200 [–] |" in text
    found = Report.read(Path("elsewhere"))
    assert [row.name for row in found.configurations] == ["tiny", "no_kl", "wide"]
    assert found.configurations[1].seeds == (0, 1, 2)
    assert found.configurations[1].figures["safety"].mean == pytest.approx(0.83)
    assert found.configurations[1].differences["safety"].mean == pytest.approx(-0.1)
    page = Path("elsewhere/report.html").read_text()
    assert "0.830 [0.754, 0.886]" in page and "-0.100 [-0.150, -0.050]" in page


@pytest.mark.parametrize("parent_is_a_run", [False, True])
def test_the_table_of_a_sweep_is_of_its_points_alone(
    sweep: Path, capsys: pytest.CaptureFixture[str], parent_is_a_run: bool
) -> None:
    """Seeds 0 and 1 of one of three configurations, 0.90 and 0.92: 0.91, and not 0.93 with the third."""
    if parent_is_a_run:  # as after `-m` with one value of everything
        made_run(sweep, 9, [0.1, 0.5])
    runs = [path.parent for path in sorted(sweep.rglob("metrics.jsonl")) if path.parent != sweep]
    mine = [run for run in runs if yaml.safe_load((run / "config.yaml").read_text())["seed"] < 2 and "tiny" in str(run)]
    assert len(mine) == 2 and len(runs) > 2
    asked = [(run, yaml.safe_load((run / "config.yaml").read_text())) for run in mine]
    other = next(run for run in runs if run not in mine)
    asked.append((other, {**asked[0][1], "seed": 7}))
    report_sweep(sweep, [*asked, (sweep / "refused", {})])
    out = capsys.readouterr().out
    assert f"2 of 4 points have no run of what was asked for: {other.relative_to(sweep)}, refused" in out
    assert "2 of 4 points" in (sweep / "report/report.html").read_text()
    found = Report.read(sweep / "report")
    assert [(row.name, row.seeds) for row in found.configurations] == [("tiny", (0, 1))]
    others = len(runs) - 2 + parent_is_a_run
    assert f" and {others - 1} more, no points of this sweep; `lrm-safety report {sweep}` takes all" in out
    assert found.configurations[0].figures["safety"].mean == pytest.approx(0.91)


def test_brackets_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, models in enumerate(({"guard": {}}, {"phrases": {}})):
        folder = made_run(tmp_path / str(i), 0, [0.1, 0.2])
        config = {**BASE, "seed": 0, "run": {"directory": f"outputs/{i}"}, "reward": {"models": models}}
        (folder / "config.yaml").write_text(json.dumps(config))
    assert cli.main(["report", str(tmp_path), "--no-page"]) == 0
    assert "reward.models=[phrases]" in capsys.readouterr().out


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="nor does a folder below it"):
        compare([tmp_path])
    with pytest.raises(ConfigError, match="no such folder"):
        compare([tmp_path / "absent"])
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text(json.dumps(BASE | {"trainer": {}, "data": {}}))
    with pytest.raises(ConfigError, match=r"no run has a record yet: .*begun stopped before its first record"):
        compare([tmp_path])
    for arguments, said in ((["report"], "at least one folder"), (["report", "--all", "x"], "not --all")):
        assert cli.main(arguments) == 1
        assert said in capsys.readouterr().err


EVALUATION = Path(__file__).parents[2] / "results_of_format_1" / "results.json"


def test_folders_of_any_kind_in_any_mix(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = sweep.parent / "one", sweep.parent / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "results.json").write_bytes(EVALUATION.read_bytes())
    assert cli.main(["report", str(one), str(two), "--no-page"]) == 0
    alone = capsys.readouterr().out
    assert "two less one" in alone and "+0.000" in alone and "paired by seed" not in alone
    assert cli.main(["report", str(one), str(sweep), str(two), "--no-page"]) == 0
    both = capsys.readouterr().out
    assert "two less one" in both and "paired by seed" in both
    assert sorted(path.name for path in one.iterdir()) == ["results.json"], "an evaluation's folder is left as it is"


def test_below_a_folder_everything_is_found_and_named(tmp_path: Path) -> None:
    """A study's methods by their names, seeds of one evaluation under one, runs by configuration."""
    for seed in (0, 1):
        made_run(tmp_path / "study" / "rl" / f"seed-{seed}" / "run", seed, [0.1, 0.9])
        for place in (
            f"study/base/seed-{seed}/evaluation",
            f"study/rl/seed-{seed}/evaluation",
            f"eval/small__seed-{seed}",
        ):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "results.json").write_bytes(EVALUATION.read_bytes())
    found = gather([str(tmp_path / "study")])
    assert [(one.name, len(one.runs), len(one.evaluations)) for one in found.subjects] == [("base", 0, 2), ("rl", 2, 2)]
    assert [(one.name, len(one.evaluations)) for one in gather([str(tmp_path / "eval")]).subjects] == [("small", 2)]
    assert [one.name for one in gather([f"mine={tmp_path / 'eval'}"]).subjects] == ["mine"]


def test_rows_of_a_sweep_are_called_after_their_runs_not_after_one_seed(tmp_path: Path) -> None:
    """As a sweep writes config.yaml: each run's folder is its own, and holds its seed."""
    for name, swept in (("tiny", "experiment-tiny"), ("tiny-no_kl", "experiment-no_kl")):
        for seed in (0, 1):
            folder = tmp_path / "sweep" / f"{swept}__seed-{seed}"
            coef = 0.0 if name.endswith("no_kl") else 0.01
            made_run(folder, seed, [0.1, 0.5, 0.9], name, kl={"coef": coef})
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["run"] = {"name": name, "directory": str(folder)}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert sorted(row.name for row in compare([tmp_path / "sweep"]).rows) == ["tiny", "tiny-no_kl"]
