"""The figures: what is drawn, with which numbers, and that a real PNG of the stated size comes out."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lrm_safety.lab.reports.figures import TRAINING_PANELS, curves, draw_evaluation, draw_training, stacked
from lrm_safety.lab.reports.style import looks_of, publish
from lrm_safety.monitoring.registry import find

EVALUATION = {
    "evaluation/safety": [(0, 0.125), (20, 0.5), (40, 0.875)],
    "evaluation/benign": [(0, 1.0), (20, 0.75), (40, 0.5)],
    "evaluation/safety/num_questions": [(0, 100.0)],
    "train/loss": [(1, 3.0)],
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, kept although they are closed."""
    figures: list[Figure] = []
    make = plt.subplots

    def remember(*arguments: object, **options: object) -> object:
        figure, axes = make(*arguments, **options)  # type: ignore[call-overload]
        figures.append(figure)
        return figure, axes

    monkeypatch.setattr(plt, "subplots", remember)
    return figures


def png_size(path: Path) -> tuple[int, int]:
    """Width and height out of the header, in pixels."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and header[12:16] == b"IHDR"
    return struct.unpack(">II", header[16:24])


def test_evaluation(tmp_path: Path, drawn: list[Figure]) -> None:
    path = tmp_path / "evaluation.png"
    draw_evaluation(EVALUATION, path, "A title")
    assert png_size(path) == (1200, 675)  # 8 x 4.5 inches at 150 dots
    assert plt.imread(path).std() > 0.01, "the picture is not blank"
    (axes,) = drawn[0].axes
    assert axes.get_title() == "A title"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("update", "mean grade, held-out prompts")
    benign, safety = axes.get_lines()
    assert benign.get_label() == "benign 1.000 → 0.500" and safety.get_label() == "safety 0.125 → 0.875"
    np.testing.assert_array_equal(safety.get_xdata(), [0, 20, 40])
    np.testing.assert_array_equal(safety.get_ydata(), [0.125, 0.5, 0.875])
    assert benign.get_color() != safety.get_color() and benign.get_linestyle() != safety.get_linestyle()
    (band,) = axes.collections  # of the set whose number of questions is known: Wilson's of 1/2 of 100 at update 20
    z = 1.959963984540054
    half = z * (0.25 / 100 + z * z / 40000) ** 0.5 / (1 + z * z / 100)
    at_20 = sorted({y for x, y in band.get_paths()[0].vertices if x == 20})
    assert at_20 == pytest.approx([0.5 - half, 0.5 + half])
    assert not plt.get_fignums(), "figures are closed"


def test_more_sets_than_styles(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_evaluation({f"evaluation/{i}": [(0, 0.5)] for i in range(9)}, tmp_path / "a.png", "nine")
    assert len(drawn[0].axes[0].get_lines()) == 9


def test_training(tmp_path: Path, drawn: list[Figure]) -> None:
    path = tmp_path / "training.png"
    series = {
        "kl/k1": [(2, 0.0), (4, 0.25)],
        "kl/k3": [(2, 0.0), (4, 0.125)],
        "train/gradient_norm": [(2, 1.5), (4, 0.5)],
    }
    series["response/refusal_rate"] = [(2, 0.125), (4, 0.5)]
    draw_training(series, path, "Training", 0.5)
    assert png_size(path) == (2100, 975)
    panels = {axes.get_title(): axes for axes in drawn[0].axes}
    assert list(panels) == list(TRAINING_PANELS) and drawn[0].get_suptitle() == "Training"
    kl = panels["KL to the reference, nats per token"]
    assert [line.get_label() for line in kl.get_lines()] == ["k1", "k3"] and kl.get_ylim()[0] == 0.0
    np.testing.assert_array_equal(kl.get_lines()[0].get_ydata(), [0.0, 0.25])
    np.testing.assert_array_equal(panels["gradient norm"].get_lines()[0].get_ydata(), [1.5, 0.5])
    refused = panels["share of training prompts refused"]
    assert refused.get_ylim() == (-0.03, 1.03), "shares stand on 0 to 1"
    assert [one.get_text() for one in refused.get_legend().get_texts()] == ["refused", "forbidden: 0.50 of the prompts"]
    assert list(refused.get_lines()[1].get_ydata()) == [0.5, 0.5]
    empty = [title for title, axes in panels.items() if [text.get_text() for text in axes.texts] == ["not recorded"]]
    assert len(empty) == 5 and "reward, raw" in empty


def test_panels_name_declared_metrics() -> None:
    for names in TRAINING_PANELS.values():
        for name in names:
            assert find(name).name == name


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_long_names_leave_the_axes_their_room(tmp_path: Path, drawn: list[Figure]) -> None:
    """Those of a sweep over models hold paths: beside them a curve had no width left."""
    names = [f"miniature model.name=m{i} model.path=/shared/models/{'a_long_folder/' * 5}weights" for i in range(6)]
    looks = looks_of(names)
    points = [(0, 1.0), (1, 2.0)]
    publish(
        lambda: curves({name: [points, points] for name in names}, looks, title=names[0], y_label="y"), tmp_path, "a"
    )
    publish(
        lambda: curves({"short": [points], "other": [points]}, looks_of(["short", "other"]), title="t", y_label="y"),
        tmp_path,
        "b",
    )
    publish(
        lambda: stacked({"update": points}, looks_of(["update"]), title=f"Time: {names[0]}", y_label="y"), tmp_path, "c"
    )
    for figure in drawn:
        width, height = figure.get_size_inches() * figure.axes[0].get_position().bounds[2:]
        assert width > 3 and height > 1.2
    legend = drawn[0].axes[0].get_legend()
    assert legend is not None
    told = ["".join(text.get_text().split()) for text in legend.get_texts()]
    assert told == ["".join(f"{name}, mean of 2".split()) for name in names], "nothing of a name is left out"
