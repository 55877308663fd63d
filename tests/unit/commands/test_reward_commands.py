"""`lrm-safety reward` and `lrm-safety audit-reward` as a user runs them, on the miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lrm_safety.cli import main


def test_train_a_reward_model_and_audit_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = [
        "recipe=miniature",
        f"run.directory={run}",
        "pairs.num_rows=60",
        "trainer.max_updates=2",
        "run.device=cpu",
    ]
    assert main(["reward", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "held-out pairs" in shown and f"{run}/export" in shown.replace("\n", "")
    results = json.loads((run / "results.json").read_text())
    assert results["num_updates"] == 2 and not results["head_is_new"]
    assert results["held_out"]["accuracy"]["value"] > 0.6
    assert yaml.safe_load((run / "config.yaml").read_text())["base"]["name"] == "miniature"
    assert main(["reward", *arguments]) == 1
    assert "holds a finished training" in capsys.readouterr().err

    audited = tmp_path / "audit"
    status = main(
        [
            "audit-reward",
            "reward=miniature",
            "rows=miniature",
            f"reward.models.miniature.path={run}/export",
            "rows.num_prompts=8",
            "audit.resamples=50",
            f"run.directory={audited}",
            "run.device=cpu",
        ]
    )
    found = json.loads((audited / "audit.json").read_text())
    assert status == int(found["verdict"] == "fail")
    assert found["models"]["miniature"]["figures"]["full"]["separation"]["value"] > 0.9
    assert f"verdict: {found['verdict']}" in capsys.readouterr().out


def test_a_failed_audit_has_its_exit_status(tmp_path: Path) -> None:
    arguments = ["reward=miniature", "rows=miniature", "rows.num_prompts=4", f"run.directory={tmp_path}"]
    limits = ["audit.limits.min_category_texts=1", "reward.models.miniature.max_tokens=40", "audit.resamples=10"]
    # Nothing fits 40 tokens: every text gets the same score.
    assert main(["audit-reward", *arguments, *limits, "run.device=cpu"]) == 1
