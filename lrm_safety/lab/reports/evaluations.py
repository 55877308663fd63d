"""What the evaluations found: before and after at a glance, the main table, differences, categories, everything behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...evaluation.figures import lower_is_better
from ...evaluation.results import compared_figures, direction, headlines, judge_notes, shared
from ...results import Difference
from . import figures
from .album import AT_START, START, Album, Fold, Part, Picture, Pictures, Text, Value, slug
from .combine import (
    Combined,
    arms_compared,
    before_training,
    benchmarks_of,
    combine,
    differences,
    figure_of,
    mean_of_role,
    means_of_runs,
    pairs_of,
    remarks,
    start_of_role,
)
from .folders import Study
from .sweep import compare_each, tables
from .tables import ABSENT, Cell, Table, cell, in_a_sentence

ROLE_NAMES = {
    "safety": "safety",
    "reasoning": "reasoning",
    "helpfulness": "helpfulness",
    "over_refusal": "over-refusal, lower is better",
    "robustness": "robustness",
}
LABELS = ("label", "category", "level2", "functional_category", "risk")
"""Groups of questions that a safety benchmark may have."""
FOLDED_ABOVE = 30
"""A longer table of differences is shown when the reader asks for it."""

# The paper's own figures, as printed there: other models, other data, another judge. Shown beside ours, never mixed in.
PAPER = "Beyond SFT"
BENCHMARKS: dict[str, dict[str, str]] = {
    "attaq": {"base": "0.37", "sft": "0.76", "rl": "0.92"},
    "gpqa_diamond": {"base": "49.24", "sft": "47.54", "rl": "49.06"},
}
"""By benchmark and role."""
UNITS = {"gpqa_diamond": "%"}  # where the paper's is not ours
REFLECTION: dict[str, dict[str, str]] = {
    "attaq": {"base": "0.24", "rl": "0.09"},
    "aime24": {"base": "3.12", "rl": "3.00"},
}
"""Entropy at reflection tokens, by benchmark and role; its definition and unit are not published."""
TITLES = {"attaq": "AttaQ safety", "gpqa_diamond": "GPQA-Diamond, %"}
REFLECTION_TITLES = {"attaq": "reflection entropy on AttaQ", "aime24": "reflection entropy on AIME 2024"}
NOTE = (
    "Printed in the paper and not measured here: its models, prompts, judge and response limits are not those of this report. "
    "Its definition of reflection entropy is not published."
)


def published(benchmark: str, role: str | None) -> str | None:
    """The paper's figure with its unit for this benchmark and role, or None."""
    name = _papers_name(benchmark)
    found = BENCHMARKS.get(name, {}).get(role or "")
    return found and f"{found}{UNITS.get(name, '')}"


def published_entropy(benchmark: str, role: str | None) -> str | None:
    """The paper's entropy at reflection tokens for this benchmark and role, or None."""
    return REFLECTION.get(_papers_name(benchmark), {}).get(role or "")


def _papers_name(benchmark: str) -> str:
    """AttaQ under another name is AttaQ too; under an attack (`attaq_empty_trace`) it is not."""
    return "attaq" if benchmark in ("attaq_clean", "attaq_500") else benchmark


def glance(study: Study, album: Album) -> list[Part]:
    """Safety, reasoning and what else was measured, before and after; and one against the other."""
    pictures = []
    points: dict[str, dict[str, Combined]] = {}
    names: dict[str, list[str]] = {}
    for role in sorted(dict.fromkeys(benchmarks_of(study).values()), key=list(ROLE_NAMES).index):
        values = {}
        for subject in study.subjects:
            if start := start_of_role(study, subject, role):
                values[f"{subject.name}{AT_START}"] = start
            if found := mean_of_role(study, subject, role):
                values[subject.name], names[role] = found
        if values:
            points[role] = values
            pictures += _at_a_glance(album, role, values, names.get(role, []))
    lines = _sentences(study, points, names)
    pictures[2 * len(album.groups) : 0] = _tradeoff(study, album, points, names)
    return [*([Text(lines)] if lines else []), *([Pictures(pictures)] if pictures else [])]


def _with_one_start(values: Mapping[str, Value]) -> dict[str, Value]:
    """The same with one entry for what several models were at update 0, where all of them say the same of it."""
    starts = {name: value for name, value in values.items() if name.endswith(AT_START)}
    first = next(iter(starts.values()), None)
    if first is None or len(starts) < 2 or any(one != first for one in starts.values()):
        return dict(values)
    return {START: first} | {name: value for name, value in values.items() if name not in starts}


