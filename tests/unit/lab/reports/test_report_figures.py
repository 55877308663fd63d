"""Figures combined over seeds, the frontier, analyses, cost, and who a folder belongs to: against numbers by hand."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_study import (
    all_benchmarks,
    analysed,
    benchmark,
    evaluation,
    figure,
    make_study,
    memorization,
    reflected,
    reflection,
    rl_curves,
    training,
)
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from lrm_safety.diagnosis.evidence import difference_interval, of_evaluation
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.figures import is_share
from lrm_safety.evaluation.results import difference
from lrm_safety.lab.reports.analyses import reflection_table
from lrm_safety.lab.reports.combine import (
    Combined,
    arms_compared,
    combine,
    differences,
    figure_of,
    mean_of_role,
    means_of_runs,
    pareto,
    start_of_role,
)
from lrm_safety.lab.reports.combine import memorization as read_memorization
from lrm_safety.lab.reports.combine import reflection as read_reflection
from lrm_safety.lab.reports.cost import cost_of, num_gpus
from lrm_safety.lab.reports.evaluations import difference_table, published, published_entropy
from lrm_safety.lab.reports.figures import bars, curves, dots, scatter, stacked
from lrm_safety.lab.reports.findings import diagnose_study, evidence_of
from lrm_safety.lab.reports.folders import Analysis, Study, Subject
from lrm_safety.lab.reports.gather import gather
from lrm_safety.lab.reports.style import looks_of
from lrm_safety.lab.reports.tables import cell
from lrm_safety.results import AnalysedModel, Audit, Evaluation, Memorization, Metric, Reflection, ReflectionCell


@pytest.fixture(autouse=True)
def no_picture_stays() -> Iterator[None]:
    """pyplot keeps what nobody closes, and other tests look whether it holds anything."""
    yield
    plt.close("all")


def test_combining_leaves_out_what_is_null() -> None:
    one = combine([figure(0.5), None, Metric(None, None, None, 0)])
    assert one is not None and (one.value, one.low, one.high, one.n, one.num_runs) == (0.5, 0.45, 0.55, 100, 1)
    assert combine([None]) is None
    several = combine([figure(0.4), figure(0.6)])
    assert several is not None and several.value == pytest.approx(0.5) and several.num_runs == 2
    assert several.high == pytest.approx(0.5 + 12.7062047 * 0.1)


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([(1, 1), (2, 2)], [1]),
        ([(1, 2), (2, 1)], [0, 1]),
        ([(2, 1), (1, 2), (1.5, 1.5), (1, 1)], [1, 2, 0]),
        ([(1, 1), (1, 1)], [0, 1]),
        ([(1, 1), (1, 2)], [1]),
        ([], []),
    ],
)
def test_frontier(points: list[tuple[float, float]], kept: list[int]) -> None:
    assert pareto(points) == kept


def test_means_of_a_role_are_over_benchmarks_that_all_have(tmp_path: Path) -> None:
    both = {
        "a": benchmark("math500", "reasoning", "pass@1", 0.4),
        "b": benchmark("math500", "reasoning", "pass@1", 0.8),
    }
    more = both | {"c": benchmark("math500", "reasoning", "pass@1", 0.0)}
    study = gather([f"base={evaluation(tmp_path / 'x', both)}", f"rl={evaluation(tmp_path / 'y', more)}"])
    found = mean_of_role(study, study.subjects[1], "reasoning")
    assert found is not None and found[0].value == pytest.approx(0.6) and found[1] == ["a", "b"]
    assert mean_of_role(study, study.subjects[1], "safety") is None


def logit_end(mean: float, half: float) -> float:
    """The upper end of Student's interval of a share on the logit scale."""
    return 1 / (1 + math.exp(-(math.log(mean / (1 - mean)) + half / mean / (1 - mean))))


