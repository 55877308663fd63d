"""What a report says of the runs of a sweep: those at work, what tells them apart, how far differences reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_study import training
from test_run_comparison import BASE, compare, made_run

from lrm_safety import cli
from lrm_safety.errors import ConfigError
from lrm_safety.lab.reports.folders import read_run
from lrm_safety.lab.reports.gather import gather
from lrm_safety.lab.reports.record import Report
from lrm_safety.lab.reports.runs import configuration_table
from lrm_safety.lab.reports.sweep import compare as compare_runs
from lrm_safety.lab.reports.sweep import tables
from lrm_safety.lab.reports.tables import Table
from lrm_safety.run_folder import owned


def test_names_that_repeat_are_told_apart_by_their_values_and_many_of_them_by_numbers(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    for i in range(2):
        made_run(tmp_path / "few" / str(i), 0, [0.1, 0.2], kl={"coef": i / 100}, extra=[i, None])
        made_run(tmp_path / "many" / str(i), 0, [0.1, 0.2], **dict.fromkeys(names, i))
    assert [one.name for one in gather([str(tmp_path / "few")]).subjects] == [
        "tiny algorithm.extra=[0, None] algorithm.kl.coef=0.0",
        "tiny algorithm.extra=[1, None] algorithm.kl.coef=0.01",
    ]
    assert [one.name for one in gather([str(tmp_path / "many")]).subjects] == ["tiny (1)", "tiny (2)"]


def test_what_follows_from_a_sweep_is_no_key_in_which_runs_differ() -> None:
    configs = {
        name: [{"run": {"name": name}, "tracking": {"name": name, "tags": [name]}, "trainer": {"lr": lr}}]
        for name, lr in (("a", 1), ("b", 2))
    }
    (table,) = configuration_table(configs)
    assert isinstance(table, Table) and [row[0] for row in table.rows] == ["`trainer.lr`"]


def test_differences_of_shares_of_two_seeds_stay_within_one(tmp_path: Path) -> None:
    """Falls of 0.2 and 0.6: mean -0.4, standard error 0.2, t of one degree 12.706; of KL the same without a bound."""
    for seed, after in enumerate((0.7, 0.3)):
        for name, value, clip in (("tiny", 0.9, 0.2), ("wide", after, 0.3)):
            series = {"train/update": [(4, 4.0)], "evaluation/safety": [(4, value)], "kl/k3": [(4, value)]}
            config = {**BASE, "seed": seed, "algorithm": {"clip_high": clip}, "run": {"directory": f"outputs/{name}"}}
            training(tmp_path / f"{name}-{seed}", series, config)
    found = compare([tmp_path])
    less, half = found.differences(found.rows[1]), 12.7062047 * 0.2
    assert less["safety"] == pytest.approx((-0.4, -1.0, 1.0))
    assert less["KL, nats/token"] == pytest.approx((-0.4, -0.4 - half, -0.4 + half))


def test_runs_at_work_are_not_told_as_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file of records is there, empty, before the first record; an evaluation at update 0 is no update."""
    idle, young, half = tmp_path / "idle", tmp_path / "young", tmp_path / "half"
    with owned(idle, ["train"]), owned(young, ["train"]), owned(half, ["train"]):
        made_run(young, 0, [0.1], clip_high=0.3)
        made_run(half, 0, [0.1, 0.2], clip_high=0.4)
        for file, text in (("config.yaml", json.dumps(BASE | {"trainer": {}, "data": {}})), ("metrics.jsonl", "")):
            (idle / file).write_text(text)
        with pytest.raises(ConfigError, match=r"no run has a record yet: .*idle is still running, no record yet"):
            gather([str(idle)])
        assert gather([str(idle), str(half)]).notes == [
            f"idle: the run in {idle} is still running, no record yet and is left out",
            f"half: the run in {half} is still running, at update 2 of 4",
        ]
        assert cli.main(["report", str(young), "--no-page"]) == 0
        alone = capsys.readouterr().out
        assert f"the run in {young} is still running, no update yet" in alone and "diagnosis:" not in alone
        assert cli.main(["report", str(half), "--no-page"]) == 0
        assert "diagnosis: no failure signature" in capsys.readouterr().out
    assert "half stopped at update 2 of 4" in gather([str(half)]).notes[0], "its owner has left"


