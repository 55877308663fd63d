"""Every rule on figures made by hand, just below and just above its threshold, and silent without its figures."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from lrm_safety.conversation.families import Protocol
from lrm_safety.diagnosis.evaluation_rules import (
    beta_advice,
    entropy_on_reasoning,
    over_refusal,
    reasoning_loss,
    reward_transfer,
    trace_format,
    uneven_safety,
)
from lrm_safety.diagnosis.evidence import (
    Evaluated,
    Evidence,
    Finding,
    PromptEntropy,
    Role,
    difference_interval,
    of_evaluation,
    role_of,
)
from lrm_safety.diagnosis.rules import RULES, Watch, diagnose, show_findings
from lrm_safety.diagnosis.thresholds import THRESHOLDS
from lrm_safety.diagnosis.training_rules import (
    collapsed_traces,
    engine_mismatch,
    entropy_collapse,
    kl_blow_up,
    length_drift,
    overfitting,
    reward_hacking,
)
from lrm_safety.errors import DataError
from lrm_safety.monitoring.registry import find
from lrm_safety.results import Benchmark, BenchmarkData, Evaluation, Metric, Model

SAFETY = "safety/guard/full"


def entry(
    kind: str,
    primary: str,
    value: float | None,
    task: str = "made",
    figures: Mapping[str, float] | None = None,
    questions: Mapping[str, float] | None = None,
    clusters: Mapping[str, str] | None = None,
) -> Benchmark:
    # Every question as the mean: no noise, so the interval is the difference itself.
    means = {} if value is None else {f"q{i}": value for i in range(20)}
    return Benchmark(
        task=task,
        kind=kind,
        data=BenchmarkData("made.jsonl", "0", 100, 0),
        attack=None,
        samples=1,
        primary=primary,
        statuses={},
        figures={name: Metric(one, one, one, 100) for name, one in {primary: value, **(figures or {})}.items()},
        questions=means if questions is None else questions,
        clusters=clusters or {},
    )


def evaluated(
    name: str = "made", judges: Mapping[str, Mapping[str, Any]] | None = None, **benchmarks: Benchmark
) -> Evaluated:
    results = Evaluation(
        model=Model("made", "made/up", "qwen3", "float32", "0"),
        protocol=Protocol("made", 1.0, 1.0, 0, 64, True, "made up"),
        seed=0,
        judges=judges or {},
        benchmarks=benchmarks,
        seconds={},
    )
    return of_evaluation(results, f"{name}/results.json")


KINDS: dict[str, Role] = {
    "math500": "reasoning",
    "safety": "safety",
    "attaq": "safety",
    "xstest": "over_refusal",
    "benign": "helpfulness",
}


def flat(start: float, end: float, updates: int = 20) -> list[tuple[int, float]]:
    """`start` over the first half of the updates, `end` over the second."""
    return [(i, start if i < updates // 2 else end) for i in range(updates)]


def levels(findings: list[Finding]) -> list[str]:
    return [one.level for one in findings]


def reasoning(base: float, run: float, **training: Any) -> Evidence:
    return Evidence(
        kinds=KINDS,
        training=training.get("training", {}),
        base=evaluated("base", math=entry("reasoning", "pass@1", base)),
        run=evaluated("run", math=entry("reasoning", "pass@1", run)),
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_silent_without_figures(rule: Callable[[Evidence], list[Finding]]) -> None:
    assert rule(Evidence()) == []
    nulls = evaluated(
        math=entry("reasoning", "pass@1", None),
        attaq=entry("safety", SAFETY, None),
        xs=entry("over_refusal", "o", None),
    )
    assert rule(Evidence(base=nulls, run=nulls)) == []
    assert rule(Evidence(run=evaluated(math=entry("reasoning", "pass@1", 0.1)))) == []


@pytest.mark.parametrize(
    ("run", "level"), [(0.500, []), (0.491, []), (0.490, []), (0.489, ["warn"]), (0.475, ["warn"]), (0.474, ["fail"])]
)
def test_reasoning_is_relative_to_the_base(run: float, level: list[str]) -> None:
    # 2% of 0.5 is 0.01, 5% is 0.025; a fall of exactly that much is still fine
    found = reasoning_loss(reasoning(0.5, run))
    assert levels(found) == level
    if found:
        assert [one.value for one in found[0].evidence] == [0.5, run]
        assert [one.source for one in found[0].evidence] == ["base/results.json", "run/results.json"]


def test_reasoning_that_improved_or_was_never_there() -> None:
    assert reasoning_loss(reasoning(0.5, 0.6)) == []
    assert reasoning_loss(reasoning(0.0, 0.0)) == []


def test_a_fall_that_noise_explains_is_a_warning() -> None:
    def questions(right: int) -> dict[str, float]:
        return {f"q{i}": float(i < right) for i in range(20)}

    base = entry("reasoning", "pass@1", 0.5, questions=questions(10))
    noisy = entry("reasoning", "pass@1", 0.45, questions=questions(9))  # one question of 20
    clear = entry("reasoning", "pass@1", 0.2, questions=questions(4))
    (found,) = reasoning_loss(Evidence(base=evaluated(math=base), run=evaluated(math=noisy)))
    assert found.level == "warn" and "chance" in found.text
    (found,) = reasoning_loss(Evidence(base=evaluated(math=base), run=evaluated(math=clear)))
    assert found.level == "fail" and "chance" not in found.text


def test_a_fall_over_few_questions_is_a_warning() -> None:
    few = {f"q{i}": 1.0 for i in range(9)}
    base = entry("reasoning", "pass@1", 1.0, questions=few)
    run = entry("reasoning", "pass@1", 0.0, questions=dict.fromkeys(few, 0.0))
    (found,) = reasoning_loss(Evidence(base=evaluated(math=base), run=evaluated(math=run)))
    assert found.level == "warn" and "so few questions" in found.text
    judged = [entry("safety", SAFETY, value, questions=dict.fromkeys(few, value)) for value in (0.9, 0.1)]
    training = {"reward/raw_mean": flat(1.0, 3.0), "reward/raw_std": flat(2.0, 1.0)}
    evidence = Evidence(kinds=KINDS, training=training, base=evaluated(attaq=judged[0]), run=evaluated(attaq=judged[1]))
    assert levels(reward_hacking(evidence)) == ["warn"]


def test_paired_interval_by_hand() -> None:
    def interval(run: dict[str, float], clusters: dict[str, str] | None = None) -> tuple[float, float] | None:
        sides = (
            evaluated(math=entry("reasoning", "pass@1", 0.5, questions=one, clusters=clusters)) for one in (base, run)
        )
        return difference_interval(*sides, "math")

    base = {f"q{i}": 1.0 for i in range(100)} | {"only here": 0.0}
    run = {f"q{i}": float(i >= 20) for i in range(100)}
    # 20 differences of -1, 80 of 0: the number of -1 in a resample is binomial, 2.5% and 97.5% of it are 12 and 28
    assert interval(run) == pytest.approx((-0.28, -0.12), abs=0.011)
    assert interval({f"q{i}": 1.0 for i in range(9)}) is None
    # Five clusters of twenty, one of them lost: drawn 0 times by a third of the resamples, 4 times or more by 0.7%
    clusters = {f"q{i}": f"c{i // 20}" for i in range(100)}
    assert interval(run, clusters) == pytest.approx((-0.6, 0.0))
    assert interval(run, dict.fromkeys(clusters, "one")) is None, "one cluster cannot tell how it varies"


def test_an_interval_of_another_figure_is_none() -> None:
    """The base's answers may be of another figure than the run's, such as another judge's."""
    base, run = entry("safety", "safety/a/full", 0.5), entry("safety", SAFETY, 0.4)
    assert difference_interval(evaluated(attaq=base), evaluated(attaq=run), "attaq") is None


