"""Rows, formats and refusal openers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.lab.reward_audit.texts import AuditText, load_texts, with_and_without_opener
from lrm_safety.settings.audit import AuditRowSettings

ROW = {"id": "a", "prompt": "p?", "category": "c", "label": "safe", "trace": "hm", "answer": "no"}


def load(tmp_path: Path, rows: list[dict], formats: tuple[str, ...] = ("qwen3",)) -> list[AuditText]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_texts(AuditRowSettings(path=str(path)), formats, 0)


def test_paths_of_the_package_and_absent_ones() -> None:
    absent = "package:lrm_safety/miniature/assets/absent.jsonl"
    with pytest.raises(ConfigError, match=r"^rows\.path=package:.*no such file"):
        load_texts(AuditRowSettings(path=absent), (), 0)
    with pytest.raises(DataError, match=r"forbidden\.jsonl, row 1: no field 'prompt'; the row has "):
        load_texts(AuditRowSettings(path="package:lrm_safety/miniature/assets/prompts/forbidden.jsonl"), (), 0)


def test_each_view_in_each_format_worked_out_by_hand() -> None:
    text = AuditText("a", "p?", ("c",), True, "hm", "no")
    written = {
        "composed": "<think>\nhm\n</think>\n\nno",
        "deepseek_r1_distill": "hm\n</think>\n\nno",
        "qwen3": "<think>\nhm\n</think>\n\nno",
        "granite_4_tiny_preview": "<think>hm</think><response>no</response>",
        "plain": "no",
    }
    for name, expected in written.items():
        found = text.conversation("full", name)
        assert found is not None and (found.prompt, found.full) == ("p?", expected)
    assert [text.conversation(view).full for view in ("trace", "answer")] == ["hm", "no"]  # type: ignore[union-attr]
    assert AuditText("a", "p?", (), True, "", "no").conversation("trace") is None
    assert AuditText("a", "p?", (), True, "hm", "").conversation("full").full == "<think>\nhm"  # type: ignore[union-attr]


def test_a_tag_in_a_text_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match=r"audit text a \(qwen3\).*</think>"):
        AuditText("a", "p", (), True, "x</think>", "no").conversation("full", "qwen3")


@pytest.mark.parametrize(
    ("answer", "opened", "plain", "added"),
    [
        ("Take the long road.", "NO! Take the long road.", "Take the long road.", True),
        ("I can not help with that. It hurts.", "I can not help with that. It hurts.", "It hurts.", False),
        (
            "Sure. I cannot help with that.",
            "NO! Sure. I cannot help with that.",
            "Sure. I cannot help with that.",
            True,
        ),
    ],
)
def test_openers(answer: str, opened: str, plain: str, added: bool) -> None:
    found = with_and_without_opener(AuditText("a", "p", (), True, "hm", answer), "NO!")
    assert found is not None
    assert (found.opened.answer, found.plain.answer, found.added) == (opened, plain, added)
    assert found.opened.trace == found.plain.trace == "hm"


def test_nothing_is_left_of_a_bare_refusal() -> None:
    for answer in ("I cannot help with that.", ""):
        assert with_and_without_opener(AuditText("a", "p", (), True, "hm", answer), "NO!") is None


def test_rows_are_read(tmp_path: Path) -> None:
    found = load(
        tmp_path, [ROW, {**ROW, "label": "unsafe", "family": "qwen3"}, {**ROW, "family": "plain", "trace": None}]
    )
    assert [(text.id, text.safe, text.family, text.trace) for text in found] == [
        ("a", True, None, "hm"),
        ("a", False, "qwen3", "hm"),
        ("a", True, "plain", ""),
    ]
    assert found[0].categories == ("c",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "label": "good"}], r"row 1: field 'label' is 'good'"),
        ([ROW, {**ROW, "answer": 3}], r"row 2: field 'answer' is a int"),
        ([{**ROW, "trace": " ", "answer": ""}], r"row 1: has neither trace nor answer"),
        ([ROW, ROW], r"row 2: id 'a' occurs twice for family None"),
        ([ROW], r"needs rows of both labels"),
        ([{**ROW, "family": "gpt"}], r"row 1: field 'family'=gpt: must be one of"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path: Path, rows: list[dict], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, rows)


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit\.formats.*gpt"):
        load(tmp_path, [ROW], formats=("gpt",))
