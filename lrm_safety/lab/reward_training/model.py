"""The base of a reward model: its weights with a head of one output, ready to be trained, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...errors import ConfigError, ModelError
from ...modeling.folder import check_model_folder
from ...modeling.load import _disable_dropout, attention_implementation
from ...rewards.check import check_head, is_language_model_head, refuse_unread
from ...rewards.classifier import load_classifier
from ...rewards.rendering import Renderer, load_reward_tokenizer
from ...settings.paths import resolve
from ...settings.reward_training import RewardBaseSettings


@dataclass(frozen=True)
class Base:
    """Where the base is, and how it reads text; no weights yet."""

    settings: RewardBaseSettings
    """With `path` resolved."""
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer


def open_base(settings: RewardBaseSettings) -> Base:
    """Find the base and its tokenizer. Raises ConfigError or ModelError for what is absent or has no chat template."""
    settings = replace(settings, path=resolve(settings.path, "base.path"))
    source = f"base.path={settings.path}"
    check_model_folder(settings.path)
    if (folder := Path(settings.path)).is_dir():
        check_head(folder, source, may_be_new=True)
    tokenizer = load_reward_tokenizer(settings.path, settings.revision, source)
    return Base(settings, tokenizer, Renderer(tokenizer, source))


def load_for_training(base: Base, device: str, seed: int) -> tuple[PreTrainedModel, bool]:
    """Float32 weights on `device` without dropout, the padding token set; and whether the head is new.

    A new head depends on `seed` alone. Raises ModelError for an architecture without a sequence-classification head and
    for a checkpoint that lacks anything but the head, ConfigError when `max_tokens` exceeds the model's positions.
    """
    settings, source = base.settings, f"base.path={base.settings.path}"
    torch.manual_seed(seed)
    attention = attention_implementation(settings.attention, device)
    model, loading = load_classifier(settings.path, settings.revision, source, dtype=torch.float32, attention=attention)
    body = f"{model.base_model_prefix}."
    missing = sorted(loading["missing_keys"])
    unexpected = loading["unexpected_keys"]
    refuse_unread([name for name in unexpected if not (missing and is_language_model_head(name))], model, source)
    if lost := [name for name in missing if name.startswith(body)]:
        raise ModelError(f"{source}: its files lack {lost[0]} ({len(lost)} in all); the checkpoint is torn")
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and settings.max_tokens > positions:
        raise ConfigError(f"base.max_tokens={settings.max_tokens}: the model reads at most {positions} tokens")
    if config.pad_token_id is None:
        # Written into the export too, so that scoring pads, and so pools, as training did.
        config.pad_token_id = model.config.pad_token_id = _padding_id(base, source)
    _disable_dropout(model)
    return model.to(device).train(), bool(missing)


def _padding_id(base: Base, source: str) -> int:
    """The head pools at the last token that is not padding, so padding must not be what ends every conversation."""
    last = base.renderer.render("question", "answer").ids[-1]
    tokenizer = base.tokenizer
    candidates = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id)
    found = next((token for token in candidates if token is not None and token != last), None)
    if found is None:
        raise ModelError(f"{source}: no token to pad with; set pad_token_id in config.json")
    return int(found)
