"""The environment of commands that tests start."""

from __future__ import annotations

import os

NOT_THEIRS = frozenset({"WANDB_SERVICE", "GLOO_SOCKET_IFNAME"})
"""What tests before may have left in this process: W&B's service, of which commands start their own, and the interface over which
ranks of one machine met."""


def child_environment() -> dict[str, str]:
    """This process's, without `NOT_THEIRS`."""
    return {name: value for name, value in os.environ.items() if name not in NOT_THEIRS}