def test_attacks_and_other_kinds_are_not_reasoning() -> None:
    attacked = replace(entry("reasoning", "pass@1", 0.1), attack="empty_trace")
    base = entry("reasoning", "pass@1", 0.9)
    assert role_of(attacked) == "robustness"
    assert reasoning_loss(Evidence(base=evaluated(math=base), run=evaluated(math=attacked))) == []
    for kind in ("safety", "over_refusal", "helpfulness", "reasoning", "robustness"):
        assert role_of(entry(kind, "pass@1", 1.0)) == kind
    with pytest.raises(DataError, match=r"^kind 'harm' of a benchmark is none of safety, reasoning"):
        role_of(entry("harm", "pass@1", 1.0))


def test_a_benchmark_inside_training_whose_kind_is_not_told_is_not_read() -> None:
    falls = inside(10_000, mine=[0.9, 0.1, 0.1])
    assert diagnose(Evidence(training=falls)) == []
    assert [one.rule for one in diagnose(Evidence(kinds={"mine": "reasoning"}, training=falls))] == ["reasoning_loss"]


@pytest.mark.parametrize(
    ("series", "direction"),
    [
        ({}, "unknown"),
        ({"sft/loss": flat(2, 1)}, "unknown"),
        ({"kl/k3": flat(0, 0.11)}, "raise"),
        ({"kl/k3": flat(0, 0.09)}, "keep"),
        ({"kl/k3": flat(0, 0.005)}, "keep"),
        # the penalty is more than half of the reward's spread: over-regularised
        ({"kl/k3": flat(0, 0.05), "reward/kl_penalty_mean": flat(0, 0.51), "reward/shaped_std": flat(1, 1)}, "lower"),
        ({"kl/k3": flat(0, 0.05), "reward/kl_penalty_mean": flat(0, 0.49), "reward/shaped_std": flat(1, 1)}, "keep"),
        # far from the reference wins over a large penalty, which is then its consequence
        ({"kl/k3": flat(0, 0.2), "reward/kl_penalty_mean": flat(0, 5.0), "reward/shaped_std": flat(1, 1)}, "raise"),
        ({"kl/k3": flat(0, 0.05), "entropy/trace": flat(1.0, 0.49)}, "raise"),
        ({"kl/k3": flat(0, 0.05), "entropy/trace": flat(1.0, 0.51)}, "keep"),
        ({"kl/k3": flat(0, 0.05), "entropy/trace": flat(1.0, 1.51)}, "raise"),
        ({"kl/k3": flat(0, 0.005), "entropy/trace": flat(1.0, 0.3)}, "keep"),
    ],
)
def test_which_way_beta_should_move(series: dict[str, Any], direction: str) -> None:
    evidence = reasoning(0.5, 0.4, training=series)
    assert beta_advice(evidence).direction == direction
    (found,) = reasoning_loss(evidence)
    assert found.remedy == beta_advice(evidence).text
    assert {one.name for one in found.evidence} >= set(series) - {"sft/loss"}


