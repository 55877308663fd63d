"""Training curves as PNG: the held-out figures, and what the optimiser saw."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt

from .style import LOOKS, tidy

Series = dict[str, list[tuple[int, float]]]

STYLES = [(look.colour, look.line, look.marker) for look in LOOKS[:4]]

TRAINING_PANELS = {
    "reward, raw": ["reward/raw_mean"],
    "KL to reference, nats per token": ["kl/k1", "kl/k3"],
    "entropy, nats per token": ["entropy/trace", "entropy/answer", "entropy/reflection"],
    "response length, tokens": ["response/length_mean", "response/trace_length_mean"],
    "refusal rate": ["response/refusal_rate"],
    "gradient norm": ["train/gradient_norm"],
}


def draw_evaluation(series: Series, path: Path, title: str) -> None:
    """Mean grade of every held-out set over updates, each line ending in its name and last value."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    names = sorted(name for name in series if name.startswith("evaluation/") and name.count("/") == 1)
    for name, (colour, line, marker) in zip(names, STYLES * (len(names) // len(STYLES) + 1), strict=False):
        updates, values = zip(*series[name], strict=True)
        label = f"{name.removeprefix('evaluation/')} {values[0]:.2f} → {values[-1]:.2f}"
        axes.plot(updates, values, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
    axes.set(xlabel="update", ylabel="mean grade, held-out prompts", ylim=(-0.03, 1.03), title=title)
    axes.legend(loc="center right", frameon=False)
    tidy(axes)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_training(series: Series, path: Path, title: str) -> None:
    """Six panels of training metrics; a panel without figures stays empty and says so."""
    figure, grid = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    for axes, (heading, names) in zip(grid.flat, TRAINING_PANELS.items(), strict=True):
        shown = [name for name in names if name in series]
        for name, (colour, line, _) in zip(shown, STYLES, strict=False):
            updates, values = zip(*series[name], strict=True)
            axes.plot(updates, values, color=colour, linestyle=line, label=name.split("/")[1])
        if not shown:
            axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes)
        if len(shown) > 1:
            axes.legend(frameon=False, fontsize=8)
        axes.set(title=heading, xlabel="update")
        tidy(axes)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)
