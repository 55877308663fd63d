"""The summary: figures of finished folders, means and intervals over seeds worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_study import analysed, benchmark, evaluation, figure, memorized, reflected

from lrm_safety.lab.study.steps import analysis_of, models_of
from lrm_safety.lab.study.summary import OverSeeds, summarise
from lrm_safety.results import MemorizationCell, Metric, Reflection, ReflectionCell
from lrm_safety.settings.study import StudyOverridesSettings, StudyRunSettings, StudySettings, SummarySettings

SAFETY = {"base": (0.1, 0.2), "sft": (0.8, 0.9), "rl": (0.9, 1.0)}


def cell(reader: str, writer: str, benchmark: str, value: float) -> ReflectionCell:
    figures = {"emit/token_mean": figure(value), "reflections/per_response": Metric(None, None, None, 0)}
    return ReflectionCell(reader, writer, benchmark, 1.0, 100, figures, ())


@pytest.fixture
def study(tmp_path: Path) -> StudySettings:
    settings = StudySettings(
        run=StudyRunSettings(directory=str(tmp_path)),
        seeds=[5, 6],
        overrides=StudyOverridesSettings(sft=["x"], rl=["x"]),
        summary=SummarySettings(safety="forbidden", reasoning=["sums"], harmless="benign"),
    )
    for model in models_of(settings):
        safe = SAFETY[model.method][model.seed - 5]
        figures = {f"safety/mine/{view}": figure(safe - 0.01 * i) for i, view in enumerate(("full", "trace", "answer"))}
        right = benchmark("made", "reasoning", "pass@1", 0.5, figures={"rate/cut_off": figure(0.1)})
        forbidden = benchmark("made", "safety", "safety/mine/full", safe, figures=figures)
        asked = replace(right, kind="over_refusal")
        evaluation(
            model.evaluation, {"forbidden": forbidden, "sums": right, "benign": right, "asked": asked}, model.seed
        )
    for seed in settings.seeds:
        folder = analysis_of(settings, seed)
        folder.mkdir(parents=True)
        # A model's entropy is the one on its own responses; the first of two temperatures.
        cells = [cell("rl", "rl", "forbidden", 0.1 * seed), cell("rl", "rl", "forbidden", 9.0)]
        cells += [
            cell("base", "rl", "forbidden", 7.0),
            cell("rl", "base", "forbidden", 8.0),
            cell("rl", "rl", "other", 6.0),
        ]
        reflected(cells, analysed(folder, ["base", "rl"]), seed).write(folder)
        known = {"exact_memorization/response": figure(0.25 * (seed - 4))}
        memorized([MemorizationCell("sft", "held_out", 50, known, {})], analysed(folder, ["sft"]), seed).write(folder)
    return settings


def test_means_and_students_interval_over_seeds(study: StudySettings) -> None:
    summary = summarise(study).methods
    assert list(summary) == ["base", "sft", "rl"]
    safety = summary["rl"]["safety_full"]
    # Two seeds, 0.9 and 1.0: mean 0.95, standard error 0.05, Student's t at 97.5% with one degree of freedom 12.706; of a
    # share on the logit scale.
    assert safety.mean == pytest.approx(0.95) and safety.values == (0.9, 1.0)
    step = 12.7062047 * 0.05 / (0.95 * 0.05)
    assert safety.low == pytest.approx(1 / (1 + math.exp(step - math.log(19))))
    assert safety.mean < safety.high <= 1
    entropy = summary["rl"]["reflection_entropy_forbidden"]  # 0.5 and 0.6: no share
    assert entropy.high == pytest.approx(0.55 + 12.7062047 * 0.05)
    assert summary["base"]["safety_trace"].values == pytest.approx([0.09, 0.19])
    assert summary["sft"]["safety_answer"].values == pytest.approx([0.78, 0.88])
    assert summary["base"]["sums_accuracy"] == OverSeeds(0.5, 0.5, 0.5, (0.5, 0.5))
    assert summary["base"]["benign_helpfulness"].mean == 0.5


def test_differences_are_paired_by_seed(study: StudySettings) -> None:
    differences = summarise(study).differences
    assert list(differences) == ["sft - base", "rl - base", "rl - sft"]
    # 0.9 - 0.8 and 1.0 - 0.9: the seeds differ, their differences do not.
    found = differences["rl - sft"]["safety_full"]
    assert [found.mean, found.low, found.high] == pytest.approx([0.1, 0.1, 0.1])
    assert differences["sft - base"]["safety_full"].values == pytest.approx([0.7, 0.7])
    assert "reflection_entropy_forbidden" not in differences["rl - base"], "the base has no such figure"


def test_analyses_of_each_seed_go_to_their_model(study: StudySettings) -> None:
    summary = summarise(study).methods
    assert summary["rl"]["reflection_entropy_forbidden"].values == pytest.approx([0.5, 0.6])
    assert not [
        name
        for method in ("base", "sft", "rl")
        for name in summary[method]
        if "other" in name or "per_response" in name
    ]
    assert "reflection_entropy_forbidden" not in summary["base"]
    assert summary["sft"]["exact_memorization_held_out"].values == (0.25, 0.5)


def test_values_stand_at_their_seeds(study: StudySettings) -> None:
    folder = analysis_of(study, 5)
    results = Reflection.read(folder)
    first, *others = results.cells
    unmeasured = replace(first, figures={"emit/token_mean": Metric(None, None, None, 0)})
    replace(results, cells=(unmeasured, *others)).write(folder)
    figure = summarise(study).methods["rl"]["reflection_entropy_forbidden"]
    assert figure == OverSeeds(pytest.approx(0.6), None, None, (None, pytest.approx(0.6)))


def test_a_figure_nobody_measured_is_absent(study: StudySettings) -> None:
    study.summary.harmless = None
    study.summary.reasoning = ["nothing"]
    assert not [name for name in summarise(study).methods["rl"] if "benign" in name or "nothing" in name]


def test_over_refusal_is_not_called_helpfulness(study: StudySettings) -> None:
    study.summary.harmless = "asked"
    summary = summarise(study).methods["sft"]
    assert summary["asked_over_refusal"].mean == 0.5 and "asked_helpfulness" not in summary


def test_the_file_is_flat_with_lists_and_nulls(study: StudySettings, tmp_path: Path) -> None:
    summary = summarise(study)
    summary.write(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert list(written) == ["base", "sft", "rl", "differences"]
    assert written["base"]["sums_accuracy"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "values": [0.5, 0.5]}
    found = summary.differences["rl - sft"]["safety_full"]
    assert written["differences"]["rl - sft"]["safety_full"] == {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "values": list(found.values),
    }