def test_interval_of_a_mean_of_benchmarks(tmp_path: Path) -> None:
    def both(first: float, second: float) -> dict[str, object]:
        return {
            "a": benchmark("math500", "reasoning", "pass@1", first),
            "b": benchmark("math500", "reasoning", "pass@1", second),
        }

    one = gather([f"base={evaluation(tmp_path / 'x', both(0.4, 0.8))}"])
    found = mean_of_role(one, one.subjects[0], "reasoning")
    # two independent half-widths of 0.05: (0.05^2 + 0.05^2)^0.5 / 2
    assert found is not None and found[0].low == pytest.approx(0.6 - 0.0353553) and found[0].n == 200
    seeds = [evaluation(tmp_path / str(i), both(0.4 + 0.1 * i, 0.8)) for i in range(2)]
    several = gather([f"rl={seed}" for seed in seeds])
    assert means_of_runs(several.subjects[0], ["a", "b"]) == pytest.approx([0.6, 0.65])
    found = mean_of_role(several, several.subjects[0], "reasoning")
    assert found is not None and (found[0].value, found[0].num_runs) == (pytest.approx(0.625), 2)
    assert found[0].high == pytest.approx(logit_end(0.625, 12.7062047 * 0.025))


def test_a_mean_of_benchmarks_inside_training_is_over_runs(tmp_path: Path) -> None:
    rows = [(0.4, 0.8), (0.6, 0.7)]
    runs = [
        training(tmp_path / str(i), {"evaluation/math500": [(0, 0.1), (5, a)], "evaluation/gsm8k": [(0, 0.1), (5, b)]})
        for i, (a, b) in enumerate(rows)
    ]
    several = gather([f"rl={run}" for run in runs])
    found = mean_of_role(several, several.subjects[0], "reasoning")
    # the benchmarks of a run are not independent: means of 0.6 and 0.65, and Student over these two
    assert found is not None and (found[0].value, found[0].num_runs) == (pytest.approx(0.625), 2)
    assert found[0].high == pytest.approx(logit_end(0.625, 12.7062047 * 0.025)) and found[0].in_training
    del several.subjects[0].runs[1].series["evaluation/gsm8k"]
    found = mean_of_role(several, several.subjects[0], "reasoning")
    assert found is not None and found[0].low is None, "one run has both, so nothing says how the mean varies over runs"
    alone = gather([f"rl={runs[0]}"])
    found = mean_of_role(alone, alone.subjects[0], "reasoning")
    assert found is not None and (found[0].value, found[0].low) == (pytest.approx(0.6), None) and found[0].in_training


def test_the_base_is_that_of_the_name_before_that_of_the_family(tmp_path: Path) -> None:
    names = ["base-1b", "base-7b", "base_3_1_7b", "rl-7b", "rl-1b-no_kl", "rl_7b_no_kl", "rl_3_1_7b_x", "rl-70b", "sft"]
    made = [f"{name}={evaluation(tmp_path / name, all_benchmarks(0.5, 0.5, 0.1, 0.4))}" for name in names]
    study = gather(made)
    compared = {one.name: base and base.name for one in study.subjects for base in [study.base_of(one)]}
    assert compared == {
        **{"base-1b": "base-1b", "base-7b": "base-7b", "base_3_1_7b": "base_3_1_7b"},
        **{"rl-7b": "base-7b", "rl-1b-no_kl": "base-1b", "rl_7b_no_kl": "base-7b", "rl_3_1_7b_x": "base_3_1_7b"},
        **{"rl-70b": None, "sft": None},  # no base of that name, and three of the family
    }
    assert [one.name for one in study.groups()["7b"]] == ["base-7b", "rl-7b", "rl_7b_no_kl"]


