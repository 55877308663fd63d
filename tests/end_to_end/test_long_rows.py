"""Two trainer ranks that read rows together learn what one rank learns from the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Command, metric_lines, write_traces

pytestmark = pytest.mark.timeout(900)

UPDATES = 4
BUDGET = 20
"""Tokens of a rank. The mean response alone is longer: no rank could read its row within the budget by itself."""


def layout(ranks: int) -> list[str]:
    """The same rows on one rank, and over two."""
    return [
        f"cluster.policy.num_workers={ranks}",
        f"trainer.sequence_parallel_size={ranks}",
        f"trainer.micro_batch_tokens={2 * BUDGET // ranks}",
        f"schedule.max_updates={UPDATES}",
        "checkpoint.every_updates=0",
        "tracking.wandb=disabled",
        "tracking.console=plain",
        f"run.directory=over_{ranks}",
    ]


def arguments(name: str, folder: Path) -> tuple[str, ...]:
    if name == "train":
        return ("train", *TINY)
    return ("sft", "model=miniature", f"data.path={write_traces(folder)}", "sft.batch_size=16", "trainer.lr=1e-3")


@pytest.mark.parametrize("name", ["train", "sft"])
def test_two_ranks_learn_together_what_one_learns(command: Callable[..., Command], tmp_path: Path, name: str) -> None:
    found = []
    for ranks in (1, 2):
        started = command(*arguments(name, tmp_path), *layout(ranks))
        assert started.wait() == 0, started.output
        found.append(metric_lines(tmp_path / f"over_{ranks}"))
    alone, together = found
    assert alone[-1]["update"] == UPDATES and len(alone) == len(together)
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        for metric, value in one.items():
            assert other[metric] == pytest.approx(value, rel=1e-3, abs=1e-5, nan_ok=True), metric
    lengths = "response/length_mean" if name == "train" else "sft/response_length_mean"
    assert alone[-1][lengths] > BUDGET