def test_how_far_a_run_was_to_come_is_its_own(tmp_path: Path) -> None:
    """Of two seeds one stands at 4 and one at 2 of the 6 that both are to do."""
    made_run(tmp_path / "whole", 0, [0.1, 0.2, 0.3])
    made_run(tmp_path / "half", 1, [0.1, 0.2])
    runs = [read_run(tmp_path / name) for name in ("whole", "half")]
    for run in runs:
        run.config["schedule"]["max_updates"] = 6  # type: ignore[index]
    assert compare_runs(runs).left_out == [f"{tmp_path / 'half'}: stopped at update 2 of 6"]


def test_each_model_of_a_sweep_has_its_own_figures_before_training(tmp_path: Path) -> None:
    """Model a rises from 0.25 to 0.80, and b from 0.79 to 0.80: by the start of a it would seem to have gained 0.55."""
    for model, before in (("a", 0.25), ("b", 0.79)):
        for seed in (0, 1):
            for clip in (0.2, 0.3):
                folder = made_run(tmp_path / "sweep" / f"{model}-{seed}-{clip}", seed, [before, 0.80], clip_high=clip)
                config = yaml.safe_load((folder / "config.yaml").read_text())
                config["model"] = {"name": model, "path": f"made/{model}"}
                config["evaluation"]["every_updates"] = 2 if clip == 0.2 else 1
                (folder / "config.yaml").write_text(yaml.safe_dump(config))
    found = compare([tmp_path / "sweep"])
    assert [(one.name, one.cells["safety"]) for one in found.starts] == [
        ("before training, a", pytest.approx((0.25,) * 3)),
        ("before training, b", pytest.approx((0.79,) * 3)),
    ]
    table = tables([found])[0]
    place = list(table.head).index("safety")
    assert [(str(row[0]).split(" algorithm")[0], row[place]) for row in table.rows][:3] == [
        ("before training, a", "0.250 [–]"),
        ("before training, b", "0.790 [–]"),
        (found.reference.name.split(" algorithm")[0], "0.800 [–]"),
    ]
    assert cli.main(["report", str(tmp_path / "sweep"), f"output={tmp_path / 'report'}"]) == 0
    written = Report.read(tmp_path / "report").configurations
    assert sorted((Path(one.folders[0]).name[0], one.before["safety"].mean) for one in written) == [
        ("a", pytest.approx(0.25)),
        ("a", pytest.approx(0.25)),
        ("b", pytest.approx(0.79)),
        ("b", pytest.approx(0.79)),
    ]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "before training, b" in page and "0.790 [–]" in page


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (
            ({"model": {"name": "m", "path": "x"}}, {"model": {"name": "m", "path": "y"}}),
            ["model.path=x", "model.path=y"],
        ),
        (
            ({"evaluation": {"limit": 8}}, {"evaluation": {"limit": None}}),
            ["evaluation.limit=8", "evaluation.limit=null"],
        ),
        (
            (
                {"model": {"name": "m", **dict.fromkeys("abcd", 1)}},
                {"model": {"name": "m", **dict.fromkeys("abcd", 2)}},
            ),
            ["one", "two"],
        ),
    ],
)
def test_what_was_evaluated_otherwise_before_training_is_told_apart(
    tmp_path: Path, settings: tuple[dict[str, Any], dict[str, Any]], names: list[str]
) -> None:
    for name, changed in zip(("one", "two"), settings, strict=True):
        config = BASE | {"seed": 0, "run": {"directory": f"outputs/{name}"}} | changed
        training(tmp_path / name, {"train/update": [(2, 2.0)], "evaluation/safety": [(0, 0.5), (2, 0.9)]}, config)
    assert [one.name for one in compare([tmp_path]).starts] == [f"before training, {name}" for name in names]


def test_the_start_is_that_of_every_seed_of_a_model_once(tmp_path: Path) -> None:
    """Seed 0 stands under both configurations and counts once; seed 1 is of the other alone: (0.2 + 0.6) / 2."""
    made_run(tmp_path / "a", 0, [0.2, 0.9])
    made_run(tmp_path / "b", 0, [0.2, 0.9], clip_high=0.3)
    made_run(tmp_path / "c", 1, [0.6, 0.9], clip_high=0.3)
    (start,) = compare([tmp_path]).starts
    assert start.name == "before training" and start.cells["safety"][0] == pytest.approx(0.4)


