"""`lrm-safety sft` on the miniature: it learns, a stopped run goes on to the same weights, and its export is a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from running import Command, all_metric_lines, assert_same_weights, checkpoints, metric_lines, write_traces
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.timeout(900)

UPDATES = 6


def arguments(folder: Path, run: str) -> tuple[str, ...]:
    return (
        "sft",
        "model=miniature",
        f"data.path={write_traces(folder)}",
        f"run.directory={run}",
        "sft.batch_size=16",
        "sft.validation_fraction=0.1",
        f"schedule.max_updates={UPDATES}",
        "trainer.lr=1e-3",
        "trainer.gradient_checkpointing=false",
        "checkpoint.every_updates=2",
        "tracking.console=plain",
        "tracking.wandb=disabled",
    )


def test_a_stopped_run_goes_on_to_the_same_weights(command: Callable[..., Command], tmp_path: Path) -> None:
    whole = command(*arguments(tmp_path, "whole"))
    assert whole.wait() == 0, whole.output
    assert "start policy ..." in whole.stdout.splitlines()
    lines = all_metric_lines(tmp_path / "whole")
    losses = [line["sft/loss"] for line in lines if "sft/loss" in line]
    assert len(losses) == UPDATES and losses[-1] < 0.5 * losses[0]
    held_out = [line["sft/validation_loss"] for line in lines if "sft/validation_loss" in line]
    assert held_out[-1] < held_out[0]
    assert checkpoints(tmp_path / "whole")[-1] == f"update-{UPDATES:06d}"

    stopped = command(*arguments(tmp_path, "parts"), "schedule.stop_after_updates=3")
    assert stopped.wait() == 0, stopped.output
    resumed = command(*arguments(tmp_path, "parts"))
    assert resumed.wait() == 0, resumed.output
    assert "resumed from update 3" in resumed.stdout
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    trained = [[line for line in metric_lines(tmp_path / run) if "sft/loss" in line] for run in ("whole", "parts")]
    assert trained[0] == trained[1]
    assert resumed.survivors() == []

    export = tmp_path / "whole" / "export"
    tokenizer, model = AutoTokenizer.from_pretrained(export), AutoModelForCausalLM.from_pretrained(export)
    assert tokenizer.chat_template and model.num_parameters() > 10_000


def test_mistakes_are_one_line(command: Callable[..., Command], tmp_path: Path) -> None:
    bad = command(*arguments(tmp_path, "bad"), "sft.response_field=reply")
    assert bad.wait(120) == 1
    (line,) = bad.error_lines
    assert "row 1" in line and "no field 'reply'" in line and "Traceback" not in bad.output
