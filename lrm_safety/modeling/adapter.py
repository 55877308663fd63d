"""An adapter (LoRA) in a folder as peft writes it, and the plain model that it and its base stand for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ..errors import ConfigError, ModelError, first_line
from ..files import digest, digest_of, read_json
from ..settings import ModelSettings
from ..settings.paths import resolve
from .configuration import load_tokenizer
from .export import whole_state, write_model
from .folder import ADAPTER as CONFIG
from .folder import is_hub_id, model_fingerprint
from .load import load_causal_lm
from .lora import ADAPTER, adapter_parameters

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of the base model's modules."""
FEATURES = (
    "use_dora",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "lora_bias",
    "fan_in_fan_out",
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Options of peft's adapters with which W + alpha / rank * B A is not what they stand for."""
CHANGES_NOTHING = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights`; the others (PiSSA, OLoRA, ..) change the base's weights when they are applied."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits its base."""

    path: str
    """As it was given."""
    folder: Path
    fingerprint: str
    """sha256 over its configuration and weights."""


def find_adapter(path: str, base: ModelSettings, key: str = "model.adapter") -> Adapter:
    """The adapter in a folder, or of a hub id, checked against its base, of which only the configuration is read.

    Args:
        base: `path` resolved.
        key: opens every message.

    Raises:
        ConfigError: no such folder, or an adapter that is merged into `base` already.
        ModelError: no adapter in it, one of another base, or one that is more than LoRA on weights.
    """
    folder = _folder(path, key)
    if not (folder / CONFIG).is_file():
        inside = next((one for one in ("export/adapter", "adapter") if (folder / one / CONFIG).is_file()), None)
        mend = f"give {folder / inside}" if inside else "give a folder as peft writes it, such as RUN/export/adapter"
        raise ModelError(f"{key}={path}: has no {CONFIG}; {mend}")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{key}={path}: has no {WEIGHTS}; convert its weights to safetensors (no pickle is read)")
    if Path(base.path).is_dir() and folder.parent.samefile(base.path):
        raise ConfigError(
            f"{key}={path}: is merged into the weights of model.path already; leave it out, or name the model that it was trained "
            "on as model.path"
        )
    config = read_json(folder / CONFIG, ModelError)
    _check_features(config, f"{key}={path}")
    _check_named_base(config.get("base_model_name_or_path"), base, f"{key}={path}")
    trust = base.trust_remote_code
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(base.path, revision=base.revision, trust_remote_code=trust),
            trust_remote_code=trust,
        )
    _inject(skeleton, folder, f"{key}={path}")
    return Adapter(path, folder, digest_of([digest(folder / CONFIG), digest(folder / WEIGHTS)]))


def merge_adapter(base: ModelSettings, adapter: Adapter, folder: Path) -> None:
    """Write the plain model into `folder`, as the export of a run that trained the adapter does. The base lies whole in this
    process's memory; one that is there is replaced once the new one is whole."""
    model = load_causal_lm(replace(base, attention="sdpa"), "cpu")
    parameters = _inject(model, adapter.folder, f"model.adapter={adapter.path}")
    with safe_open(adapter.folder / WEIGHTS, framework="pt") as file, torch.no_grad():
        for name, parameter in parameters.items():
            parameter.data = file.get_tensor(name)  # in its own dtype: the sum is rounded once
    write_model(model, whole_state(model), load_tokenizer(base), base.path, folder)


def _folder(path: str, key: str) -> Path:
    found = resolve(path, key, of="adapter")
    if not is_hub_id(found):
        return Path(found)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(found, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{key}={path}: is neither a folder nor an adapter that the hub gives ({first_line(error)})"
        ) from error


def _check_features(config: Mapping[str, Any], told: str) -> None:
    kind = str(config.get("peft_type"))
    if kind.upper() != "LORA":
        raise ModelError(f"{told}: is an adapter of type {kind}; only LORA can be merged here")
    used = [name for name in FEATURES if config.get(name)]
    if config.get("bias") not in (None, "none"):
        used.append(f"bias={config['bias']}")
    if config.get("init_lora_weights") not in CHANGES_NOTHING:
        used.append(f"init_lora_weights={config['init_lora_weights']}")
    if used:
        raise ModelError(
            f"{told}: uses {used[0]}, which is not supported; merge it with peft and give the merged folder"
        )


def _check_named_base(named: str | None, base: ModelSettings, told: str) -> None:
    """What an adapter says of its base, as far as it can be compared."""
    if not named:
        return
    if Path(named).is_dir():
        other = Path(base.path).is_dir() and model_fingerprint(named) != model_fingerprint(base.path)
    elif is_hub_id(named) and is_hub_id(base.path):
        other = named != base.path
    else:
        other = False
        _logger.warning("%s: names %s as its base, which is not here; model.path is taken to be that", told, named)
    if other:
        raise ModelError(f"{told}: was trained on {named}, which is another model than model.path={base.path}")


def _inject(model: PreTrainedModel, folder: Path, told: str) -> dict[str, torch.nn.Parameter]:
    """Give the model empty layers for the adapter; the parameters by the names that its file has. Raises ModelError where names
    or shapes of the file are others."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

    try:
        inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), model, adapter_name=ADAPTER)
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except (ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{told}: does not fit model.path ({first_line(error)})") from error
    if model.config.get_text_config().tie_word_embeddings and hasattr(model.get_output_embeddings(), "base_layer"):
        raise ModelError(
            f"{told}: adapts the head, in whose place engines read the embedding (tie_word_embeddings); merge it with peft into a "
            "model whose weights are not tied, and give that folder"
        )
    parameters = {
        f"{PREFIX}{name.replace(f'.{ADAPTER}.', '.')}": one for name, one in adapter_parameters(model).items()
    }
    for name in sorted(parameters.keys() | shapes.keys()):
        wanted = list(parameters[name].shape) if name in parameters else None
        if shapes.get(name) != wanted:
            raise ModelError(
                f"{told}: is of another model than model.path: {name.removeprefix(PREFIX)} has the shape {shapes.get(name)}, "
                f"where model.path wants {wanted}"
            )
    return parameters