def labelled(folder: Path, tags: list[str], seed: int, **algorithm: Any) -> None:
    """A run as a launcher writes its config.yaml: named like all the others, its overrides as tags."""
    made_run(folder, seed, [0.1, 0.2], **algorithm)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["run"] = {"name": "tiny", "directory": str(folder)}
    config["tracking"] = {"tags": tags}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("tagged", "names"),
    [
        (True, ["tiny algorithm=grpo", "tiny algorithm=rloo"]),
        (False, ["tiny algorithm-grpo", "tiny algorithm-rloo"]),  # of runs of an earlier version
    ],
)
def test_rows_of_a_sweep_over_groups_are_called_after_their_overrides(
    tmp_path: Path, tagged: bool, names: list[str]
) -> None:
    for i, group in enumerate(("grpo", "rloo")):
        for seed in (1, 2):
            tags = ["swept=all", f"algorithm={group}", f"seed={seed}"] if tagged else []
            folder = tmp_path / f"algorithm-{group}__seed-{seed}"
            labelled(folder, tags, seed, **dict.fromkeys(("a", "b", "c", "d"), i))
    assert [row.name for row in compare([tmp_path]).rows] == names
    assert [one.name for one in gather([str(tmp_path)]).subjects] == names


def test_points_without_seeds_are_called_alike(tmp_path: Path) -> None:
    """In the words of the list of points and of W&B."""
    for i, group in enumerate(("grpo", "rloo")):
        labelled(tmp_path / f"algorithm-{group}", [f"algorithm={group}"], 0, a=i)
    assert [row.name for row in compare([tmp_path]).rows] == ["tiny algorithm=grpo", "tiny algorithm=rloo"]


def test_the_reference_of_two_is_no_ablation_though_a_sweep_tags_both(tmp_path: Path) -> None:
    labelled(tmp_path / "a__seed-0", ["no_kl", "ablation=no_kl"], 0, kl={"coef": 0.0})
    labelled(tmp_path / "b__seed-0", ["ablation=none"], 0)
    assert [row.name for row in compare([tmp_path]).rows] == ["tiny ablation=none", "tiny ablation=no_kl"]


def test_a_row_without_a_seed_of_the_reference_is_named(tmp_path: Path) -> None:
    for name, seed, clip in (("a", 0, 0.2), ("b", 0, 0.3), ("c", 1, 0.4)):
        made_run(tmp_path / name, seed, [0.1, 0.2], clip_high=clip)
    found = compare([tmp_path])
    kept, *others = [row.name for row in found.rows]
    assert others[1] == "tiny algorithm.clip_high=0.4"
    caption = tables([found])[1].caption
    assert f"Without a difference, since no seed is one of {kept}: {others[1]}." in caption
    (alone,) = tables([compare([tmp_path / "a", tmp_path / "c"])])
    assert f"Without a difference, since no seed is one of {kept}: {others[1]}." in alone.caption
    assert "Without a difference" not in "".join(
        one.caption for one in tables([compare([tmp_path / "a", tmp_path / "b"])])
    )


def test_what_began_and_left_nothing_is_told(tmp_path: Path) -> None:
    """A command that failed before it had written a configuration, an evaluation without results, one that is at work."""
    made_run(tmp_path / "sweep" / "whole", 0, [0.1, 0.2, 0.3])
    for name in ("failed", "evaluation", "at work", "whole"):
        (tmp_path / "sweep" / name).mkdir(exist_ok=True)
        (tmp_path / "sweep" / name / "environment.json").write_text("{}")
    (tmp_path / "sweep" / "environment.json").write_text("{}")  # as of a study, with its runs below
    (tmp_path / "sweep" / "evaluation" / "config.yaml").write_text("evaluation: {}")
    left_out = "has no record and no result and is left out"
    with owned(tmp_path / "sweep" / "at work", ["evaluate"]):
        assert gather([str(tmp_path / "sweep")]).notes == [
            f"{tmp_path / 'sweep' / 'at work'} is still running, and {left_out}",
            f"{tmp_path / 'sweep' / 'evaluation'} {left_out}",
            f"{tmp_path / 'sweep' / 'failed'} {left_out}",
        ]
    assert gather([str(tmp_path / "sweep" / "whole")]).notes == []
