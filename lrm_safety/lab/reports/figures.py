"""The figures of a report and of the demo, one function each: plain numbers in, a matplotlib figure out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...terminal import folded
from .combine import Combined, graded_sets, over_questions, pareto
from .folders import Series
from .style import LOOKS, TIP, Look, tidy

Points = Sequence[tuple[float, float]]
Looks = Mapping[str, Look]
"""Of every name that is drawn: the same in all figures of a report."""
WIDTH = 4.3
"""Inches; narrow enough that text stays readable on a telephone, and three stand side by side on a desk."""
MOST_BARS = 45
"""More are drawn as dots, one line a group: a page of bars is not read."""
MOST_COLUMNS = 40
"""Of a stacked timeline; more updates are drawn as means of neighbours."""
TITLE_COLUMNS, LEGEND_COLUMNS = 46, 44
"""Characters of a line."""
LEGEND_LINES, LINE_INCHES = 3, 0.19
"""Lines of a legend that every figure has room for, and the height of each further one."""
FEW_POINTS = 14
"""Up to so many points of a curve are each shown; more are smoothed."""


def dots(values: Mapping[str, Combined], looks: Looks, *, title: str, x_label: str) -> Figure:
    """A share of each model with its interval, one model below the other, from 0 to 1: before and after at a glance."""
    labels = [_wrapped(name, 24) for name in values]
    figure, axes = _axes(0.95 + sum(0.32 + 0.16 * label.count("\n") for label in labels), title)
    for place, (name, one) in enumerate(values.items()):
        _point(axes, one, place, looks[name], name, _half_widths(one), None)
        axes.annotate(
            f"{one.value:.3f}", (one.value, place), (0, 6), textcoords="offset points", ha="center", fontsize=9
        )
    axes.set_yticks(range(len(values)), labels)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(values) - 0.6, -0.75), xlabel=x_label)
    tidy(axes, grid="x")
    return figure


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
        _point(axes, x, y.value, style, name, _half_widths(x), _half_widths(y))
    values = [(x.value, y.value) for x, y in points.values()]
    frontier = [values[i] for i in pareto(values)]
    if len(frontier) > 1:
        xs, ys = zip(*frontier, strict=True)
        axes.step(xs, ys, where="pre", linestyle=":", linewidth=1.4, color=_ink(axes), zorder=0)
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    _legend(axes)
    tidy(axes, grid="both")
    return figure


def curves(
    series: Mapping[str, Sequence[Points]],
    looks: Looks,
    *,
    title: str,
    y_label: str,
    share: bool = False,
    bounds: Mapping[str, Sequence[tuple[float, float | None, float | None]]] | None = None,
) -> Figure:
    """One metric over updates, a line a model. Several seeds are drawn thin and their mean thick; of one noisy run its points
    thin and their moving mean thick. `bounds`: (update, low, high) of a model, drawn as a band."""
    figure, axes = _axes(2.9, title)
    for name, runs in series.items():
        style = looks[name]
        mean = _mean(runs)
        smooth = _smoothed(mean)
        if len(runs) > 1 or smooth != mean:
            for run in runs:
                axes.plot(*zip(*run, strict=True), color=style.colour, alpha=0.3, linewidth=0.8)
        if mean:
            _line(axes, smooth, style, name if len(runs) == 1 else f"{name}, mean of {len(runs)}")
        else:
            axes.plot([], [], color=style.colour, alpha=0.3, label=f"{name}, {len(runs)} runs without a common update")
        banded = [
            (x, low, high) for x, low, high in (bounds or {}).get(name, ()) if low is not None and high is not None
        ]
        if banded:
            axes.fill_between(*zip(*banded, strict=True), color=style.colour, alpha=0.15, linewidth=0)  # type: ignore[arg-type]
    axes.set(xlabel="update", ylabel=y_label)
    lowest = min((value for runs in series.values() for run in runs for _, value in run), default=0.0)
    if share:
        axes.set_ylim(-0.03, 1.03)
    elif lowest >= 0:
        axes.set_ylim(bottom=0)
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
    names = [_wrapped(group, 22) for group in groups]
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
            drawn = axes.barh(
                places,
                widths,
                height=each * 0.92,
                color=style.colour,
                hatch=style.hatch,
                edgecolor=_ink(axes),
                linewidth=0.5,
                label=name,
            )
            for rectangle, value in zip(drawn, widths, strict=True):
                rectangle.set_gid(f"{TIP}{name}: {value:.3f}")
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


def stacked(parts: Mapping[str, Points], looks: Looks, *, title: str, y_label: str) -> Figure:
    """What a whole is made of over updates, the parts on top of one another; many updates are drawn as means of neighbours."""
    figure, axes = _axes(3.1, title)
    tables = {name: dict(points) for name, points in parts.items()}
    updates = sorted({update for table in tables.values() for update in table})
    size = -(-len(updates) // MOST_COLUMNS)
    columns = [updates[start : start + size] for start in range(0, len(updates), size)]
    places = [sum(column) / len(column) for column in columns]
    width = 0.9 * min((b - a for a, b in itertools.pairwise(places)), default=1.0)
    below = [0.0] * len(columns)
    for name, table in tables.items():
        heights = [sum(table.get(update, 0.0) for update in column) / len(column) for column in columns]
        style = looks[name]
        drawn = axes.bar(places, heights, width, below, color=style.colour, hatch=style.hatch, linewidth=0, label=name)
        for bar, height in zip(drawn, heights, strict=True):
            bar.set_gid(f"{TIP}{name}: {height:.3g}")
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set(xlabel="update", ylabel=y_label)
    _legend(axes)
    tidy(axes)
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
    title = _wrapped(title, TITLE_COLUMNS)
    figure, axes = plt.subplots(figsize=(WIDTH, height + LINE_INCHES * title.count("\n")), layout="constrained")
    if title:
        figure.suptitle(title)
    return figure, axes


def _ink(axes: Axes) -> str:
    """The colour of text and axes."""
    return str(axes.xaxis.label.get_color())


def _point(
    axes: Axes,
    x: Combined,
    y: float,
    style: Look,
    name: str,
    x_error: list[list[float]] | None,
    y_error: list[list[float]] | None,
) -> None:
    """One marker with its intervals."""
    drawn = axes.errorbar(
        x.value,
        y,
        xerr=x_error,
        yerr=y_error,
        color=style.colour,
        marker=style.marker,
        markersize=8,
        markeredgecolor=_ink(axes),
        markeredgewidth=0.5,
        capsize=3,
        linestyle="",
    )
    axes.plot([], [], marker=style.marker, color=style.colour, markersize=7, linestyle="", label=name)  # for the legend
    interval = " ({:.3f} to {:.3f})".format(*x.ends) if x.ends else ""
    drawn.lines[0].set_gid(f"{TIP}{name}: {x.value:.3f}{interval}" + (f", {y:.3f}" if y_error is not None else ""))


def _line(axes: Axes, points: Points, style: Look, label: str) -> None:
    """A line that is told by its colour and its dashes; markers where there are few points, which are then what was measured."""
    x, y = zip(*points, strict=True)
    (line,) = axes.plot(
        x,
        y,
        color=style.colour,
        linestyle=style.line,
        marker=style.marker if len(x) <= FEW_POINTS else None,
        markersize=4.5,
        markeredgecolor=_ink(axes),
        markeredgewidth=0.4,
        linewidth=1.8,
        label=label,
    )
    line.set_gid(f"{TIP}{label}: {y[0]:.3g} to {y[-1]:.3g}")


def _smoothed(points: Points) -> Points:
    """The moving mean over a fifteenth of the points, at least five; a few points as they are."""
    if len(points) <= FEW_POINTS:
        return points
    half = max(2, len(points) // 30)
    windows = [points[max(0, i - half) : i + half + 1] for i in range(len(points))]
    return [(x, sum(y for _, y in window) / len(window)) for (x, _), window in zip(points, windows, strict=True)]


def _wrapped(text: str, width: int) -> str:
    """A name on as many lines as it needs: what is cut off may be all that tells it from another."""
    return folded(text, width, "/,:=;_-") or text


def _legend(axes: Axes) -> None:
    """Above the axes, in as many columns as the names leave room for; one name alone says nothing.

    More lines than LEGEND_LINES make the figure taller: what is drawn keeps its height."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) > 1 or any("," in name for name in names):
        columns = max(1, min(len(names), 44 // (max(map(len, names)) + 6)))
        labels = [_wrapped(name, LEGEND_COLUMNS) for name in names]
        lines = sum(label.count("\n") + 1 for label in labels) / columns
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.set_figheight(figure.get_figheight() + LINE_INCHES * max(0.0, lines - LEGEND_LINES))
        axes.legend(
            handles,
            labels,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=columns,
            frameon=False,
            handlelength=1.8,
            columnspacing=1.0,
        )


def _half_widths(one: Combined) -> list[list[float]] | None:
    if one.ends is None:
        return None
    return [[max(0.0, one.value - one.ends[0])], [max(0.0, one.ends[1] - one.value)]]


def _mean(runs: Sequence[Points]) -> list[tuple[float, float]]:
    """Mean over the runs at every update that all of them recorded."""
    shared = set.intersection(*({update for update, _ in run} for run in runs))
    tables = [dict(run) for run in runs]
    return [(update, sum(table[update] for table in tables) / len(tables)) for update in sorted(shared)]


# The demo's two pictures

STYLES = [(look.colour, look.line, look.marker) for look in LOOKS[:4]]

REFUSED = "share of training prompts refused"
TRAINING_PANELS = {
    "reward, raw": {"reward/raw_mean": "mean"},
    "KL to the reference, nats per token": {"kl/k1": "k1", "kl/k3": "k3"},
    "entropy, nats per token": {"entropy/trace": "trace", "entropy/answer": "answer"},
    "entropy at reflection tokens, nats": {"entropy/reflection": "reflection tokens"},
    "response length, tokens": {"response/length_mean": "whole response", "response/trace_length_mean": "trace"},
    REFUSED: {"response/refusal_rate": "refused"},
    "share without a proper end": {
        "response/unfinished_fraction": "cut off",
        "response/malformed_fraction": "malformed",
    },
    "gradient norm": {"train/gradient_norm": "before clipping"},
}
"""By the title of a panel: metrics with their names there. What differs tenfold has panels of its own."""


def draw_evaluation(series: Series, path: Path, title: str) -> None:
    """Mean grade of every held-out set over updates, with its 95% interval as a band; named with its first and last value."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    names = sorted(graded_sets(series))
    for name, (colour, line, marker) in zip(names, STYLES * (len(names) // len(STYLES) + 1), strict=False):
        updates, values = zip(*series[f"evaluation/{name}"], strict=True)
        label = f"{name} {values[0]:.3f} → {values[-1]:.3f}"
        axes.plot(updates, values, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
        bounds = [over_questions(series, name, value)[1:] for value in values]
        if None not in bounds[0]:
            axes.fill_between(updates, *zip(*bounds, strict=True), color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="update", ylabel="mean grade, held-out prompts", ylim=(-0.03, 1.03), title=title)
    axes.legend(loc="center right", frameon=False)
    tidy(axes)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_training(series: Series, path: Path, title: str, should_refuse: float | None = None) -> None:
    """Eight panels of training metrics; a panel without figures stays empty and says so.

    `should_refuse`: the share of the training prompts that are forbidden, which the panel of refusals shows.
    """
    figure, grid = plt.subplots(2, 4, figsize=(14, 6.5), layout="constrained")
    for axes, (heading, names) in zip(grid.flat, TRAINING_PANELS.items(), strict=True):
        shown = {name: label for name, label in names.items() if name in series}
        for (name, label), (colour, line, _) in zip(shown.items(), STYLES, strict=False):
            updates, values = zip(*series[name], strict=True)
            axes.plot(updates, values, color=colour, linestyle=line, label=label)
        if not shown:
            axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes)
        elif heading.startswith("share"):
            axes.set_ylim(-0.03, 1.03)
        elif not heading.startswith("reward"):
            axes.set_ylim(bottom=min(0.0, *(value for name in shown for _, value in series[name])))
        if shown and heading == REFUSED and should_refuse is not None:
            axes.axhline(
                should_refuse, color="#444", linestyle=":", label=f"forbidden: {should_refuse:.2f} of the prompts"
            )
        if len(axes.get_lines()) > 1:
            axes.legend(frameon=False, fontsize=8)
        axes.set(title=heading, xlabel="update")
        tidy(axes)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)