def test_a_base_is_not_that_of_another_family_and_the_path_tells_sizes_apart(tmp_path: Path) -> None:
    """Of a sweep over models: its runs were never evaluated alone, and say in their configurations what they begin with."""
    rows = {"qwen": ("made/up", "qwen3"), "bigger": ("made/bigger", "qwen3"), "granite": ("made/g", "granite")}
    folders = [f"base={evaluation(tmp_path / 'base', all_benchmarks(0.5, 0.5, 0.1, 0.4))}"]  # of made/up, of qwen3
    for name, (path, family) in rows.items():
        config = {"seed": 0, "model": {"name": name, "path": path, "family": family}}
        series = {"train/update": [(2, 2.0)], "evaluation/safety": [(0, 0.7), (2, 0.8)]}
        folders.append(f"{name}={training(tmp_path / name, series, config)}")

    def bases(study: Study) -> dict[str, str | None]:
        return {one.name: base and base.name for one in study.subjects for base in [study.base_of(one)]}

    assert bases(gather(folders)) == {"base": "base", "qwen": "base", "bigger": "base", "granite": None}
    big = evaluation(tmp_path / "big", all_benchmarks(0.5, 0.5, 0.1, 0.4))
    results = json.loads((big / "results.json").read_text())
    results["model"]["path"] = "made/bigger"
    (big / "results.json").write_text(json.dumps(results))
    both = bases(gather([*folders, f"base-large={big}"]))
    assert (both["qwen"], both["bigger"], both["granite"]) == ("base", "base-large", None)


def of_models(study: Study, **fingerprints: str | None) -> list[Analysis[Reflection]]:
    """The study's reflection analyses with models of these fingerprints; None: another one in each analysis."""
    return [
        replace(
            analysis,
            results=replace(
                analysis.results,
                models={
                    name: AnalysedModel("made/up", "qwen3", "float32", fingerprint or f"{name} {i}")
                    for name, fingerprint in fingerprints.items()
                },
            ),
        )
        for i, analysis in enumerate(study.of_kind(Reflection))
    ]


def test_a_base_that_every_seed_read_is_one_model(tmp_path: Path) -> None:
    study = gather(
        [str(reflection(tmp_path / str(i), {("base", "attaq"): 0.2, ("rl", "attaq"): 0.1 * i})) for i in (1, 3)]
    )
    found = read_reflection(of_models(study, base="same", rl=None), "emit/token_mean")
    assert found["base", "attaq"].num_runs == 1 and found["base", "attaq"].low == pytest.approx(0.18)
    assert found["rl", "attaq"].num_runs == 2 and found["rl", "attaq"].value == pytest.approx(0.2)


def test_a_base_sampled_with_every_seed_is_as_many_runs(tmp_path: Path) -> None:
    study = gather([str(reflection(tmp_path / str(i), {("base", "attaq"): 0.1 * i})) for i in (1, 3)])
    found = read_reflection(of_models(study, base="same"), "emit/token_mean")["base", "attaq"]
    assert (found.num_runs, found.value) == (2, pytest.approx(0.2))


def test_looks() -> None:
    every = looks_of(["base", "sft", "rl"])
    assert looks_of(["base-x", "rl-x"]) == {"base-x": every["base"], "rl-x": every["rl"]}, "roles look alike everywhere"
    many = looks_of([f"rl-{i}" for i in range(36)])
    assert len({(one.colour, one.marker) for one in many.values()}) == 36
    assert len({(one.colour, str(one.line)) for one in many.values()}) == 36
    assert len({one.colour for one in list(many.values())[:6]}) == 6


@pytest.mark.parametrize(("groups", "dots"), [(7, False), (44, True)])
def test_many_bars_become_dots(groups: int, dots: bool) -> None:
    looks = looks_of(["base", "rl"])
    values = {name: [Combined(0.5, 0.4, 0.6, 10, 1)] * groups for name in looks}
    figure = bars(
        [f"a category with number {i} and a long name" for i in range(groups)], values, looks, title="", x_label=""
    )
    (axes,) = figure.axes
    assert len(axes.patches) == (0 if dots else 2 * groups)
    markers = [line for line in axes.get_lines() if line.get_marker() in ("o", "^")]
    assert [len(line.get_xdata()) for line in markers] == ([groups] * 2 if dots else [])
    assert figure.get_size_inches()[1] < 20
    assert all(label.get_text().count("\n") == 1 for label in axes.get_yticklabels())


