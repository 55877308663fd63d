"""Prompts: checked and fingerprinted on loading, drawn in a seeded order that resumes exactly."""

from lrm_safety.datasets.prompts import PromptRow, PromptSet, load_prompts
from lrm_safety.datasets.rendering import render_prompts
from lrm_safety.datasets.source import PromptSource

__all__ = ["PromptRow", "PromptSet", "PromptSource", "load_prompts", "render_prompts"]