def _at_a_glance(album: Album, role: str, values: Mapping[str, Combined], names: Sequence[str]) -> list[Picture]:
    title = role.replace("_", "-")
    label = "share" if list(names) == [role] else f"share: {_over(names)}"
    better = "less is better" if role == "over_refusal" else "more is better"
    return album.add(
        slug("glance", role),
        _with_one_start(values),
        lambda mine, group: figures.dots(
            mine, album.looks, title=f"{title}, {group}" if group else title, x_label=label
        ),
        f"{title.capitalize()} with 95% intervals; {better}.",
        lambda mine: f"{title}: " + "; ".join(f"{name} {one.value:.3f}" for name, one in mine.items()),
    )


def _over(names: Sequence[str]) -> str:
    return f"mean of {len(names)} benchmarks" if len(names) > 2 else " and ".join(names)


def _sentences(
    study: Study, points: Mapping[str, Mapping[str, Combined]], names: Mapping[str, Sequence[str]]
) -> list[str]:
    """What became of each trained model, and how RL compares with every other arm."""
    lines = []
    for subject in study.subjects:
        base = study.base_of(subject)
        start = f"{subject.name}{AT_START}" if base is None else base.name
        told = []
        for role in ("safety", "reasoning"):
            values = points.get(role, {})
            if subject.role != "base" and start in values and subject.name in values and start != subject.name:
                told.append(f"{role} {values[start].value:.3f} → {in_a_sentence(values[subject.name])}")
        if told:
            lines.append(f"{subject.name}, from {'update 0' if base is None else base.name}: {'; '.join(told)}")
    for subject, other in arms_compared(study):
        if subject.role == "rl" and other.role != "base":
            told = [
                f"{name} {one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
                for role in ("safety", "reasoning")
                for name in names.get(role, [])[:2]
                for one in [combine(differences(subject, other, name), share=True)]
                if one and one.low is not None and one.high is not None
            ]
            if told:
                lines.append(f"{subject.name} less {other.name}, on the same questions: {', '.join(told)}")
    return lines


def _tradeoff(
    study: Study, album: Album, values: Mapping[str, Mapping[str, Combined]], names: Mapping[str, list[str]]
) -> list[Picture]:
    """Safety against reasoning, where there are two points or more to compare."""
    reasoning, safety = (values.get(role, {}) for role in ("reasoning", "safety"))
    points = {name: (x, safety[name]) for name, x in reasoning.items() if name in safety}
    if len(points) < 2:
        return []
    seeds = {}
    for subject in study.subjects:
        a, b = (means_of_runs(subject, names.get(role, [])) for role in ("reasoning", "safety"))
        if len(a) == len(b) > 1:
            seeds[subject.name] = list(zip(a, b, strict=True))
    x_label, y_label = (
        role if names[role] == [role] else f"{role}: {_over(names[role])}" for role in ("reasoning", "safety")
    )
    return album.add(
        "tradeoff",
        _with_one_start(points),
        lambda mine, group: figures.scatter(
            mine, album.looks, title=group or "safety and reasoning", x_label=x_label, y_label=y_label, seeds=seeds
        ),
        f"Right and up is better. Bars are 95% intervals{', faint marks single runs' if seeds else ''}; a dotted line joins the "
        "models that no other beats in one without losing in the other.",
        lambda mine: (
            "Scatter of safety against reasoning: "
            + "; ".join(f"{name} reasoning {x.value:.3f}, safety {y.value:.3f}" for name, (x, y) in mine.items())
        ),
    )


def results(study: Study, album: Album) -> list[Part]:
    """The main table, differences, what each figure is, the paper's own."""
    found = benchmarks_of(study)
    if not found:
        return []
    parts: list[Part] = [main_table(study)]
    evaluations = [one.results.judges for subject in study.subjects for one in subject.evaluations]
    # How far the judges may be off, as far as that was measured; `training` shows it of a run's own.
    notes = remarks(study) + list(dict.fromkeys(line for judges in evaluations for line in judge_notes(judges)))
    if notes:
        parts.append(Text(notes, "note"))
    if (compared := difference_table(study)).rows:
        long = len(compared.rows) > FOLDED_ABOVE
        parts.append(Fold(f"{len(compared.rows)} differences", [compared]) if long else compared)
    parts += configuration_tables(study)
    if (measured := measured_table(study)).rows:
        parts.append(Fold("What each figure is", [measured]))
    if any(_papers_name(name) in BENCHMARKS for name in found):
        parts.append(Fold("The paper's own figures", [published_table()]))
    return parts