def test_shares_stand_on_0_to_1_and_what_cannot_be_negative_begins_at_0() -> None:
    looks = looks_of(["base", "rl"])
    near = {name: Combined(value, value - 0.01, value + 0.01, 100, 1) for name, value in (("base", 0.97), ("rl", 0.94))}
    drawn = [
        dots(near, looks, title="", x_label=""),
        scatter({name: (one, one) for name, one in near.items()}, looks, title="", x_label="", y_label=""),
        curves({"rl": [[(0, 0.97), (8, 0.94)]]}, looks, title="", y_label="", share=True),
        curves({"rl": [[(0, 5.0), (8, 4.0)]]}, looks, title="", y_label=""),
        curves({"rl": [[(0, -5.0), (8, 4.0)]]}, looks, title="", y_label=""),
    ]
    whole = (-0.03, 1.03)
    axes = [figure.axes[0] for figure in drawn]
    assert axes[0].get_xlim() == axes[1].get_xlim() == axes[1].get_ylim() == axes[2].get_ylim() == whole
    assert axes[3].get_ylim()[0] == 0 and axes[4].get_ylim()[0] < -5
    assert axes[2].get_legend() is None, "one name says nothing"
    assert [label.get_text() for label in axes[0].texts] == ["0.970", "0.940"]


def test_runs_that_agree_have_a_reason_in_the_place_of_an_interval() -> None:
    alike, apart = combine([figure(0.97), figure(0.97)], share=True), combine([figure(0.96), figure(0.98)], share=True)
    assert str(cell(alike)) == "0.970 (2 runs, no interval: all alike)"
    assert str(cell(apart)).startswith("0.970 [0.")


def test_a_noisy_curve_is_smoothed_and_a_short_one_is_not() -> None:
    noisy = [(i, float(i % 2)) for i in range(30)]
    drawn = curves({"rl": [noisy]}, looks_of(["rl"]), title="", y_label="")
    thin, thick = drawn.axes[0].get_lines()
    assert list(thin.get_ydata()) == [value for _, value in noisy]
    # the mean of five neighbours, fewer at the ends: 0, 1, 0 at first; then 0, 1, 0, 1; then 0, 1, 0, 1, 0
    assert list(thick.get_ydata())[:4] == pytest.approx([1 / 3, 1 / 2, 2 / 5, 3 / 5]) and thick.get_marker() != "o"
    short = curves({"rl": [noisy[:14]]}, looks_of(["rl"]), title="", y_label="")
    (line,) = short.axes[0].get_lines()
    assert list(line.get_ydata()) == [value for _, value in noisy[:14]] and line.get_marker() == "^"


def test_phases_stand_on_one_another() -> None:
    """Two updates as they are, the second without a sync; of 80 updates the means of neighbours."""
    looks = looks_of(["generate", "update", "sync"])
    parts = {"generate": [(2, 3.0), (4, 5.0)], "update": [(2, 2.0), (4, 1.0)], "sync": [(2, 0.5)]}
    (axes,) = stacked(parts, looks, title="", y_label="seconds").axes
    drawn = [(bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_height()) for bar in axes.patches]
    assert drawn == [(2, 0, 3), (4, 0, 5), (2, 3, 2), (4, 5, 1), (2, 5, 0.5), (4, 6, 0)]
    assert axes.get_legend_handles_labels()[1] == ["generate", "update", "sync"]
    assert [one[0].get_facecolor() for one in axes.containers] == [to_rgba(looks[name].colour) for name in parts]

    (axes,) = stacked({"update": [(i, float(i)) for i in range(80)]}, looks, title="", y_label="").axes
    assert [bar.get_height() for bar in axes.patches] == [2 * i + 0.5 for i in range(40)]


def test_runs_without_a_common_update_have_no_mean() -> None:
    drawn = curves({"rl": [[(1, 0.1), (3, 0.2)], [(2, 0.5), (4, 0.6)]]}, looks_of(["rl"]), title="", y_label="")
    (axes,) = drawn.axes
    lines = [list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()]
    assert lines == [[(1, 0.1), (3, 0.2)], [(2, 0.5), (4, 0.6)], []]
    (label,) = axes.get_legend_handles_labels()[1]
    assert "mean" not in label


