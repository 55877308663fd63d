"""The figures of a report, one function each: plain numbers in, a matplotlib figure out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .combine import Combined, pareto
from .style import Look, tidy

Points = Sequence[tuple[float, float]]
Looks = Mapping[str, Look]
"""Of every name that is drawn: the same in all figures of a report."""
WIDTH = 4.3
"""Inches; narrow enough that text stays readable on a telephone, and three stand side by side on a desk."""
MOST_BARS = 45
"""More are drawn as dots, one line a group: a page of bars is not read."""


def scatter(
    points: Mapping[str, tuple[Combined, Combined]],
    looks: Looks,
    *,
    title: str,
    x_label: str,
    y_label: str,
    seeds: Mapping[str, Points] | None = None,
) -> Figure:
    """Models by (reasoning, safety) with their intervals and the frontier; single seeds as faint marks."""
    figure, axes = _axes(3.6, title)
    for name, (x, y) in points.items():
        style = looks[name]
        for a, b in (seeds or {}).get(name, ()):
            axes.plot(a, b, marker=style.marker, color=style.colour, alpha=0.35, markersize=4, linestyle="")
        axes.errorbar(
            x.value,
            y.value,
            xerr=_half_widths(x),
            yerr=_half_widths(y),
            color=style.colour,
            marker=style.marker,
            markersize=9,
            markeredgecolor=_ink(axes),
            markeredgewidth=0.5,
            capsize=3,
            linestyle="",
            label=name,
        )
    values = [(x.value, y.value) for x, y in points.values()]
    frontier = [values[i] for i in pareto(values)]
    if len(frontier) > 1:
        xs, ys = zip(*frontier, strict=True)
        axes.step(xs, ys, where="pre", linestyle=":", linewidth=1.4, color=_ink(axes), zorder=0)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.margins(0.12)
    _legend(axes)
    tidy(axes, grid="both")
    return figure


def curves(series: Mapping[str, Sequence[Points]], looks: Looks, *, title: str, y_label: str) -> Figure:
    """One metric over updates, a line a model; several seeds are drawn thin, their mean thick."""
    figure, axes = _axes(2.9, title)
    for name, runs in series.items():
        style = looks[name]
        if len(runs) > 1:
            for run in runs:
                axes.plot(*zip(*run, strict=True), color=style.colour, alpha=0.3, linewidth=0.8)
        if mean := _mean(runs):
            _line(axes, mean, style, name if len(runs) == 1 else f"{name}, mean of {len(runs)}")
        else:
            axes.plot([], [], color=style.colour, alpha=0.3, label=f"{name}, {len(runs)} runs without a common update")
    axes.set(xlabel="update", ylabel=y_label)
    _legend(axes)
    tidy(axes)
    return figure


def bars(
    groups: Sequence[str],
    values: Mapping[str, Sequence[Combined | None]],
    looks: Looks,
    *,
    title: str,
    x_label: str,
    share: bool = True,
) -> Figure:
    """A block of horizontal bars for each group, a bar for each model, with intervals; dots where bars would be many."""
    dots = len(groups) * len(values) > MOST_BARS
    each = 0.8 / max(1, len(values))
    names = [_two_lines(group) for group in groups]
    line = max(
        0.2 if dots else 0.17 * len(values) + 0.06, max((0.2 + 0.16 * name.count("\n") for name in names), default=0)
    )
    figure, axes = _axes(1.1 + len(groups) * line, title)
    for i, (name, row) in enumerate(values.items()):
        style = looks[name]
        shift = each * (i + 0.5) - 0.4
        present = [(place + shift, one) for place, one in enumerate(row) if one is not None]
        if not present:
            continue
        places, widths = [place for place, _ in present], [one.value for _, one in present]
        if dots:
            axes.plot(
                widths,
                places,
                marker=style.marker,
                color=style.colour,
                markeredgecolor=_ink(axes),
                markeredgewidth=0.4,
                linestyle="",
                markersize=4.5,
                label=name,
            )
        else:
            axes.barh(
                places,
                widths,
                height=each * 0.92,
                color=style.colour,
                hatch=style.hatch,
                edgecolor=_ink(axes),
                linewidth=0.5,
                label=name,
            )
        for place, one in present:
            if one.low is not None and one.high is not None:
                colour = style.colour if dots else _ink(axes)
                axes.plot([one.low, one.high], [place, place], color=colour, linewidth=0.9 if dots else 1.2)
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    if share:
        axes.set_xlim(0, 1.02)
    axes.set_xlabel(x_label)
    _legend(axes)
    tidy(axes, grid="both" if dots else "x")
    return figure


def along_trace(tenths: Mapping[str, Sequence[Combined | None]], looks: Looks, *, title: str) -> Figure:
    """Entropy in each tenth of the trace, a line a model, with intervals as bands."""
    figure, axes = _axes(2.9, title)
    for name, row in tenths.items():
        style = looks[name]
        present = [(place + 1, one) for place, one in enumerate(row) if one is not None]
        if not present:
            continue
        _line(axes, [(place, one.value) for place, one in present], style, name)
        banded = [(place, one.low, one.high) for place, one in present if one.low is not None and one.high is not None]
        if banded:
            places, lows, highs = zip(*banded, strict=True)
            axes.fill_between(places, lows, highs, color=style.colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="tenth of the trace", ylabel="entropy, nats")
    axes.set_xticks(range(1, 11))
    axes.set_ylim(bottom=0)
    _legend(axes)
    tidy(axes)
    return figure


def _axes(height: float, title: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    if title:
        figure.suptitle(title)
    return figure, axes


def _ink(axes: Axes) -> str:
    """The colour of text and axes."""
    return str(axes.xaxis.label.get_color())


def _line(axes: Axes, points: Points, style: Look, label: str) -> None:
    """A line that is told by its colour, its dashes and some eight markers."""
    x, y = zip(*points, strict=True)
    axes.plot(
        x,
        y,
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markevery=max(1, len(x) // 8),
        markersize=4.5,
        markeredgecolor=_ink(axes),
        markeredgewidth=0.4,
        linewidth=1.8,
        label=label,
    )


def _two_lines(text: str) -> str:
    """A long label on two lines, shortened where they do not hold it."""
    return "\n".join(textwrap.wrap(text, 22, max_lines=2, placeholder=" …")) or text


def _legend(axes: Axes) -> None:
    """Above the axes, in as many columns as the names leave room for."""
    names = axes.get_legend_handles_labels()[1]
    if names:
        columns = max(1, min(len(names), 44 // (max(map(len, names)) + 6)))
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=columns,
            frameon=False,
            handlelength=1.8,
            columnspacing=1.0,
        )


def _half_widths(one: Combined) -> list[list[float]] | None:
    if one.low is None or one.high is None:
        return None
    return [[max(0.0, one.value - one.low)], [max(0.0, one.high - one.value)]]


def _mean(runs: Sequence[Points]) -> list[tuple[float, float]]:
    """Mean over the runs at every update that all of them recorded."""
    shared = set.intersection(*({update for update, _ in run} for run in runs))
    tables = [dict(run) for run in runs]
    return [(update, sum(table[update] for table in tables) / len(tables)) for update in sorted(shared)]
