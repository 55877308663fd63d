"""Sets are read once before a run: with their number of rows and their source, or one line that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
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


def test_models_of_several_names_are_downloaded_and_what_lies_here_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def download(path: str, *, revision: str | None, allow_patterns: Sequence[str]) -> str:
        asked.append(path)
        assert "*.safetensors" in allow_patterns and "*.bin" not in allow_patterns
        return "/cache/of/the/hub"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert main(["fetch", "qwen3_1_7b", "skywork_v2_llama_8b", "refusal_phrases"]) == 0
    assert asked == ["Qwen/Qwen3-1.7B", "Skywork/Skywork-Reward-V2-Llama-3.1-8B"]
    assert (
        "reward.models.skywork.path=Skywork/Skywork-Reward-V2-Llama-3.1-8B: /cache/of/the/hub"
        in capsys.readouterr().out
    )
    assert main(["fetch", "qwen3_4b", "qwen3_5b"]) == 1 and len(asked) == 2, "nothing of a list with a mistake"
    assert "fetch qwen3_5b: nothing of this name; known: " in capsys.readouterr().err


def test_without_a_hub_the_model_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "qwen3_1_7b"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: model.path=Qwen/Qwen3-1.7B: the hub does not give it (")
