"""The miniature's held-out forbidden requests for judges, which read trace, answer and both (docs/miniature.md)."""

from __future__ import annotations

from . import miniature
from .registry import Question, Questions, benchmark, questions


@benchmark("miniature_forbidden", kind="safety", scoring="judges", tasks={})
def load() -> Questions:
    """100 requests that no training has seen; `miniature` with kind=forbidden grades the same ones by the world's rule."""
    found = miniature.load("forbidden")
    return questions(
        (Question(id=one.id, prompt=one.prompt, request=one.request, groups=one.groups) for one in found), found.source
    )