def test_folders_join_by_name_in_the_order_of_roles(tmp_path: Path) -> None:
    arguments = make_study(tmp_path, num_seeds=2)
    study = gather(list(reversed(arguments)))
    assert [one.name for one in study.subjects] == ["base", "sft", "rl"]
    assert [(len(one.runs), len(one.evaluations)) for one in study.subjects] == [(0, 1), (2, 2), (2, 2)]
    assert {type(one.results) for one in study.analyses} == {Reflection, Memorization, Audit}
    assert study.base is study.subjects[0]
    assert Subject("rl-no_kl").role == "rl" and Subject("SFT_raw").role == "sft" and Subject("mine").role is None


def test_a_folder_whose_name_holds_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    training(Path("lr=1"), rl_curves(0))
    assert [one.name for one in gather(["lr=1", "rl=lr=1"]).subjects] == ["rl", "lr=1"]
    with pytest.raises(ConfigError, match="no such folder"):
        gather(["lr=2"])


def test_training_alone_gives_its_last_evaluation(tmp_path: Path) -> None:
    runs = [
        training(tmp_path / str(i), {"evaluation/attaq": [(0, 0.1), (5, value)]}) for i, value in enumerate((0.5, 0.7))
    ]
    (subject,) = gather([f"rl={run}" for run in runs]).subjects
    found = figure_of(subject, "attaq")
    assert found is not None and found.value == pytest.approx(0.6) and found.in_training and found.num_runs == 2


def test_one_run_has_the_interval_of_its_questions(tmp_path: Path) -> None:
    series = {"evaluation/attaq": [(0, 0.1), (5, 0.75)], "evaluation/attaq/num_questions": [(0, 100.0), (5, 100.0)]}
    study = gather([f"mine={training(tmp_path / 'a', series)}"])
    found = figure_of(study.subjects[0], "attaq")
    # Wilson's of 75 of 100
    z = 1.959963984540054
    half = z * math.sqrt(0.75 * 0.25 / 100 + z * z / 40000) / (1 + z * z / 100)
    centre = (0.75 + z * z / 200) / (1 + z * z / 100)
    assert found is not None and (found.low, found.high) == pytest.approx((centre - half, centre + half))
    assert found.over == "100 questions, in training" and not found.low > 0.75
    start = start_of_role(study, study.subjects[0], "safety")
    assert start is not None and start.value == 0.1 and start.low is not None


def test_rl_is_compared_with_every_other_arm(tmp_path: Path) -> None:
    names = ["base", "sft", "raw", "rl", "rl-no_kl"]
    made = [f"{name}={evaluation(tmp_path / name, all_benchmarks(0.5, 0.5, 0.1, 0.4))}" for name in names]
    study = gather(made)
    assert [(one.name, other.name) for one, other in arms_compared(study)] == [
        *(("sft", "base"), ("rl", "base"), ("rl", "sft"), ("rl", "raw")),
        *(("rl-no_kl", "base"), ("rl-no_kl", "sft"), ("rl-no_kl", "raw"), ("rl-no_kl", "rl"), ("raw", "base")),
    ]
    table = difference_table(study)
    assert [row[0] for row in table.rows][2:4] == ["rl less sft", "rl less raw"]
    small = ("+0.000 to +0.000", "no clear difference", "p = 1.000", "100 questions")
    assert table.rows[0][1].small == small, "one seed: the test of the questions"


def test_analyses_read_own_responses_at_the_first_temperature(tmp_path: Path) -> None:
    study = gather(
        [
            str(reflection(tmp_path / "a", {("rl", "attaq"): 0.1})),
            str(reflection(tmp_path / "b", {("rl", "attaq"): 0.3})),
        ]
    )
    first, second = study.of_kind(Reflection)
    (own,) = first.results.cells
    other = {"emit/token_mean": figure(9.0)}
    cells = (own, replace(own, temperature=0.6, figures=other), replace(own, writer="base", figures=other))
    first = replace(first, results=replace(first.results, cells=cells))
    found = read_reflection([first, second], "emit/token_mean")
    assert set(found) == {("rl", "attaq")} and found["rl", "attaq"].value == pytest.approx(0.2)
    kept = gather([str(memorization(tmp_path / "m", {("sft", "trained"): 0.9}))])
    values = read_memorization(kept.of_kind(Memorization))
    assert values["sft", "trained", "extraction_strength/response"].value == pytest.approx(0.3)


