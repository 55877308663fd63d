"""Making an over-long response readable: the middle of its trace gives way, visibly."""

from __future__ import annotations

from collections.abc import Callable

from .conversation import Conversation


def drop_trace_middle(conversation: Conversation, view: str, fits: Callable[[str], bool]) -> str | None:
    """The view's text with as much of both ends of the trace as fits, the rest replaced by a marker that tells its
    length.

    The answer and the tags stay whole. `fits` judges a whole text. Deterministic; the returned text was judged to fit.
    None when the view holds no trace, or does not fit even without it.
    """
    text, trace = conversation.view(view), conversation.trace
    start = text.find(trace) if view != "answer" and trace else -1
    if start < 0:
        return None
    before, after = text[:start], text[start + len(trace) :]

    def keeping(num_kept: int) -> str:
        head, tail = trace[: num_kept - num_kept // 2], trace[len(trace) - num_kept // 2 :]
        return f"{before}{head}\n[... {len(trace) - num_kept} characters of the trace left out ...]\n{tail}{after}"

    if not fits(keeping(0)):
        return None
    # Invariant: `low` fits. Token counts grow with characters but for small jumps at the seams, so the result may be a
    # few characters short of the longest that fits, never over it.
    low, high = 0, len(trace)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(keeping(middle)) else (low, middle)
    return keeping(low)
