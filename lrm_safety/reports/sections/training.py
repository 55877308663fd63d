"""Curves of every run, and its evaluation while it trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ...evaluation.judges.refusal_rules import measured_error
from ...evaluation.results import judge_notes
from .. import figures
from ..album import Album
from ..figures import Points
from ..folders import Study
from ..html import absent, slug

PANELS = {
    "reward/raw_mean": ("Reward, raw", "score"),
    "sft/loss": ("Supervised loss", "nats/token"),
    "kl/k3": ("KL to the reference (k3)", "nats/token"),
    "entropy/trace": ("Entropy of the trace", "nats/token"),
    "entropy/reflection": ("Entropy at reflection tokens", "nats/token"),
    "response/length_mean": ("Response length", "tokens"),
    "response/trace_length_mean": ("Trace length", "tokens"),
    "response/refusal_rate": ("Refusals of training prompts", "fraction"),
    "train/gradient_norm": ("Gradient norm", "norm"),
}
"""Metrics that get a panel where any run recorded them: (title, unit)."""


def training(study: Study, album: Album) -> str:
    """A panel a metric, held-out figures last."""
    trained = [one for one in study.subjects if one.runs]
    if not trained:
        return absent("No training run was given", "lrm-safety train ...")
    held_out = sorted({name for one in trained for run in one.runs for name in run.series if _is_benchmark(name)})
    panels = PANELS | {name: (f"Held out: {name.partition('/')[2]}", "primary figure") for name in held_out}
    drawn = []
    for metric, (title, unit) in panels.items():
        series = {
            one.name: points
            for one in trained
            if (points := [run.series[metric] for run in one.runs if metric in run.series])
        }
        if any(len(points) > 1 for runs in series.values() for points in runs):
            drawn.append(_panel(album, metric, title, unit, series))
    return f'<div class="grid">{"".join(drawn)}</div>{_judges_error(study) if held_out else ""}'


def _judges_error(study: Study) -> str:
    """How far the rules may be off, where a run's own evaluation rests on them."""
    names = {
        name
        for one in study.subjects
        for run in one.runs
        for name, judge in ((run.config.get("evaluation") or {}).get("judges") or {}).items()
        if judge.get("kind") == "refusal_rules"
    }
    lines = judge_notes({name: {"measured": measured_error()} for name in sorted(names)})
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _panel(album: Album, metric: str, title: str, unit: str, series: Mapping[str, Sequence[Points]]) -> str:
    return album.add(
        slug("training", metric),
        series,
        lambda mine, group: figures.curves(
            mine, album.looks, title=f"{title}, {group}" if group else title, y_label=unit
        ),
        f"<code>{escape(metric)}</code>",
        lambda mine: (
            f"{title}: "
            + "; ".join(f"{name} {runs[0][0][1]:.3g} to {runs[0][-1][1]:.3g}" for name, runs in mine.items())
        ),
    )


def _is_benchmark(name: str) -> bool:
    group, _, rest = name.partition("/")
    return group == "evaluation" and "/" not in rest