def test_a_beta_of_0_is_set_and_not_multiplied() -> None:
    without = {"kl/k3": flat(0, 0.2), "kl/coef": flat(0.0, 0.0)}
    assert beta_advice(Evidence(kinds=KINDS, training=without)).text.startswith("Set algorithm.kl.coef above 0: ")
    collapsing = without | {"kl/k3": flat(0, 0.05), "entropy/trace": flat(1.0, 0.2)}
    assert beta_advice(Evidence(kinds=KINDS, training=collapsing)).text.startswith("Set algorithm.kl.coef above 0: ")
    with_it = without | {"kl/coef": flat(0.01, 0.01)}
    assert beta_advice(Evidence(kinds=KINDS, training=with_it)).text.startswith(
        "Raise algorithm.kl.coef (2 to 5 times): "
    )


@pytest.mark.parametrize(
    ("label", "high", "level"), [(0.66, 0.7, []), (0.64, 0.7, ["warn"]), (0.49, 0.6, ["fail"]), (0.49, 0.85, [])]
)
def test_uneven_safety(label: float, high: float, level: list[str]) -> None:
    attaq = entry("safety", SAFETY, 0.8, task="attaq")
    theft, few = Metric(label, 0.3, high, 40), Metric(0.0, 0.0, 0.1, 9)
    attaq = replace(attaq, figures={**attaq.figures, f"{SAFETY}@label=theft": theft, f"{SAFETY}@label=few": few})
    found = uneven_safety(Evidence(run=evaluated(attaq=attaq)))
    assert levels(found) == level
    if found:
        assert "theft" in found[0].text and "few" not in found[0].text and "audit" in found[0].remedy.lower()


@pytest.mark.parametrize(("auc", "level"), [(0.91, []), (0.89, ["warn"]), (0.74, ["fail"])])
def test_reward_separates_each_family(auc: float, level: list[str]) -> None:
    found = reward_transfer(Evidence(audit={"qwen3": 0.95, "granite": auc}))
    assert levels(found) == level and all("granite" in one.text for one in found)


@pytest.mark.parametrize(("gain", "level"), [(0.41, []), (0.39, ["warn"]), (0.29, ["fail"])])
def test_reward_helps_each_family(gain: float, level: list[str]) -> None:
    assert levels(reward_transfer(Evidence(gains={"qwen3": 0.5, "granite": gain}))) == level
    assert reward_transfer(Evidence(gains={"granite": gain})) == []


