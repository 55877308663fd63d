"""The figures of a report, one function each: plain numbers in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .combine import Combined, pareto
from .style import Look, tidy

Points = Sequence[tuple[float, float]]
Looks = Mapping[str, Look]
"""Of every name that is drawn: the same in all figures of a report."""
WIDTH = 5.6
"""Inches; narrow enough that text stays readable on a telephone."""


def scatter(
    points: Mapping[str, tuple[Combined, Combined]],
    looks: Looks,
    *,
    x_label: str,
    y_label: str,
    seeds: Mapping[str, Points] | None = None,
) -> Figure:
    """Subjects by (reasoning, safety) with their intervals and the frontier; single seeds as faint marks."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    for name, (x, y) in points.items():
        style = looks[name]
        for a, b in (seeds or {}).get(name, ()):
            axes.plot(a, b, marker=style.marker, color=style.colour, alpha=0.35, markersize=4, linestyle="")
        axes.errorbar(
            x.value,
            y.value,
            xerr=_bars(x),
            yerr=_bars(y),
            color=style.colour,
            marker=style.marker,
            markersize=9,
            capsize=3,
            linestyle="",
            label=name,
        )
        axes.annotate(name, (x.value, y.value), xytext=(9, 7), textcoords="offset points", fontweight="bold")
    values = [(x.value, y.value) for x, y in points.values()]
    frontier = [values[i] for i in pareto(values)]
    if len(frontier) > 1:
        xs, ys = zip(*frontier, strict=True)
        axes.step(xs, ys, where="pre", linestyle=":", linewidth=1.4, color=axes.xaxis.label.get_color(), zorder=0)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.margins(0.22)
    tidy(axes, grid="both")
    return figure


def curves(series: Mapping[str, Sequence[Points]], looks: Looks, *, title: str, y_label: str) -> Figure:
    """One metric over updates, a line a subject; several seeds are drawn thin, their mean thick."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    for name, runs in series.items():
        style = looks[name]
        if len(runs) > 1:
            for run in runs:
                axes.plot(*zip(*run, strict=True), color=style.colour, alpha=0.3, linewidth=0.8)
        mean = _mean(runs)
        updates, values = zip(*mean, strict=True)
        every = max(1, len(updates) // 8)
        axes.plot(
            updates,
            values,
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markevery=every,
            markersize=4.5,
            linewidth=1.8,
            label=name if len(runs) == 1 else f"{name}, mean of {len(runs)}",
        )
    axes.set(title=title, xlabel="update", ylabel=y_label)
    _legend(axes, len(series))
    tidy(axes)
    return figure


def bars(
    groups: Sequence[str],
    values: Mapping[str, Sequence[Combined | None]],
    looks: Looks,
    *,
    x_label: str,
    share: bool = True,
) -> Figure:
    """Horizontal bars: a block for each group, a bar for each subject, with intervals."""
    each = 0.8 / max(1, len(values))
    figure, axes = plt.subplots(
        figsize=(WIDTH, 1.1 + len(groups) * max(0.34, 0.19 * len(values))), layout="constrained"
    )
    for i, (name, row) in enumerate(values.items()):
        style = looks[name]
        places = [position - 0.4 + each * (i + 0.5) for position, one in enumerate(row) if one is not None]
        present = [one for one in row if one is not None]
        if not present:
            continue
        axes.barh(
            places,
            [one.value for one in present],
            height=each * 0.92,
            color=style.colour,
            hatch=style.hatch,
            edgecolor=axes.xaxis.label.get_color(),
            linewidth=0.5,
            label=name,
        )
        for place, one in zip(places, present, strict=True):
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [place, place], color=axes.xaxis.label.get_color(), linewidth=1.2)
    axes.set_yticks(range(len(groups)), [group if len(group) < 32 else f"{group[:30]}…" for group in groups])
    axes.invert_yaxis()
    if share:
        axes.set_xlim(0, 1.02)
    axes.set_xlabel(x_label)
    _legend(axes, len(values))
    tidy(axes, grid="x")
    return figure


def along_trace(tenths: Mapping[str, Sequence[Combined | None]], looks: Looks, *, title: str) -> Figure:
    """Entropy in each tenth of the trace, a line a model, with intervals as bands."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    for name, row in tenths.items():
        style = looks[name]
        present = [(place + 1, one) for place, one in enumerate(row) if one is not None]
        if not present:
            continue
        places = [place for place, _ in present]
        axes.plot(
            places,
            [one.value for _, one in present],
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markersize=4.5,
            label=name,
        )
        banded = [(place, one.low, one.high) for place, one in present if one.low is not None and one.high is not None]
        if banded:
            axes.fill_between(*zip(*banded, strict=True), color=style.colour, alpha=0.15, linewidth=0)
    axes.set(title=title, xlabel="tenth of the trace", ylabel="entropy, nats")
    axes.set_xticks(range(1, 11))
    axes.set_ylim(bottom=0)
    _legend(axes, len(tenths))
    tidy(axes)
    return figure


def _legend(axes: Axes, count: int) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.08 if axes.get_title() else 1.0),
            ncols=min(count, 3),
            frameon=False,
            fontsize=9,
        )


def _bars(one: Combined) -> list[list[float]] | None:
    if one.low is None or one.high is None:
        return None
    return [[max(0.0, one.value - one.low)], [max(0.0, one.high - one.value)]]


def _mean(runs: Sequence[Points]) -> list[tuple[float, float]]:
    """Mean over the runs at every update that all of them recorded."""
    shared = set.intersection(*({update for update, _ in run} for run in runs))
    tables = [dict(run) for run in runs]
    return [(update, sum(table[update] for table in tables) / len(tables)) for update in sorted(shared)] or list(
        runs[0]
    )
