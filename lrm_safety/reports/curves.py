"""Training curves as PNG: the held-out figures, and what the optimiser saw."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt

from .metrics import Series
from .style import LOOKS, tidy
from .sweep import over_questions

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
    names = sorted(name for name in series if name.startswith("evaluation/") and name.count("/") == 1)
    for name, (colour, line, marker) in zip(names, STYLES * (len(names) // len(STYLES) + 1), strict=False):
        updates, values = zip(*series[name], strict=True)
        shown = name.removeprefix("evaluation/")
        label = f"{shown} {values[0]:.2f} → {values[-1]:.2f}"
        axes.plot(updates, values, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
        bounds = [over_questions(series, shown, value)[1:] for value in values]
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