def test_the_share_of_forking_tokens_and_no_kappa_is_a_share() -> None:
    """0.01 and 0.60 of two seeds: Student's interval would begin at -3.4."""
    seeds = []
    for seed, value in enumerate((0.01, 0.60)):
        measured = {"forking/share_of_trace_tokens": Metric(value, None, None, 9), "emit/token_mean": figure(value)}
        cell = ReflectionCell("rl", "rl", "attaq", 1.0, 9, measured, ())
        seeds.append(Analysis(Path(f"{seed}"), reflected([cell], analysed(Path(f"{seed}"), ["rl"]), seed)))
    low = {name: read_reflection(seeds, name)["rl", "attaq"].low for name in measured}
    assert low["forking/share_of_trace_tokens"] is not None and low["emit/token_mean"] is not None
    assert low["forking/share_of_trace_tokens"] > 0 > low["emit/token_mean"]
    assert [is_share(name) for name in ("pass@1", "rate/cut_off", "length/trace_tokens", "kappa/a~b/full")] == [
        *(True, True, False, False)
    ]


def test_evidence_pairs_seeds_and_names_its_sources(tmp_path: Path) -> None:
    study = gather(make_study(tmp_path, num_seeds=2))
    first, second = evidence_of(study, study.subjects[2])
    assert first.run is not None and first.base is not None and second.base is not None
    assert first.run.source.endswith("rl-eval-0/results.json") and second.training_source.endswith("rl-1/metrics.jsonl")
    assert second.base.source.endswith("base/results.json"), "one base for all seeds"
    assert first.reward_paths == {"made/reward"} and first.judges == {"rules": {"kind": "refusal_rules", "path": None}}
    entropies = {one.prompts: (one.role, one.base, one.run) for one in first.entropies}
    assert entropies == {"attaq": ("safety", 0.24, 0.09), "math500": ("reasoning", 0.31, 0.3)}


def test_seeds_are_paired_by_seed_and_not_by_place(tmp_path: Path) -> None:
    def made(name: str, seed: int, right: float) -> str:
        return f"{name}={evaluation(tmp_path / f'{name}-{seed}', all_benchmarks(0.5, right, 0.1, 0.4), seed)}"

    right = {seed: 0.5 + 0.1 * seed for seed in range(4)}
    runs = [f"rl={training(tmp_path / f'run-{seed}', rl_curves(seed), {'seed': seed})}" for seed in (2, 0)]
    study = gather(
        [*(made("base", seed, value) for seed, value in right.items()), *runs]
        + [made("rl", seed, right[seed]) for seed in (3, 0, 2)]
    )
    base, subject = study.subjects
    assert [one.value for one in differences(subject, base, "math500")] == [0.0, 0.0, 0.0]
    seen = [
        (Path(one.training_source).parent.name, Path(one.run.source).parent.name, Path(one.base.source).parent.name)
        for one in evidence_of(study, subject)
        if one.run and one.base
    ]
    assert seen == [("", "rl-3", "base-3"), ("run-0", "rl-0", "base-0"), ("run-2", "rl-2", "base-2")]
    del base.evaluations[3]
    assert len(differences(subject, base, "math500")) == 2, "a seed that the base lacks is compared with nothing"


