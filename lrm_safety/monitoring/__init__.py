"""Metrics, their registry and their views: file, console, W&B."""

from .phases import Phases
from .recorder import Recorder
from .rollout_files import RolloutRow, save_offending

__all__ = ["Phases", "Recorder", "RolloutRow", "save_offending"]
