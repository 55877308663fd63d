"""What can be known about the rewards before any actor starts, without loading a model or calling an endpoint."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..conversation.template import DATE_STRING
from ..errors import ConfigError, ModelError, first_line
from ..files import read_json
from ..modeling.folder import HEADS, TensorEntry, check_model_folder, tensors
from ..settings import RewardSettings
from ..settings.components import reward_kind
from .rendering import Renderer, load_reward_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

HEAD = "ForSequenceClassification"


def check_reward(settings: RewardSettings) -> None:
    """Raise for the first reward model that cannot work: ConfigError for a path, function or url that is none,
    ModelError for a folder that is no whole classifier. Models on the hub are judged when they are loaded."""
    for name, model in settings.models.items():
        key = f"reward.models.{name}"
        if not model.read_views():
            raise ConfigError(f"{key}.views: every weight is 0; give one view a weight")
        reward_kind(model, key).check(model, key)


def check_folder(folder: Path, key: str) -> None:
    """Raise ModelError, which opens with `key`, for a folder that is no whole classifier."""
    try:
        check_model_folder(str(folder))
    except ModelError as error:
        raise ModelError(f"{key}: {error}") from error
    architectures = read_json(folder / "config.json", ModelError).get("architectures") or []
    if not any(str(name).endswith(HEAD) for name in architectures):
        raise ModelError(f"{key}={folder}: is no reward model: config.json names {architectures}, no ...{HEAD}")
    source = f"{key}={folder}"
    check_head(folder, source)
    # The template must be there and take a conversation.
    if Renderer(load_reward_tokenizer(str(folder), None, source), source).writes_the_date:
        logger.warning("%s: the chat template writes today's date; it is told %s", source, DATE_STRING)


def check_head(folder: Path, source: str, *, may_be_new: bool = False) -> None:
    """Compare the tensors of a folder beside its body with those of a sequence-classification head of one output.

    Reads headers only. `may_be_new`: a language model, whose head is still to be made, will do. Raises ModelError, which opens
    with `source` and names the tensor, for a head that lacks, has another number of outputs, or has more to it than the
    loader would read (a bias, a normalisation): its scores would be other than the model's.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    files = tensors(folder)
    try:
        config = AutoConfig.from_pretrained(folder, num_labels=1)
        if has_usual_head(config, files):
            return
        with torch.device("meta"):
            skeleton = AutoModelForSequenceClassification.from_config(config)
    # Loaders of other libraries raise what they like for a configuration that they do not know.
    except Exception as error:
        raise ModelError(f"{source}: no model with a sequence-classification head ({first_line(error)})") from error
    body = f"{skeleton.base_model_prefix}."
    if not any(name.startswith(body) for name in files):
        return  # saved without the names of its parts, which the loader finds out
    held = {name: entry.shape for name, entry in files.items() if not name.startswith(body)}
    needed = {name: tuple(value.shape) for name, value in skeleton.state_dict().items() if not name.startswith(body)}
    if may_be_new and not held.keys() & needed.keys():
        held = {name: shape for name, shape in held.items() if not is_language_model_head(name)}
    elif missing := sorted(needed.keys() - held.keys()):
        raise ModelError(
            f"{source}: is no reward model, or torn: its files lack {missing[0]}; choose a checkpoint with a "
            "sequence-classification head"
        )
    for name in sorted(needed.keys() & held.keys()):
        if held[name] != needed[name]:
            outputs = f"has {held[name][0]} outputs, needs {needed[name][0]}" if held[name] else "has no outputs"
            raise ModelError(f"{source}: {name} {outputs} (shape {list(held[name])} instead of {list(needed[name])})")
    refuse_unread(held.keys() - needed.keys(), skeleton, source)


def has_usual_head(config: PretrainedConfig, files: Mapping[str, TensorEntry]) -> bool:
    """Whether the tensors beside the body are the one matrix of one output that such a class has in almost every causal model.
    That is told without the code of the model; any other head is compared with the model's own."""
    heads = {name: entry.shape for name, entry in files.items() if not name.startswith("model.")}
    names = [f"{type(config).__name__.removesuffix('Config')}{HEAD}"]
    return config.architectures == names and heads == {"score.weight": (1, config.get_text_config().hidden_size)}


def refuse_unread(names: Iterable[str], model: PreTrainedModel, source: str) -> None:
    """Raise ModelError for tensors that a checkpoint holds and its model does not read."""
    ignored = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    if unread := sorted(name for name in names if not any(pattern.search(name) for pattern in ignored)):
        raise ModelError(
            f"{source}: holds {', '.join(unread[:3])} ({len(unread)} in all), which a head of one output does not read: its "
            "scores would not be the model's own"
        )


def is_language_model_head(name: str) -> bool:
    """Whether a tensor is the head of the language model that a reward model began as."""
    return name.endswith(HEADS)
