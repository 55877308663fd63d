"""Actors and their groups. Whatever a worker's process imports of ours, this comes first."""

from ..quick_imports import hold

hold()