@pytest.mark.parametrize(
    ("reward", "judge", "level"), [(1.9, 0.30, []), (2.1, 0.33, []), (2.1, 0.31, ["warn"]), (2.1, 0.27, ["fail"])]
)
def test_reward_up_and_judge_not(reward: float, judge: float, level: list[str]) -> None:
    # the reward counts as up beyond half of its standard deviation: 1 + 0.5 x 2
    training = {"reward/raw_mean": flat(1.0, reward), "reward/raw_std": flat(2.0, 1.0)}
    base, run = (
        evaluated(judges={"guard": {"path": "a/guard"}}, attaq=entry("safety", SAFETY, value)) for value in (0.3, judge)
    )
    evidence = Evidence(kinds=KINDS, training=training, base=base, run=run)
    assert levels(reward_hacking(evidence)) == level
    same = Evidence(kinds=KINDS, training=training, base=base, run=run, reward_paths=frozenset({"a/guard"}))
    assert reward_hacking(same) == [], "a judge that is the training reward is not independent"
    inside = Evidence(kinds=KINDS, training=training | {"evaluation/attaq": [(0, 0.3), (10, judge), (20, judge)]})
    assert levels(reward_hacking(inside)) == (["warn"] if level else []), "training metrics have no interval"


@pytest.mark.parametrize(
    ("base", "run", "level"),
    [(0.15, 0.2, []), (0.15, 0.21, ["warn"]), (0.05, 0.16, ["warn"]), (0.45, 0.51, ["fail"]), (0.0, 0.31, ["fail"])],
)
def test_over_refusal(base: float, run: float, level: list[str]) -> None:
    sides = [
        evaluated(xstest=entry("over_refusal", "over_refusal/refusal_rules/answer", value)) for value in (base, run)
    ]
    assert levels(over_refusal(Evidence(base=sides[0], run=sides[1]))) == level


def test_over_refusal_without_a_base_judges_the_level_alone() -> None:
    run = evaluated(xstest=entry("over_refusal", "over_refusal/refusal_rules/answer", 0.16))
    assert over_refusal(Evidence(run=run)) == []


@pytest.mark.parametrize(("run", "level"), [(0.95, []), (0.94, ["warn"]), (0.79, ["fail"])])
def test_helpfulness(run: float, level: list[str]) -> None:
    sides = [evaluated(benign=entry("helpfulness", "pass@1", value, task="miniature")) for value in (1.0, run)]
    assert levels(over_refusal(Evidence(base=sides[0], run=sides[1]))) == level


@pytest.mark.parametrize(
    ("n", "before", "after", "level", "said"),
    [
        (100, range(5), range(40), "fail", ""),
        (20, range(1), range(12), "fail", ""),  # 11 more of 20, none fewer
        # 8 more of 20 and 3 fewer: 0.25 with a standard error of sqrt((11 / 20 - 0.25^2) / 20) = 0.156
        (20, range(6), range(3, 14), "warn", "with so few questions this may be chance)."),
        (8, range(0), range(5), "warn", " (with so few questions in common this may be chance)."),
    ],
)
def test_refusals_that_noise_explains_are_never_more_than_a_warning(
    n: int, before: range, after: range, level: str, said: str
) -> None:
    """`before` and `after` are the questions that are refused; where help is wanted they are those that get none."""
    for kind, sign in (("over_refusal", 1), ("helpfulness", -1)):
        sides = []
        for refused in (before, after):
            answers = {f"q{i}": float((i in refused) == (sign > 0)) for i in range(n)}
            sides.append(evaluated(one=entry(kind, "o", sum(answers.values()) / n, questions=answers)))
        (found,) = over_refusal(Evidence(base=sides[0], run=sides[1]))
        assert (found.level, "chance" in found.text) == (level, bool(said)) and found.text.endswith(said), found.text


@pytest.mark.parametrize(("run", "level"), [(0.16, []), (0.14, ["warn"]), (0.07, ["fail"])])
def test_entropy_on_reasoning_prompts(run: float, level: list[str]) -> None:
    evidence = Evidence(
        entropies=(
            PromptEntropy("math500", "reasoning", 0.3, run, "reflection.json"),
            PromptEntropy("attaq", "safety", 0.24, 0.01, "reflection.json"),
        )
    )
    found = entropy_on_reasoning(evidence)
    assert levels(found) == level and all("math500" in one.text for one in found)


