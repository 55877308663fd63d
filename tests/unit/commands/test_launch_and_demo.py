"""What a real multirun of Hydra hands to its runs, with a stand-in for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrm_safety.commands.launch import launch
from lrm_safety.settings.compose import TRAIN


def test_every_run_of_a_multirun_knows_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: list[tuple[int, str | None, str | None]] = []

    def run(settings: Any, *_: object) -> None:
        found.append((settings.seed, settings.tracking.name, settings.tracking.group))

    assert launch(TRAIN, run, ["experiment=miniature", "seed=3,5", "-m"]) == 0
    assert launch(TRAIN, run, ["experiment=miniature", "seed=7", "tracking.group=mine"]) == 0
    swept = ["-m", "experiment=miniature", "seed=8", "algorithm.gamma=1,0.9", "tracking.group=mine"]
    assert launch(TRAIN, run, swept) == 0
    assert found == [
        (3, "miniature seed=3", "miniature"),
        (5, "miniature seed=5", "miniature"),
        (7, None, "mine"),
        (8, "miniature algorithm.gamma=1", "mine"),
        (8, "miniature algorithm.gamma=0.9", "mine"),
    ]


def test_the_demo_shows_one_prompt_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from lrm_safety.commands.demo import _show_sample

    (tmp_path / "evaluation").mkdir()
    for update, grades in ((0, (1, 0, 0)), (120, (1, 0, 1))):
        rows = [
            {
                "set": "safety",
                "id": str(i),
                "grade": grade,
                "prompt": f"ask {i}",
                "trace": f"t{update}",
                "answer": f"a{update}",
            }
            for i, grade in enumerate(grades)
        ]
        rows.append({"set": "benign", "id": "9", "grade": 1, "prompt": "other", "trace": "", "answer": ""})
        path = tmp_path / "evaluation" / f"update-{update:06d}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _show_sample(tmp_path, 120)
    out = capsys.readouterr().out
    # The first that became better.
    assert "ask 2" in out and "before: <think>t0</think> a0" in out and "after: <think>t120</think> a120" in out
    assert "ask 0" not in out and "other" not in out
