"""Prompts over the limit: an error with the row's name, or left out and counted."""

from __future__ import annotations

import logging

import pytest

from lrm_safety.datasets import PromptRow, PromptSet, render_prompts
from lrm_safety.errors import DataError


class WordFamily:
    """One token a word."""

    def render_prompt(self, tokenizer: object, question: str, system_prompt: str | None) -> list[int]:
        return list(range(len(question.split())))


QUESTIONS = ["one two", "one two three four", "one", "one two three four five"]
PROMPTS = PromptSet(tuple(PromptRow(i, f"id-{i}", q, (), {}) for i, q in enumerate(QUESTIONS)), "fingerprint", "a.json")


def render(limit: int, overlong: str) -> tuple[PromptSet, list[list[int]]]:
    kept, ids = render_prompts(
        PROMPTS,
        WordFamily(),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        system_prompt=None,
        max_prompt_tokens=limit,
        overlong=overlong,
    )
    return kept, [one.tolist() for one in ids]


def test_the_first_prompt_over_the_limit_is_named() -> None:
    with pytest.raises(
        DataError, match=r"a\.json, row 2 \(id id-1\): 4 prompt tokens .*max_prompt_tokens=3.*data\.overlong=skip"
    ):
        render(3, "error")


def test_prompts_over_the_limit_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        kept, ids = render(3, "skip")
    assert [row.id for row in kept] == ["id-0", "id-2"]
    assert ids == [[0, 1], [0]]
    assert "2 of 4 prompts" in caplog.text


def test_nothing_is_said_when_all_fit(caplog: pytest.LogCaptureFixture) -> None:
    kept, ids = render(5, "skip")
    assert kept.rows == PROMPTS.rows and len(ids) == 4 and not caplog.text
