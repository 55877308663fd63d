"""Metrics, their registry and their views: file, console, W&B."""

from .phases import Phases
from .recorder import Recorder, evidence_of
from .rollout_files import RolloutRow, save_offending

__all__ = ["Phases", "Recorder", "RolloutRow", "evidence_of", "save_offending"]