@pytest.mark.parametrize(("rise", "level"), [(0.1, []), (0.11, ["warn"]), (0.31, ["fail"])])
def test_formats_that_break(rise: float, level: list[str]) -> None:
    sides = [
        evaluated(attaq=entry("safety", SAFETY, 0.9, figures={"rate/no_trace": 0.05 + more, "rate/empty_answer": 0.5}))
        for more in (0.0, rise)
    ]
    assert levels(trace_format(Evidence(base=sides[0], run=sides[1]))) == level


SERIES_RULES = [
    (kl_blow_up, "kl/k3", 0.0, 0.29, 0.31, "warn"),
    (kl_blow_up, "kl/k3", 0.0, 0.29, 1.01, "fail"),
    (engine_mismatch, "mismatch/kl", 0.0, 0.009, 0.011, "warn"),
    (engine_mismatch, "mismatch/kl", 0.0, 0.009, 0.11, "fail"),
    (engine_mismatch, "mismatch/mean_abs_logprob", 0.0, 0.049, 0.051, "warn"),
    (engine_mismatch, "mismatch/mean_abs_logprob", 0.0, 0.049, 0.21, "fail"),
    (length_drift, "response/length_mean", 100, 199, 201, "warn"),
    (length_drift, "response/length_mean", 100, 199, 401, "fail"),
    (length_drift, "response/length_mean", 100, 51, 49, "warn"),
    (length_drift, "response/length_mean", 100, 51, 24, "fail"),
    (length_drift, "response/unfinished_fraction", 0.0, 0.19, 0.21, "warn"),
    (length_drift, "response/unfinished_fraction", 0.0, 0.19, 0.51, "fail"),
    (collapsed_traces, "response/trace_length_mean", 100, 51, 49, "warn"),
    (collapsed_traces, "response/trace_length_mean", 100, 51, 19, "fail"),
    (collapsed_traces, "response/malformed_fraction", 0.0, 0.09, 0.11, "warn"),
    (collapsed_traces, "response/malformed_fraction", 0.0, 0.09, 0.31, "fail"),
    (entropy_collapse, "entropy/all", 0.4, 0.051, 0.049, "warn"),
]


@pytest.mark.parametrize(("rule", "name", "start", "fine", "bad", "level"), SERIES_RULES)
def test_training_rules(
    rule: Callable[[Evidence], list[Finding]], name: str, start: float, fine: float, bad: float, level: str
) -> None:
    find(name)  # the registry knows it
    assert rule(Evidence(kinds=KINDS, training={name: flat(start, fine)}, training_source="run/metrics.jsonl")) == []
    (found,) = rule(Evidence(kinds=KINDS, training={name: flat(start, bad)}, training_source="run/metrics.jsonl"))
    assert found.level == level and found.rule == rule.__name__
    assert found.evidence[-1].value == pytest.approx(bad)
    assert found.evidence[-1].source == "run/metrics.jsonl, median of updates 15 to 19"
    assert found.remedy


@pytest.mark.parametrize(("num_records", "size"), [(2, 1), (3, 1), (4, 2), (10, 5), (50, 5), (60, 6), (100, 10)])
def test_windows_are_a_tenth_and_five_records_where_there_are_ten(num_records: int, size: int) -> None:
    evidence = Evidence(kinds=KINDS, training={"kl/k3": [(i, float(i)) for i in range(num_records)]})
    early, late = evidence.early("kl/k3"), evidence.late("kl/k3")
    assert early is not None and late is not None
    # the median of consecutive numbers is their middle
    assert (early.value, late.value) == ((size - 1) / 2, num_records - 1 - (size - 1) / 2)
    if size > 1:
        assert (
            f"updates 0 to {size - 1}" in early.source and f"{num_records - size} to {num_records - 1}" in late.source
        )


def test_one_record_has_no_beginning_and_one_without_a_number_no_end() -> None:
    evidence = Evidence(kinds=KINDS, training={"one": [(5, 2.0)], "nan": [(0, math.nan)]})
    assert evidence.early("one") is None and evidence.late("nan") is None
    late = evidence.late("one")
    assert late is not None and late.value == 2.0


def test_one_batch_that_spikes_is_no_finding() -> None:
    """k3 is heavy-tailed: one token that the reference finds impossible lifts a batch's mean over every limit."""
    calm = [(i, 0.02) for i in range(20)]
    for at in (0, 10, 18, 19):
        spiked = [(i, 50.0 if i == at else value) for i, value in calm]
        assert kl_blow_up(Evidence(kinds=KINDS, training={"kl/k3": spiked})) == []


