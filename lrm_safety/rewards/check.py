"""What can be known about the rewards before any actor starts, without loading a model or calling an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.settings import RewardModelSettings, RewardSettings
from lrm_safety.settings.paths import resolve

from .function import import_function
from .http import check_url

HEAD = "ForSequenceClassification"


def check_reward(settings: RewardSettings) -> None:
    """Raise for the first reward model that cannot work: ConfigError for a path, function or url that is none,
    ModelError for a folder that is no whole classifier. Models on the hub are judged when they are loaded."""
    for name, model in settings.models.items():
        key = f"reward.models.{name}"
        if not model.read_views():
            raise ConfigError(f"{key}.views: every weight is 0; give one view a weight")
        if model.kind == "python":
            _check_function(model, key)
        elif model.kind == "http":
            check_url(model.url or "", f"{key}.url")
        else:
            folder = Path(resolve(model.path or "", f"{key}.path"))
            if folder.exists():
                _check_folder(folder, f"{key}.path={model.path}")


def _check_function(model: RewardModelSettings, key: str) -> None:
    import_function(model.function or "", f"{key}.function")
    if len(model.read_views()) > 1:
        raise ConfigError(f"{key}.views: a python function sees the whole conversation; keep one view")


def _check_folder(folder: Path, source: str) -> None:
    config = _read_json(folder / "config.json", source)
    architectures = config.get("architectures") or []
    if not any(str(name).endswith(HEAD) for name in architectures):
        raise ModelError(f"{source}: is no reward model: config.json names {architectures}, no ...{HEAD}")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        raise ModelError(f"{source}: the folder holds no tokenizer")
    index = folder / "model.safetensors.index.json"
    shards = set(_read_json(index, source).get("weight_map", {}).values()) if index.is_file() else {"model.safetensors"}
    if absent := sorted(shard for shard in shards if not (folder / shard).is_file()):
        raise ModelError(f"{source}: the folder lacks {absent[0]} ({len(absent)} of {len(shards)} weight files)")


def _read_json(file: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: cannot read {file.name} ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{source}: {file.name} holds no JSON object")
    return content
