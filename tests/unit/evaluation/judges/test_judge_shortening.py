"""Over-long texts lose their middle, and say so."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.rewards.conversation import as_conversation, shortened

MARKER = re.compile(r"\n\[\.\.\. (\d+) characters of the trace left out \.\.\.\]\n")
WORDS = "".join(f"<{n:03d}>" for n in range(100))


def up_to(limit: int):
    return lambda text: len(text) <= limit


def test_what_fits_is_left_alone() -> None:
    asked: list[str] = []
    assert shortened("r", WORDS, lambda text: asked.append(text) or True) == WORDS
    assert asked == [WORDS]
    assert shortened("r", WORDS, up_to(500)) == WORDS


@pytest.mark.parametrize("limit", [499, 300, 100, 60])
def test_both_ends_stay_and_the_marker_counts(limit: int) -> None:
    kept = shortened("request", WORDS, up_to(limit))
    assert kept is not None and len(kept) <= limit
    head, count, tail = MARKER.split(kept)
    assert WORDS.startswith(head) and WORDS.endswith(tail)
    assert len(head) + len(tail) + int(count) == 500 and abs(len(head) - len(tail)) <= 1
    assert limit - len(kept) <= 3, "as much as fits"


def test_nothing_fits() -> None:
    assert shortened("r", WORDS, up_to(20)) is None
    assert shortened("r", WORDS, lambda text: False) is None


@given(st.text(min_size=1, max_size=300), st.integers(0, 320))
def test_whatever_the_text(text: str, limit: int) -> None:
    """What comes back fits; nothing comes back only where not even the bare marker does."""
    kept = shortened("r", text, up_to(limit))
    bare = f"\n[... {len(text)} characters of the trace left out ...]\n"
    if kept is None:
        assert len(text) > limit and len(bare) > limit
    else:
        assert len(kept) <= limit and (kept == text) == (len(text) <= limit)


def test_tags_in_a_text_are_text() -> None:
    """A judge reads what stands there: tags of a full response are shortened like all else."""
    text = "<think>\n" + "x" * 200 + "\n</think>\n\nanswer"
    kept = shortened("r", text, up_to(120))
    assert kept is not None and kept.startswith("<think>\n") and kept.endswith("</think>\n\nanswer")


def test_the_conversation_holds_the_text_once_as_trace() -> None:
    one = as_conversation("asked", "said")
    assert (one.prompt, one.view("trace"), one.view("full")) == ("asked", "said", "said")
    assert one.view("answer") == ""
