"""A model's configuration and tokenizer, read and checked without the classes of models: what the controller needs of one."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from ..errors import ModelError, first_line
from ..settings import ModelSettings
from .folder import ahead, check_model_folder, check_tied_head, is_hub_id


def check_causal_lm(settings: ModelSettings) -> PretrainedConfig:
    """The configuration of a model folder or hub id that trainer and engines can read alike; no weights are loaded.

    Raises ModelError for a folder that is torn or mixed, for a model type that is not known here or is no causal language
    model, and for a head of its own under tie_word_embeddings.
    """
    check_model_folder(settings.path)
    try:
        config = AutoConfig.from_pretrained(
            settings.path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    # Loaders of other libraries raise what they like for a file that says something unexpected.
    except Exception as error:
        raise ModelError(
            f"model.path={settings.path}: config.json cannot be used ({first_line(error)}){ahead(settings.path, settings.name)}"
        ) from error
    own_code = settings.trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in AutoModelForCausalLM._model_mapping and not own_code:
        raise ModelError(f"model.path={settings.path}: a model of type {config.model_type} is no causal language model")
    if getattr(config, "tie_word_embeddings", False) and not is_hub_id(settings.path):
        check_tied_head(Path(settings.path))
    return config


def load_tokenizer(settings: ModelSettings) -> PreTrainedTokenizerBase:
    """The model's own tokenizer. Raises ModelError when there is none."""
    check_model_folder(settings.path)
    try:
        return AutoTokenizer.from_pretrained(
            settings.path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    # Loaders of other libraries raise what they like for a folder that is none or torn.
    except Exception as error:
        raise ModelError(
            f"no tokenizer could be loaded from {settings.path}: {first_line(error)}{ahead(settings.path, settings.name)}"
        ) from error
