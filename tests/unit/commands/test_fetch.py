"""Sets are read once before a run: with their number of rows and their source, or one line that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrm_safety.cli import main


def test_a_set_of_the_data_folder_and_a_packaged_one_are_counted(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    assert main(["fetch", "attaq"]) == 0
    assert f"evaluation=attaq: 1,402 rows of {data_root / 'attaq/attaq_dataset.csv'}" in capsys.readouterr().out
    assert main(["fetch", "miniature"]) == 0
    assert "data=miniature: 800 rows of " in capsys.readouterr().out


def test_without_a_hub_the_set_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LRM_SAFETY_DATA", raising=False)
    assert main(["fetch", "star1"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: UCSC-VLAA/STAR-1: cannot load") and "data.path" in error
