"""Prompts and supervised rows: checked and fingerprinted on loading, drawn in a seeded order that resumes exactly."""

from lrm_safety.datasets.prompts import PromptRow, PromptSet, PromptSource, load_prompts, render_prompts
from lrm_safety.datasets.supervised import SupervisedRow, SupervisedSet, draw_positions, hold_out, render_supervised

__all__ = [
    "PromptRow",
    "PromptSet",
    "PromptSource",
    "SupervisedRow",
    "SupervisedSet",
    "draw_positions",
    "hold_out",
    "load_prompts",
    "render_prompts",
    "render_supervised",
]
