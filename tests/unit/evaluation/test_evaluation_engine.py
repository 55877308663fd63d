"""What surrounds the engine; the engine itself is tested with vLLM in tests/integration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lrm_safety.errors import ModelError
from lrm_safety.evaluation.engine import Engine, context_tokens, engine_spec
from lrm_safety.modeling.folder import model_fingerprint
from lrm_safety.settings import ModelSettings, RolloutSettings
from lrm_safety.workers.rollout import RolloutWorker


def test_closing_ends_the_engine_core_once() -> None:
    """A judge's model needs the memory."""
    calls: list[str] = []
    core = SimpleNamespace(shutdown=lambda: calls.append("shutdown"))
    spec = engine_spec(
        ModelSettings(name="m", path="p", family="plain"),
        RolloutSettings(),
        device="cpu",
        seed=0,
        max_prompt_tokens=8,
        max_response_tokens=8,
    )
    worker: Any = RolloutWorker(spec, 0)
    worker._llm = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))
    engine: Any = Engine(spec)
    engine.close()
    assert calls == [], "what never started has nothing to end"
    engine._worker = worker
    engine.close()
    engine.close()
    assert calls == ["shutdown"] and engine._worker is None


@pytest.mark.parametrize("config", [None, "{", "[]"])
def test_a_folder_without_a_configuration(tmp_path: Path, config: str | None) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"some weights")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"^some\.key: /.*config\.json: (is absent|cannot be read)") as refused:
        model_fingerprint(str(tmp_path), key="some.key")
    assert "\n" not in str(refused.value)
    if config is None:
        with pytest.raises(ModelError, match=r"^model\.path=.*: has no configuration"):
            context_tokens(str(tmp_path), None, False)


def test_a_model_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"^model\.path=nobody/nothing: is neither a folder") as refused:
        model_fingerprint("nobody/nothing")
    assert "\n" not in str(refused.value)


def test_one_weight_changes_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    found = set()
    for content in (b"a" * 100, b"b" + b"a" * 99, b"a" * 101):
        (tmp_path / "model.safetensors").write_bytes(content)
        found.add(model_fingerprint(str(tmp_path)))
    assert len(found) == 3
