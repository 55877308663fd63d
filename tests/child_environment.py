"""The environment of commands that tests start."""

from __future__ import annotations

import os


def child_environment() -> dict[str, str]:
    """This process's, without the W&B service that a test before may have started in it: commands start their own."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