def configuration_tables(study: Study) -> list[Table]:
    """The training runs by configuration, where there are several of them."""
    runs = study.every_run
    return tables(compare_each(runs)) if len([run for run in runs if run.updates]) > 1 else []


def main_table(study: Study) -> Table:
    """Models x benchmarks, the primary figure of each; a run that was never evaluated shows its own evaluation."""
    found = benchmarks_of(study)
    rows: list[list[str | Cell]] = []
    for subject in study.subjects:
        first = [before_training(subject, name) for name in found]
        if study.base_of(subject) is None and not subject.evaluations and any(first):
            rows.append([f"{subject.name}{AT_START}", *map(cell, first)])
        shown = [figure_of(subject, name) for name in found]
        if any(shown):
            beside = [published(name, subject.role) for name in found]
            rows.append([subject.name, *map(cell, shown, beside)])
    paper = any(published(name, subject.role) for name in found for subject in study.subjects)
    return Table(
        "main",
        "Primary figure of each benchmark, a share from 0 to 1, with its 95% interval: over questions of one evaluation, "
        "Student's over runs where there are several."
        + (" What stands behind a bar (paper: ...) is printed in the paper, not measured here." if paper else ""),
        ["model", *((name, ROLE_NAMES[role]) for name, role in found.items())],
        rows,
        spare=0,
    )


def difference_table(study: Study) -> Table:
    """Every model less its base, and RL less every other arm, on the same questions; of several seeds the mean. Of over-refusal
    the safety of the unsafe prompts too, without which refusing nothing would be the best."""
    arms = arms_compared(study)
    pairs = [pair for subject, other in arms for pair in pairs_of(subject, other)]
    columns: dict[tuple[str, str], None] = {}
    for name in benchmarks_of(study):
        for mine, theirs in pairs:
            if name in shared(mine, theirs):
                figures_of_both = compared_figures(mine.benchmarks[name], theirs.benchmarks[name])
                columns |= dict.fromkeys((name, figure) for figure in figures_of_both)
    rows: list[list[str | Cell]] = []
    for subject, other in arms:
        cells = [_difference(differences(subject, other, name, figure), figure) for name, figure in columns]
        if any(one.text != ABSENT for one in cells):
            rows.append([f"{subject.name} less {other.name}", *cells])
    caption = (
        "Differences over the questions that both models of a seed answered, with 95% intervals. "
        "p: McNemar's or the sign-flip test. Better or worse: the interval excludes 0, and p is below 0.05 where there is one."
    )
    head = ["models", *(_heading(*one, study) for one in columns)]
    return Table("differences", caption, head, rows)


def _heading(benchmark: str, figure: str, study: Study) -> str | tuple[str, str]:
    """The benchmark, with what is not told by its primary figure: that less is better, or which figure it is."""
    entries = (one.results.benchmarks.get(benchmark) for subject in study.subjects for one in subject.evaluations)
    if any(one is not None and one.primary == figure for one in entries):
        return (benchmark, "lower is better") if lower_is_better(figure) else benchmark
    return benchmark, figure


def _difference(found: Sequence[Difference], figure: str) -> Cell:
    """Difference, interval, which way it clearly is; of one seed its test and number of questions."""
    told = cell(combined := combine(found, share=True), signed=True)
    p_value = found[0].p_value if len(found) == 1 else None
    notes = [] if combined is None else [direction(figure, combined.value, combined.low, combined.high, p_value)]
    if len(found) == 1:
        (one,) = found
        notes += [] if one.p_value is None else ["p < 0.001" if one.p_value < 0.0005 else f"p = {one.p_value:.3f}"]
        notes.append(f"{one.n} questions")
    return replace(told, notes=(*told.notes, *notes))


