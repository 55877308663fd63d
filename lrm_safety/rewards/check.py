"""What can be known about the rewards before any actor starts, without loading a model or calling an endpoint."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ConfigError, ModelError
from ..modeling.folder import check_model_folder
from ..settings import RewardModelSettings, RewardSettings
from ..settings.paths import resolve
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
                _check_folder(folder, f"{key}.path")


def _check_function(model: RewardModelSettings, key: str) -> None:
    import_function(model.function or "", f"{key}.function")
    if len(model.read_views()) > 1:
        raise ConfigError(f"{key}.views: a python function sees the whole conversation; keep one view")


def _check_folder(folder: Path, key: str) -> None:
    try:
        check_model_folder(str(folder))
    except ModelError as error:
        raise ModelError(f"{key}: {error}") from error
    architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    if not any(str(name).endswith(HEAD) for name in architectures):
        raise ModelError(f"{key}={folder}: is no reward model: config.json names {architectures}, no ...{HEAD}")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if not tokenizer.get("chat_template") and not (folder / "chat_template.jinja").is_file():
        raise ModelError(f"{key}={folder}: its tokenizer has no chat template: add the model's own chat_template.jinja")