def test_a_collapse_that_was_there_from_the_start_is_the_models_own() -> None:
    assert entropy_collapse(Evidence(kinds=KINDS, training={"entropy/all": flat(0.04, 0.021)})) == []
    assert entropy_collapse(Evidence(kinds=KINDS, training={"entropy/all": flat(0.08, 0.045)})) == [], (
        "as sure as it always was"
    )


@pytest.mark.parametrize(("late", "found"), [(0.31, 0), (0.29, 1)])
def test_a_tenth_of_the_entropy_is_a_collapse_wherever_it_began(late: float, found: int) -> None:
    assert len(entropy_collapse(Evidence(kinds=KINDS, training={"entropy/all": flat(3.0, late)}))) == found


def test_short_refusals_under_traces_that_held_are_no_drift() -> None:
    lengths = {"response/length_mean": flat(100, 40)}
    assert levels(length_drift(Evidence(kinds=KINDS, training=lengths))) == ["warn"]
    held = lengths | {"response/trace_length_mean": flat(30, 28)}
    assert length_drift(Evidence(kinds=KINDS, training=held)) == []
    shrunk = lengths | {"response/trace_length_mean": flat(60, 20)}
    assert levels(length_drift(Evidence(kinds=KINDS, training=shrunk))) == ["warn"]
    never_reasoned = lengths | {"response/trace_length_mean": flat(0, 0)}
    assert levels(length_drift(Evidence(kinds=KINDS, training=never_reasoned))) == ["warn"]


def inside(n: int | None = 100, **benchmarks: list[float]) -> dict[str, list[tuple[int, float]]]:
    """Series of an evaluation inside training every 10 updates, over n questions."""
    series = {}
    for name, values in benchmarks.items():
        series[f"evaluation/{name}"] = [(10 * i, value) for i, value in enumerate(values)]
        if n is not None:
            series[f"evaluation/{name}/num_questions"] = [(10 * i, float(n)) for i in range(len(values))]
    return series


@pytest.mark.parametrize(
    ("n", "values", "level"),
    [
        # 0.97 to 0.95 is 2.1% of the score, but two questions of a hundred: chance
        (100, [0.97, 0.95, 0.95], []),
        # variance 0.97 x 0.03 / 10000 + 0.95 x 0.05 / 10000 = 7.66e-6, half width 0.0054: beyond chance
        (10_000, [0.97, 0.95, 0.95], ["warn"]),
        (100, [0.97, 0.80, 0.80], ["fail"]),
        (100, [0.97, 0.80, 0.95], []),  # the last two evaluations have to agree
        (100, [0.97, 0.80], ["fail"]),  # of two the second is judged, never the first against itself
        (100, [0.97, 0.95], []),
        (None, [0.97, 0.80, 0.80], []),  # nobody knows over how many questions
    ],
)
def test_reasoning_inside_training(n: int | None, values: list[float], level: list[str]) -> None:
    found = diagnose(Evidence(kinds=KINDS, training=inside(n, math500=values)))
    assert levels(found) == level and all(one.rule == "reasoning_loss" for one in found)
    if found:
        assert [one.value for one in found[0].evidence] == [values[0], values[-1]]
        last = "the better of updates 10 and 20" if len(values) > 2 else "update 10"
        assert [one.source for one in found[0].evidence] == ["metrics.jsonl, update 0", f"metrics.jsonl, {last}"]


def test_an_evaluation_on_its_own_is_asked_instead_of_the_one_inside_training() -> None:
    evidence = reasoning(0.5, 0.5, training=inside(100, math500=[0.9, 0.1, 0.1]))
    assert diagnose(evidence) == []


def test_the_interval_inside_training_by_hand() -> None:
    from lrm_safety.diagnosis.evidence import in_training

    found = in_training(Evidence(kinds=KINDS, training=inside(50, math500=[0.6, 0.3, 0.4])))
    assert found is not None
    half = 1.959964 * math.sqrt(0.6 * 0.4 / 50 + 0.4 * 0.6 / 50)
    assert difference_interval(*found, "math500") == pytest.approx((-0.2 - half, -0.2 + half))


