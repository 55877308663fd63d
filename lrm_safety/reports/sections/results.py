"""What the evaluations found: the main table, the paper's own figures, differences from the base, and everything behind."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...evaluation.compare import clusters_of
from ...evaluation.results import headlines, judge_notes
from ...results import Difference
from ...statistics import paired_difference
from ..album import Album
from ..combine import before_training, benchmarks_of, combine, figure_of
from ..folders import Study, Subject, paired
from ..html import absent, cell, folded, slug, table
from ..published import BENCHMARKS, NOTE, PAPER, REFLECTION, REFLECTION_TITLES, TITLES, published

ROLE_NAMES = {
    "safety": "safety",
    "reasoning": "reasoning",
    "helpfulness": "helpfulness",
    "over_refusal": "over-refusal, lower is better",
    "robustness": "robustness",
}
FOLDED_ABOVE = 30
"""A longer table of differences is shown when the reader asks for it."""


def results(study: Study, album: Album) -> str:
    """The main table, the paper's own, and differences from the base."""
    main = main_table(study) or absent("No evaluation was given", "lrm-safety evaluate model=... evaluation=[...]")
    differences = difference_table(study)
    return (
        main
        + judges_error(study)
        + measured_table(study)
        + (f"<h3>Differences from the base</h3>{differences}" if differences else "")
        + f"<h3>The paper's own figures</h3>{published_table()}"
    )


def main_table(study: Study) -> str:
    """Models x benchmarks, the primary figure of each; a run that was never evaluated shows its own evaluation."""
    found = benchmarks_of(study)
    if not found:
        return ""
    rows = []
    for subject in study.subjects:
        first = [before_training(subject, name) for name in found]
        if study.base is None and not subject.evaluations and any(first):
            rows.append([f"{escape(subject.name)}, at update 0", *map(cell, first)])
        figures = [figure_of(subject, name) for name in found]
        if any(figures):
            beside = [published(name, subject.role) for name in found]
            rows.append([escape(subject.name), *map(cell, figures, beside)])
    return table(
        "Primary figure of each benchmark with its 95% interval: over questions of one evaluation, Student's over runs "
        'where there are several. <span class="paper">paper: ...</span> is printed in the paper, not measured here.',
        ["model", *(f"{escape(name)}<small>{ROLE_NAMES[role]}</small>" for name, role in found.items())],
        rows,
        identity="main",
        kind="main",
    )


def judges_error(study: Study) -> str:
    """How far the judges behind the figures may be off, as far as that was measured; `training` shows it of a run's own."""
    evaluations = [one.results.judges for subject in study.subjects for one in subject.evaluations]
    lines = dict.fromkeys(line for judges in evaluations for line in judge_notes(judges))
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def measured_table(study: Study) -> str:
    """What the primary figure of each benchmark is, and over how many questions: of the first evaluation that has it."""
    rows = []
    for name in benchmarks_of(study):
        first = next(
            (
                (one.results.protocol.name, entry)
                for subject in study.subjects
                for one in subject.evaluations
                if (entry := one.results.benchmarks.get(name))
            ),
            None,
        )
        if first:
            protocol, entry = first
            primary = f"<code>{escape(entry.primary)}</code>"
            numbers = [str(entry.data.num_questions), str(entry.samples)]
            rows.append([escape(name), primary, *numbers, escape(protocol), escape(entry.data.source)])
    if not rows:
        return ""
    caption = (
        "The judge of a safety figure is the word after <code>safety/</code>, the part that it read the one after."
    )
    head = ["benchmark", "figure", "questions", "responses each", "protocol", "data"]
    shown = table(caption, head, rows, identity="measured", figures=(2, 3))
    return folded("What each figure is", shown)


def published_table() -> str:
    """The paper's figures on their own, whether or not this report measured the like."""
    rows = [
        [
            role,
            *(BENCHMARKS[name].get(role, "–") for name in TITLES),
            *(REFLECTION[name].get(role, "–") for name in REFLECTION_TITLES),
        ]
        for role in ("base", "sft", "rl")
    ]
    head = [PAPER, *TITLES.values(), *REFLECTION_TITLES.values()]
    return table(NOTE, head, rows, identity="published", kind="published")


def difference_table(study: Study) -> str:
    """Every model less its base on the same questions; of several seeds the mean of their differences."""
    rows = []
    for subject in study.subjects:
        base = study.base_of(subject)
        if base is None or base is subject or subject.role == "base":
            continue
        for name in benchmarks_of(study):
            found = _differences(base, subject, name)
            one = combine(found)
            if one is None:
                continue
            p = found[0].p_value if len(found) == 1 else None
            p_value = "–" if p is None else "&lt; 0.001" if p < 0.001 else f"{p:.3f}"
            interval = "–" if one.low is None else f"{one.low:+.3f} to {one.high:+.3f}"
            rows.append([escape(subject.name), escape(name), f"<b>{one.value:+.3f}</b>", interval, p_value, one.over])
    if not rows:
        return ""
    shown = table(
        "Over the questions that both a model and its base of the same seed answered. p: McNemar's or the sign-flip test, of one "
        "evaluation each.",
        ["model", "benchmark", "difference", "95% interval", "p", "over"],
        rows,
        identity="differences",
        figures=range(2, 6),
    )
    return shown if len(rows) <= FOLDED_ABOVE else folded(f"{len(rows)} differences", shown)


def _differences(base: Subject, subject: Subject, benchmark: str) -> list[Difference]:
    found = []
    for evaluation, other in zip(subject.evaluations, paired(subject.evaluations, base.evaluations), strict=True):
        if other is None:
            continue
        mine, theirs = (one.results.benchmarks.get(benchmark) for one in (evaluation, other))
        if not mine or not theirs or mine.primary != theirs.primary:
            continue
        one = paired_difference(
            mine.questions,
            theirs.questions,
            clusters=clusters_of(mine, theirs),
            seed=evaluation.results.seed,
        )
        if one.estimate.n:
            found.append(Difference.between(one))
    return found


def every_figure(study: Study, album: Album) -> str:
    """The figures behind the primary ones, benchmark by benchmark."""
    parts = []
    for benchmark in benchmarks_of(study):
        names = dict.fromkeys(
            name
            for subject in study.subjects
            for evaluation in subject.evaluations
            if (entry := evaluation.results.benchmarks.get(benchmark))
            for name in [*headlines(entry), *(name for name in entry.figures if name.startswith("length/"))]
        )
        if names and (shown := figures_table(study, benchmark, list(names))):
            parts.append(folded(escape(benchmark), shown))
    return "".join(parts) or absent("No evaluation was given", "lrm-safety evaluate ...")


def figures_table(study: Study, benchmark: str, names: Sequence[str]) -> str:
    """Further figures of one benchmark: rows are figures, columns models."""
    shown = [one for one in study.subjects if one.evaluations]
    rows = []
    for name in names:
        values = [figure_of(subject, benchmark, name) for subject in shown]
        if any(values):
            rows.append([f"<code>{escape(name)}</code>", *map(cell, values)])
    head = ["figure", *(escape(one.name) for one in shown)]
    caption = f"Scores, rates and lengths of {escape(benchmark)}, with 95% intervals."
    return table(caption, head, rows, identity=f"all-{slug(benchmark)}") if rows else ""
