"""Which models an analysis reads: where they are, whether they share one tokenizer, and what the results say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import ConfigError
from ...modeling.folder import model_fingerprint
from ...modeling.load import check_causal_lm, load_tokenizer
from ...models_cache import ensure_cached
from ...results import AnalysedModel
from ...settings import ModelSettings
from ...settings.paths import CACHE_PREFIX, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def locate(model: ModelSettings, path: str, revision: str | None, key: str) -> ModelSettings:
    """`model` at another path, checked; a `cache:` model is made if it is not there. Raises ConfigError or ModelError."""
    if path.startswith(CACHE_PREFIX):
        ensure_cached(path.removeprefix(CACHE_PREFIX), lambda line: None)
    located = replace(model, path=resolve(path, key), revision=revision)
    check_causal_lm(located)
    return located


def common_tokenizer(models: Mapping[str, ModelSettings]) -> PreTrainedTokenizerBase:
    """The tokenizer of all models. Raises ConfigError when two disagree about a token: ids of one would mean something
    else to the other."""
    found = {name: load_tokenizer(model) for name, model in models.items()}
    first, *others = found
    vocabulary = found[first].get_vocab()
    for name in others:
        if found[name].get_vocab() != vocabulary:
            raise ConfigError(
                f"analysis.models.{name}: has another vocabulary than {first}; analyse models of one tokenizer together"
            )
    return found[first]


def describe(models: Mapping[str, ModelSettings]) -> dict[str, AnalysedModel]:
    """Each model for the results."""
    return {
        name: AnalysedModel(
            path=model.path,
            family=model.family,
            dtype=model.dtype,
            fingerprint=model_fingerprint(model.path, model.revision, key=f"analysis.models.{name}.path"),
        )
        for name, model in models.items()
    }
