"""What a run leaves in its folder, in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...modeling.shapes import ModelShape, adapter_parameters, num_parameters
from ...settings import Settings
from .assumptions import Assumptions
from .sampling import bytes_of, response_tokens

CHECKPOINT_BYTES = 12
"""A parameter that trains: float32 master and AdamW's two moments, of which the weights are made again."""
RECORD_BYTES = 3700
"""Of one line of metrics.jsonl, as the miniature writes it."""
ROW_BYTES = 330
"""Of a rollout that is kept with its text (tracking.log_text), beside its text."""
TOKEN_BYTES = 4
"""Of text to a token, about."""
BATCH_BYTES = 150
"""Of one response in batches.jsonl."""


@dataclass(frozen=True)
class Disk:
    """Part by part, when it is fullest."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def disk_of(settings: Settings, policy: ModelShape, assumed: Assumptions) -> Disk:
    """Checkpoints that are kept, with the one that is being written beside them; exports; what is told of rollouts.

    Files of W&B and of evaluations are not counted.
    """
    checkpoint, algorithm = settings.checkpoint, settings.algorithm
    count, adapters = num_parameters(policy), adapter_parameters(policy, settings.trainer.lora)
    one = CHECKPOINT_BYTES * (adapters or count)
    kept = checkpoint.keep_last + (checkpoint.best_metric is not None)
    updates = algorithm.num_responses // algorithm.mini_batch_size
    iterations = -(-settings.schedule.max_updates // updates)
    written = 1 if checkpoint.every_updates == 0 else -(-settings.schedule.max_updates // checkpoint.every_updates)
    exports = {"none": 0, "last": 1, "best": 1, "both": 2}[checkpoint.export]
    text = TOKEN_BYTES * (
        response_tokens(settings, assumed) + min(assumed.prompt_tokens, settings.rollout.max_prompt_tokens)
    )
    rows = min(settings.tracking.table_rows, algorithm.num_responses) if settings.tracking.log_text else 0
    return Disk(
        {
            "checkpoints": one * min(kept, written),
            "a checkpoint that is being written": one if written > kept else 0,
            "exports": exports * (bytes_of(settings) * count + bytes_of(settings) * adapters),
            "metrics.jsonl": RECORD_BYTES * iterations,
            "rollouts": round(iterations * rows * (ROW_BYTES + text)),
            "batches.jsonl": BATCH_BYTES * iterations * algorithm.num_responses if algorithm.records_batches else 0,
        }
    )