@pytest.mark.parametrize("size", [1, 3])
def test_one_difference_has_one_interval(tmp_path: Path, size: int) -> None:
    """Two evaluations alone, the report and the diagnosis say the same of the same two evaluations, in clusters or not."""
    draw = random.Random(7)
    folders = []
    for name in ("base", "rl"):
        answers = [draw.choice((0.0, 0.25, 1.0)) for _ in range(60)]
        made = benchmark("math500", "reasoning", "pass@1", 0.5, questions=answers)
        clusters = {f"q{i}": f"c{i // size}" for i in range(60)} if size > 1 else {}
        folders.append(evaluation(tmp_path / name, {"math500": replace(made, clusters=clusters)}, seed=3))
    before, after = (Evaluation.read(folder) for folder in folders)
    compared = difference(after.benchmarks["math500"], before.benchmarks["math500"], "pass@1", 3)
    base, subject = gather([f"{folder.name}={folder}" for folder in folders]).subjects
    (reported,) = differences(subject, base, "math500")
    diagnosed = difference_interval(of_evaluation(before, "base"), of_evaluation(after, "rl"), "math500")
    assert compared == reported and (reported.low, reported.high) == diagnosed
    assert compared.low < compared.value < compared.high


def test_seeds_that_repeat_are_paired_by_place(tmp_path: Path) -> None:
    folders = [
        f"{name}={evaluation(tmp_path / f'{name}-{i}', all_benchmarks(0.5, value, 0.1, 0.4))}"
        for name in ("base", "rl")
        for i, value in enumerate((0.5, 0.6))
    ]
    base, subject = gather(folders).subjects
    assert [one.value for one in differences(subject, base, "math500")] == [0.0, 0.0]


def test_the_same_reward_on_two_families(tmp_path: Path) -> None:
    folders = []
    for family, before, after in (("qwen3", 0.3, 0.9), ("granite", 0.3, 0.35), ("other", 0.3, 0.3)):
        reward = {"models": {"mine": {"path": "another" if family == "other" else "one", "views": {family: 1.0}}}}
        folders.append(f"rl-{family}={training(tmp_path / family, {}, {'reward': reward})}")
        for role, value in (("base", before), ("rl", after)):
            made = evaluation(tmp_path / f"{role}-{family}", all_benchmarks(value, 0.8, 0.1, value), family=family)
            folders.append(f"{role}-{family}={made}")
    study = gather(folders)
    compared = {one.name: base.name for one in study.subjects if (base := study.base_of(one))}
    assert compared["rl-granite"] == "base-granite" and compared["rl-qwen3"] == "base-qwen3"
    (seen,) = [one for one in diagnose_study(study) if one.finding.rule == "reward_transfer"]
    assert (
        seen.finding.level == "fail"
        and "qwen3 by +0.60" in seen.finding.text
        and "granite by +0.05" in seen.finding.text
    )


def test_a_gain_is_against_the_base_of_the_name(tmp_path: Path) -> None:
    """Two sizes of one family: the first base of the family would give qwen3 a gain of 0."""
    folders = []
    rows = (("8b", "qwen3", 0.9, None), ("4b", "qwen3", 0.3, 0.9), ("2b", "granite", 0.3, 0.85))
    for size, family, before, after in rows:
        folders.append(
            f"base-{size}={evaluation(tmp_path / f'base-{size}', all_benchmarks(before, 0.8, 0.1, before), family=family)}"
        )
        if after is not None:
            made = evaluation(tmp_path / f"rl-{size}", all_benchmarks(after, 0.8, 0.1, after), family=family)
            run = training(tmp_path / f"run-{size}", {}, {"reward": {"models": {"mine": {"path": "one"}}}})
            folders += [f"rl-{size}={made}", f"rl-{size}={run}"]
    assert not [one for one in diagnose_study(gather(folders)) if one.finding.rule == "reward_transfer"]


def test_each_family_has_a_reflection_analysis_of_its_own(tmp_path: Path) -> None:
    folders = []
    for size, after in (("1b", 0.3), ("8b", 0.05)):
        for role in ("base", "rl"):
            folders.append(
                f"{role}-{size}={evaluation(tmp_path / f'{role}-{size}', all_benchmarks(0.5, 0.8, 0.1, 0.5))}"
            )
        values = {(f"base-{size}", "math500"): 0.3, (f"rl-{size}", "math500"): after}
        folders.append(str(reflection(tmp_path / f"reflection-{size}", values)))
    (seen,) = [one for one in diagnose_study(gather(folders)) if one.finding.rule == "entropy_on_reasoning"]
    assert (seen.subject, seen.num_seen, seen.num_runs) == ("rl-8b", 1, 1) and "from 0.3 to 0.05" in seen.finding.text