def measured_table(study: Study) -> Table:
    """What the primary figure of each benchmark is, and over how many questions: of the first evaluation that has it."""
    rows: list[list[str | Cell]] = []
    evaluations = [one.results for subject in study.subjects for one in subject.evaluations]
    for name in benchmarks_of(study):
        first = next(((one.protocol.name, entry) for one in evaluations if (entry := one.benchmarks.get(name))), None)
        if first:
            protocol, entry = first
            numbers = [str(entry.data.num_questions), str(entry.samples)]
            rows.append([name, f"`{entry.primary}`", *numbers, protocol, entry.data.source])
    return Table(
        "measured",
        "The judge of a safety figure is the word after `safety/`, the part that it read the one after.",
        ["benchmark", "figure", "questions", "responses each", "protocol", "data"],
        rows,
        words=(0, 1, 4, 5),
    )


def published_table() -> Table:
    """The paper's figures on their own."""
    rows = [
        [
            role,
            *(BENCHMARKS[name].get(role, "–") for name in TITLES),
            *(REFLECTION[name].get(role, "–") for name in REFLECTION_TITLES),
        ]
        for role in ("base", "sft", "rl")
    ]
    return Table("published", NOTE, [PAPER, *TITLES.values(), *REFLECTION_TITLES.values()], rows, printed=True)


def categories(study: Study, album: Album) -> list[Part]:
    """Safety by label of every safety benchmark."""
    parts: list[Part] = []
    pictures: list[Picture] = []
    tables: list[Table] = []
    shown = [one for one in study.subjects if one.evaluations]
    entries = [one.results.benchmarks for subject in shown for one in subject.evaluations]
    for benchmark, role in benchmarks_of(study).items():
        entry = next((one[benchmark] for one in entries if benchmark in one), None)
        if role != "safety" or entry is None:
            continue
        for group in LABELS:
            prefix = f"{entry.primary}@{group}="
            labels = [name.removeprefix(prefix) for name in entry.figures if name.startswith(prefix)]
            if len(labels) >= 2:
                values = {
                    one.name: row
                    for one in shown
                    if any(row := [figure_of(one, benchmark, f"{prefix}{label}") for label in labels])
                }
                caption = f"`{entry.primary}` by {group}, with 95% intervals."
                pictures += _by_label(album, benchmark, group, labels, values, caption)
                rows: list[list[str | Cell]] = [
                    [label, *(cell(row[i]) for row in values.values())] for i, label in enumerate(labels)
                ]
                tables.append(Table(slug("by", benchmark, group), f"{benchmark}: {caption}", [group, *values], rows))
    if len(pictures) == 1:
        parts.append(Pictures(pictures, beside=tables[0]))
    elif pictures:
        parts += [Pictures(pictures), *(Fold(f"{one.name.replace('-', ' ')}, as a table", [one]) for one in tables)]
    return parts


def _by_label(
    album: Album,
    benchmark: str,
    group: str,
    labels: list[str],
    values: Mapping[str, list[Combined | None]],
    caption: str,
) -> list[Picture]:
    def tell(mine: Mapping[str, list[Combined | None]]) -> str:
        told = (
            f"{label} " + ", ".join(f"{name} {one.value:.3f}" for name, row in mine.items() if (one := row[i]))
            for i, label in enumerate(labels)
        )
        return f"Safety on {benchmark} by {group}: {'; '.join(told)}"

    return album.add(
        slug("categories", benchmark, group),
        values,
        lambda mine, models: figures.bars(
            labels, mine, album.looks, title=f"{benchmark}, {models}" if models else benchmark, x_label="safety"
        ),
        caption,
        tell,
    )


def every_figure(study: Study, album: Album) -> list[Part]:
    """The figures behind the primary ones, benchmark by benchmark."""
    parts: list[Part] = []
    shown = [one for one in study.subjects if one.evaluations]
    for benchmark in benchmarks_of(study):
        names = dict.fromkeys(
            name
            for subject in shown
            for evaluation in subject.evaluations
            if (entry := evaluation.results.benchmarks.get(benchmark))
            for name in [*headlines(entry), *(name for name in entry.figures if name.startswith("length/"))]
        )
        found = {name: [figure_of(subject, benchmark, name) for subject in shown] for name in names}
        rows: list[list[str | Cell]] = [
            [f"`{name}`", *map(cell, values)] for name, values in found.items() if any(values)
        ]
        if rows:
            caption = f"Scores, rates and lengths of {benchmark}, with 95% intervals."
            head = ["figure", *(one.name for one in shown)]
            parts.append(Fold(benchmark, [Table(f"all-{slug(benchmark)}", caption, head, rows)]))
    return parts
