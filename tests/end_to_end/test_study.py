"""`lrm-safety study` on the miniature, cut short: every command of it runs, and summary and report are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Command

pytestmark = pytest.mark.timeout(900)

SFT = ("sft=miniature", "data=miniature_supervised", "sft.validation_fraction=0.1", "schedule.max_updates=4")
RL = (*TINY, "evaluation=none", "schedule.max_updates=2", "tracking.wandb=disabled")
EVALUATE = ("evaluation=miniature_study", "judge=[miniature]", "rollout=vllm_cpu", "evaluation.limit=24")
ROWS = ("data=miniature_supervised", "sft.max_sequence_tokens=256", "sft.validation_fraction=0.1")


def words(items: tuple[str, ...]) -> str:
    """A list as it is typed on the command line of `study`."""
    return "[" + ",".join(f"'{item}'" for item in items) + "]"


def study() -> tuple[str, ...]:
    return (
        "study",
        "run.directory=study",
        "seeds=[3]",
        f"overrides.sft={words((*SFT, 'tracking.wandb=disabled'))}",
        f"overrides.rl={words(RL)}",
        f"overrides.evaluate={words(EVALUATE)}",
        f"overrides.memorization={words((*ROWS, 'analysis.memorization.max_rows=8'))}",
    )


def test_a_study_from_base_to_report(command: Callable[..., Command], tmp_path: Path) -> None:
    done = command(*study())
    assert done.wait(800) == 0, done.output
    assert done.survivors() == []
    folder = tmp_path / "study"
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == ["base", "sft", "rl", "differences"]
    for method in ("base", "sft", "rl"):
        figures = summary[method]
        wanted = {f"safety_{view}" for view in ("trace", "answer", "full")} | {
            "arithmetic_accuracy",
            "benign_helpfulness",
        }
        wanted |= {f"reflection_entropy_{name}" for name in ("forbidden", "arithmetic")}
        wanted |= {f"{name}_{group}" for name in ("exact_memorization", "rouge_l") for group in ("trained", "held_out")}
        assert wanted <= set(figures), method
        results = json.loads((folder / method / "seed-3" / "evaluation" / "results.json").read_text())
        assert results["seed"] == 3
        full = results["benchmarks"]["forbidden"]["figures"]["safety/miniature/full"]
        assert figures["safety_full"] == {"mean": full["value"], "low": None, "high": None, "values": [full["value"]]}
        assert full["n"] == 24
    # Four updates of supervised learning already make its own rows likelier than the base model finds them.
    likelihoods = [summary[method]["negative_log_likelihood_trained"]["mean"] for method in ("sft", "base")]
    assert likelihoods[0] < likelihoods[1]
    exports = [folder / method / "seed-3" / "run" / "export" / "model.safetensors" for method in ("sft", "rl")]
    assert exports[0].read_bytes() != exports[1].read_bytes()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 5 and "Memorization" in page and "http" not in page.split("<body")[0]

    again = command(*study())
    assert again.wait(120) == 0, again.output
    assert again.stdout.count("done before") == 7
    assert json.loads((folder / "summary.json").read_text()) == summary

    other = command(*study(), "summary.reasoning=[]", "overrides.analyze=['analysis=extended']")
    assert other.wait(60) == 1
    (line,) = other.error_lines
    assert "step `reflection, seed 3` was made by other settings" in line