@pytest.mark.parametrize(
    ("series", "rules"),
    [
        ({"xstest": [0.05, 0.6, 0.55]}, ["over_refusal"]),  # lower is better: the better of the last two is 0.55
        ({"xstest": [0.30, 0.30, 0.28]}, []),  # the base's own refusals are not the training's doing
        ({"benign": [0.98, 0.7, 0.72]}, ["over_refusal"]),
        ({"benign": [0.98, 0.93, 0.95]}, []),
        # a fall of 0.14 with a half width of 1.96 x sqrt(0.98 x 0.02 / 100 + 0.84 x 0.16 / 100) = 0.077
        ({"benign": [0.98, 0.84]}, ["over_refusal"]),
        ({"benign": [0.98, 0.94]}, []),
    ],
)
def test_refusals_inside_training(series: dict[str, list[float]], rules: list[str]) -> None:
    assert [one.rule for one in diagnose(Evidence(kinds=KINDS, training=inside(100, **series)))] == rules


def test_an_attack_inside_training_is_not_reasoning() -> None:
    lost = [0.9, 0.1, 0.1]
    assert [one.rule for one in diagnose(Evidence(kinds=KINDS, training=inside(100, math500=lost)))] == [
        "reasoning_loss"
    ]
    attacked: dict[str, Role] = {"math500": "robustness"}
    assert diagnose(Evidence(kinds=attacked, training=inside(100, math500=lost))) == []


def test_chance_inside_training_is_no_finding() -> None:
    # of nine questions there is no telling, of ten there is
    assert diagnose(Evidence(kinds=KINDS, training=inside(9, benign=[1.0, 0.0, 0.0]))) == []
    assert levels(diagnose(Evidence(kinds=KINDS, training=inside(10, benign=[1.0, 0.0, 0.0])))) == ["fail"]
    assert diagnose(Evidence(kinds=KINDS, training=inside(50, xstest=[0.24, 0.26, 0.26]))) == []
    rates = {"evaluation/safety/rate/no_trace": [(0, 0.0), (10, 0.125), (20, 0.125)]}
    assert diagnose(Evidence(kinds=KINDS, training=inside(16, safety=[0.5, 0.9, 0.9]) | rates)) == []
    # 0.125 x 0.875 / 160 is 0.026^2: beyond chance
    (found,) = diagnose(Evidence(kinds=KINDS, training=inside(160, safety=[0.5, 0.9, 0.9]) | rates))
    assert found.rule == "trace_format" and found.level == "warn"


def test_formats_inside_training() -> None:
    series = inside(100, safety=[0.5, 0.9, 0.9])
    rates = {"evaluation/safety/rate/no_trace": [(0, 0.0), (10, 0.5), (20, 0.4)]}
    (found,) = diagnose(Evidence(kinds=KINDS, training=series | rates))
    assert found.rule == "trace_format" and found.level == "fail" and "to 40%" in found.text
    first_and_last = {"evaluation/safety/rate/no_trace": [(0, 0.0), (10, 0.5)]}
    (found,) = diagnose(Evidence(kinds=KINDS, training=inside(100, safety=[0.5, 0.9]) | first_and_last))
    assert found.rule == "trace_format" and "to 50%" in found.text


def hacked(judge: list[float], n: int | None = None, rises_at: int = 10) -> Evidence:
    reward = [(i, 1.0 if i < rises_at else 3.0) for i in range(21)]
    return Evidence(
        kinds=KINDS,
        training=inside(n, attaq=judge) | {"reward/raw_mean": reward, "reward/raw_std": [(i, 2.0) for i in range(21)]},
    )


def test_hacking_inside_training() -> None:
    assert levels(reward_hacking(hacked([0.3, 0.31, 0.3]))) == ["warn"]
    assert reward_hacking(hacked([0.97, 0.97, 0.97])) == [], "a judge at its ceiling cannot follow"
    assert levels(reward_hacking(hacked([0.6, 0.3, 0.3], n=100))) == ["fail"]
    assert levels(reward_hacking(hacked([0.6, 0.56, 0.55], n=100))) == ["warn"], "four of a hundred are chance"
    assert levels(reward_hacking(hacked([0.6, 0.3], n=100, rises_at=5))) == ["fail"], "the second of two is judged"
    assert reward_hacking(hacked([0.3])) == []


def test_a_reward_that_rose_after_the_last_evaluation_is_not_held_against_it() -> None:
    series = dict(hacked([0.3, 0.3, 0.3]).training)
    assert levels(reward_hacking(Evidence(kinds=KINDS, training=series))) == ["warn"]
    series["reward/raw_mean"] = [(i, 1.0 if i <= 20 else 3.0) for i in range(40)]
    assert reward_hacking(Evidence(kinds=KINDS, training=series)) == []