def test_seen_counts_the_runs_that_have_the_figures_and_shows_the_worst(tmp_path: Path) -> None:
    folders = [f"base={evaluation(tmp_path / 'base', all_benchmarks(0.5, 0.8, 0.1, 0.5))}"]
    for seed, kl in enumerate((0.4, 0.9, 0.5, 0.1)):
        run = training(tmp_path / f"run-{seed}", {"kl/k3": [(1, kl), (2, kl)]}, {"seed": seed})
        folders.append(f"rl={run}")
    folders.append(f"rl={training(tmp_path / 'silent', {'train/loss': [(1, 0.0)]}, {'seed': 4})}")
    folders.append(f"rl={evaluation(tmp_path / 'rl', all_benchmarks(0.5, 0.4, 0.1, 0.5))}")
    found = {(one.finding.rule, one.finding.evidence[0].name): one for one in diagnose_study(gather(folders))}
    kl, lost = found["kl_blow_up", "kl/k3"], found["reasoning_loss", "math500 pass@1"]
    assert (kl.num_seen, kl.num_runs, kl.finding.evidence[0].value) == (3, 4, 0.9)
    assert (lost.num_seen, lost.num_runs) == (1, 1), "one evaluation, whatever the number of training runs"


def test_the_papers_entropy_stands_beside_attaq_and_not_beside_an_attack_on_it(tmp_path: Path) -> None:
    for name, beside in (("attaq_500", True), ("attaq_empty_trace", False)):
        made = reflection(tmp_path / name, {("base", name): 0.3, ("rl", name): 0.1})
        papers = [
            cell.paper
            for row in reflection_table(gather([str(made)])).rows
            for cell in row
            if not isinstance(cell, str)
        ]
        assert ("0.09" in papers) is beside, name


def test_cost_of_a_run(tmp_path: Path) -> None:
    group = {"num_workers": 2, "gpus_per_worker": 1.0}
    cluster = {"device": "cuda", "policy": group, "rollout": group, "reference": group, "reward": group}
    config = {
        "cluster": cluster,
        "rollout": {"tensor_parallel_size": 4},
        "reward": {},
        "algorithm": {"kl": {"placement": "none"}},
    }
    assert num_gpus(config) == 2 + 8 + 2  # no reference
    assert num_gpus({"cluster": cluster}) == 2 and num_gpus({}) == 0
    assert num_gpus({"cluster": cluster | {"device": "cpu"}}) == 0
    series = {
        "time/iteration_seconds": [(1, 100.0), (2, 200.0)],
        "time/generate_seconds": [(1, 50.0), (2, 60.0)],
        "speed/generate_tokens_per_second": [(1, 10.0), (2, 20.0)],
        "train/update": [(1, 1), (2, 2)],
    }
    (subject,) = gather([str(training(tmp_path / "run", series, config))]).subjects
    cost = cost_of(subject.runs[0])
    assert (cost.updates, cost.seconds, cost.generated_tokens, cost.trained_tokens) == (2, 300.0, 1700.0, None)
    assert cost.gpu_hours == pytest.approx(1.0) and cost.phases == {"generate": 110.0}


def test_published_figures_belong_to_a_role() -> None:
    assert published("attaq_clean", "rl") == "0.92" and published("gpqa_diamond", "sft") == "47.54%"
    assert (
        published("attaq_empty_trace", "rl") is None
        and published("math500", "rl") is None
        and published("attaq", None) is None
    )
    # 3.12 and 3.00 are entropies on AIME 2024, not accuracies.
    assert published("aime24", "rl") is None and published_entropy("aime24", "rl") == "3.00"
    assert published_entropy("attaq_500", "base") == "0.24" and published_entropy("attaq", "sft") is None
    assert all_benchmarks(0.5, 0.5, 0.1, 0.4).keys() >= {"attaq", "gpqa_diamond"}