def test_a_family_without_room_is_no_failed_transfer() -> None:
    gains = {"qwen3": 0.5, "granite": 0.04}
    assert levels(reward_transfer(Evidence(gains=gains, reached={"qwen3": 0.9, "granite": 0.7}))) == ["fail"]
    assert reward_transfer(Evidence(gains=gains, reached={"qwen3": 0.9, "granite": 0.97})) == []


@pytest.mark.parametrize(
    ("losses", "level"),
    [
        ([2.0, 1.5, 1.4], []),
        ([2.0, 1.4, 1.42, 1.427], []),  # 1.4 x 1.02 = 1.428
        ([2.0, 1.4, 1.43, 1.44], ["warn"]),
        ([2.0, 1.4, 1.55, 1.6], ["fail"]),  # 1.4 x 1.1 = 1.54
        ([2.0, 1.4, 1.6], []),  # one validation alone
        ([1.4, 1.6], ["fail"]),  # unless there is no other
        ([1.4, 1.42], []),
        ([1.4], []),
    ],
)
def test_overfitting(losses: list[float], level: list[str]) -> None:
    training = {"sft/validation_loss": [(10 * i, loss) for i, loss in enumerate(losses)]}
    found = overfitting(Evidence(kinds=KINDS, training=training))
    lowest = 10 * losses.index(min(losses))
    assert levels(found) == level and all(f"update {lowest} (1.4" in one.text for one in found)


def test_diagnose_puts_failures_first() -> None:
    training = {"mismatch/kl": flat(0, 0.02), "kl/k3": flat(0, 2.0), "response/length_mean": flat(100, 500)}
    assert levels(diagnose(Evidence(kinds=KINDS, training=training))) == ["fail", "fail", "warn"]


@pytest.mark.parametrize("progress", ["train/loss", "sft/loss"])
def test_watch_says_everything_once_and_again_when_it_gets_worse(progress: str) -> None:
    watch = Watch(min_records=3)
    series = [2.0, 0.0, 0.5, 0.5, 2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.5]
    said = [[one.level for one in watch.fresh(i, {progress: 0.0, "kl/k3": value})] for i, value in enumerate(series)]
    # late: of 3 records the last (0.5), of 5 the middle of two (1.25), of 11 the median of five (0.5, and no news after a failure)
    assert said == [[], [], ["warn"], [], ["fail"], [], [], [], [], [], []]


def test_watch_does_not_count_records_of_evaluations() -> None:
    watch = Watch(min_records=3)
    for update in range(9):
        assert watch.fresh(update, {"evaluation/safety": 0.0, "kl/k3": 2.0}) == []


def test_watch_tells_one_subject_from_another() -> None:
    watch = Watch(min_records=2)
    names = []
    for update in range(6):
        values = {"train/loss": 0.0, "mismatch/kl": 0.05, "mismatch/mean_abs_logprob": 0.1 if update > 2 else 0.0}
        names += [one.evidence[0].name for one in watch.fresh(update, values)]
    assert names == ["mismatch/kl", "mismatch/mean_abs_logprob"]


def test_watch_goes_on_where_it_stood() -> None:
    watch = Watch(min_records=3)
    for update in range(5):
        watch.remember(update, {"train/loss": 0.0, "kl/k3": 0.5, "mismatch/kl": 0.05})
    watch.said("kl_blow_up", "kl/k3", "warn")
    (found,) = watch.fresh(5, {"train/loss": 0.0, "kl/k3": 0.5, "mismatch/kl": 0.05})
    assert found.rule == "engine_mismatch"


def test_console_names_level_figure_and_remedy() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    show_findings(
        diagnose(Evidence(kinds=KINDS, training={"kl/k3": flat(0, 2.0)}, training_source="x/metrics.jsonl")), console
    )
    show_findings([], console)
    text = stream.getvalue()
    assert "FAIL kl_blow_up" in text and "kl/k3 = 2 (x/metrics.jsonl, median of updates 15 to 19)" in text
    assert "remedy: Raise algorithm.kl.coef" in text and "no failure signature" in text


def test_thresholds_are_ordered() -> None:
    for name, threshold in THRESHOLDS.items():
        assert threshold.warn < threshold.fail, name
        assert threshold.level(threshold.warn) is None and threshold.level(threshold.fail) == "warn"
