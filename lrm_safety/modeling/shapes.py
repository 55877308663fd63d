"""Shapes of models: from a folder's config.json, or of known models by their hub id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, LrmSafetyError, ModelError
from ..files import read_json
from ..settings import LoraSettings
from ..settings.paths import resolve
from .folder import tensors, weight_files


@dataclass(frozen=True)
class ModelShape:
    """What memory and time depend on."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    head: bool = True
    """Whether it has a language-model head; a reward model has one score instead."""
    attention_layers: int | None = None
    """Layers with a KV cache, when not all have one (Mamba hybrids)."""
    mamba_heads: int = 0
    """Heads of its Mamba layers; 0: it has none."""
    stated_parameters: int | None = None
    """Where the formula for dense transformers does not hold."""
    active_parameters: int | None = None
    """Parameters that work on a token, where experts are chosen."""
    source: str = "published config.json"


def num_parameters(shape: ModelShape) -> int:
    """Parameters of a dense pre-norm transformer with gated feed-forward and RMSNorm, or what is stated."""
    if shape.stated_parameters is not None:
        return shape.stated_parameters
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = shape.hidden * (query + 2 * key_value) + query * shape.hidden
    if shape.qkv_bias:
        attention += query + 2 * key_value
    if shape.qk_norm:
        attention += 2 * shape.head_dim
    layer = attention + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    embedding = shape.vocabulary * shape.hidden
    if not shape.head:
        return shape.layers * layer + embedding + 2 * shape.hidden  # final norm, one score
    return shape.layers * layer + embedding * (1 if shape.tied else 2) + shape.hidden


def adapter_parameters(shape: ModelShape, lora: LoraSettings) -> int:
    """Parameters of the adapters of a dense transformer: rank x (inputs + outputs) of every target layer; 0 without LoRA.

    A target that is none of the usual seven layers counts for nothing.
    """
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    ends = {
        "q_proj": shape.hidden + query,
        "k_proj": shape.hidden + key_value,
        "v_proj": shape.hidden + key_value,
        "o_proj": query + shape.hidden,
        "gate_proj": shape.hidden + shape.intermediate,
        "up_proj": shape.hidden + shape.intermediate,
        "down_proj": shape.intermediate + shape.hidden,
    }
    targets = {target.rpartition(".")[2] for target in lora.target_modules}
    chosen = ends.values() if targets == {"all-linear"} else [ends[name] for name in targets & ends.keys()]
    return shape.layers * lora.rank * sum(chosen)


def attention_layers(shape: ModelShape) -> int:
    """Layers with keys and values."""
    return shape.layers if shape.attention_layers is None else shape.attention_layers


def kv_bytes_per_token(shape: ModelShape, bytes_per_value: int = 2) -> int:
    """Bytes of key and value of one token, all layers."""
    return 2 * attention_layers(shape) * shape.kv_heads * shape.head_dim * bytes_per_value


def _llama(
    name: str, layers: int, hidden: int, intermediate: int, heads: int, head_dim: int, *, tied: bool
) -> ModelShape:
    return ModelShape(name, layers, hidden, intermediate, heads, 8, head_dim, 128256, tied=tied)


def _qwen3(name: str, layers: int, hidden: int, intermediate: int, heads: int, *, tied: bool) -> ModelShape:
    return ModelShape(name, layers, hidden, intermediate, heads, 8, 128, 151936, tied=tied, qk_norm=True)


_LLAMA_8B = _llama("Llama-3.1-8B", 32, 4096, 14336, 32, 128, tied=False)
_LLAMA_1B = _llama("Llama-3.2-1B", 16, 2048, 8192, 32, 64, tied=True)
_LLAMA_3B = _llama("Llama-3.2-3B", 28, 3072, 8192, 24, 128, tied=True)
_QWEN3 = {
    "0.6B": _qwen3("Qwen3-0.6B", 28, 1024, 3072, 16, tied=True),
    "1.7B": _qwen3("Qwen3-1.7B", 28, 2048, 6144, 16, tied=True),
    "4B": _qwen3("Qwen3-4B", 36, 2560, 9728, 32, tied=True),
    "8B": _qwen3("Qwen3-8B", 36, 4096, 12288, 32, tied=False),
}
_DISTILL = "deepseek-ai/DeepSeek-R1-Distill-"

KNOWN: dict[str, ModelShape] = {
    f"{_DISTILL}Qwen-1.5B": ModelShape("R1-Distill-Qwen-1.5B", 28, 1536, 8960, 12, 2, 128, 151936, qkv_bias=True),
    f"{_DISTILL}Qwen-7B": ModelShape("R1-Distill-Qwen-7B", 28, 3584, 18944, 28, 4, 128, 152064, qkv_bias=True),
    f"{_DISTILL}Llama-8B": replace(_LLAMA_8B, name="R1-Distill-Llama-8B"),
    f"{_DISTILL}Llama-70B": _llama("R1-Distill-Llama-70B", 80, 8192, 28672, 64, 128, tied=False),
    **{f"Qwen/Qwen3-{size}": shape for size, shape in _QWEN3.items()},
    **{f"Skywork/Skywork-Reward-V2-Qwen3-{size}": replace(shape, head=False) for size, shape in _QWEN3.items()},
    "Skywork/Skywork-Reward-V2-Llama-3.2-1B": replace(_LLAMA_1B, head=False),
    "Skywork/Skywork-Reward-V2-Llama-3.2-3B": replace(_LLAMA_3B, head=False),
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": replace(_LLAMA_8B, head=False),
    "ibm-granite/granite-4.0-tiny-preview": ModelShape(
        "Granite-4.0-Tiny-Preview",
        40,
        1536,
        512,
        12,
        4,
        128,
        49160,
        attention_layers=4,
        mamba_heads=48,
        stated_parameters=7_000_000_000,
        active_parameters=1_000_000_000,
        source="model card: 7 B parameters, 1 B active; the other figures are approximate",
    ),
}


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Keys of config.json that tell of a mixture, to which the formula for dense transformers does not apply."""
MAMBA = ("mamba", "linear_attention")
"""Kinds in `layer_types`: as published, and as transformers writes them."""


def shape_of(path: str, key: str, *, head: bool = True, config: str | None = None) -> ModelShape:
    """Shape of the model at a configured path.

    `config` is a config.json to read instead. Raises ConfigError naming `key` for a hub id that is not known, ModelError for a
    config.json that lacks a size.
    """
    if config is None and path in KNOWN:
        return replace(KNOWN[path], head=head and KNOWN[path].head)
    folder = Path(resolve(config or path, key, of="" if config else "model"))
    file = folder / "config.json" if folder.is_dir() else folder
    if not file.is_file():
        absent = "" if folder.exists() else f"there is no folder {folder.absolute()}, and "
        raise ConfigError(
            f"{key}={path}: {absent}the shape of this model is not known here; give the "
            f"path of its config.json as plan.{'model' if head else 'reward'}_config=FILE"
        )
    if any(file.parent.glob("*.safetensors")):
        weight_files(file.parent)  # a folder that the run would refuse is refused here
    try:
        shape = _of_config(read := read_json(file, ModelError), folder.name, head)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ModelError(f"{file}: no size of a transformer can be read from it ({error})") from error
    dense = not (shape.mamba_heads or any(read.get(key) for key in EXPERTS))
    if not dense and folder.is_dir() and any(folder.glob("*.safetensors")):
        stored = sum(math.prod(entry.shape) for entry in tensors(folder).values())
        return replace(
            shape,
            stated_parameters=stored,
            active_parameters=stored - _resting_parameters(read, shape),
            source="config.json, parameters counted in the weight files",
        )
    return shape


def shape_if_known(path: str, key: str = "model.path") -> ModelShape | None:
    """None for a model whose sizes cannot be known here."""
    try:
        return shape_of(path, key)
    except LrmSafetyError:
        return None


def _resting_parameters(config: Mapping[str, Any], shape: ModelShape) -> int:
    """Of the experts that a token is not given to: gate, up and down projection of each, in every layer with experts."""
    experts = int(next((config[key] for key in EXPERTS if config.get(key)), 0))
    chosen = int(config.get("num_experts_per_tok") or experts)
    width = int(config.get("moe_intermediate_size") or shape.intermediate)
    layers = shape.layers - int(config.get("first_k_dense_replace") or 0)
    return layers * (experts - chosen) * 3 * shape.hidden * width


def _of_config(config: Mapping[str, Any], name: str, head: bool) -> ModelShape:
    heads = int(config["num_attention_heads"])
    kind = str(config.get("model_type", ""))
    layers = list(config.get("layer_types") or ())
    num_mamba = sum(layers.count(kind) for kind in MAMBA)
    return ModelShape(
        name=name,
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        intermediate=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
        qk_norm=kind == "qwen3",
        attention_layers=len(layers) - num_mamba if num_mamba else None,
        mamba_heads=int(config.get("mamba_n_heads") or 0) if num_mamba else 0,
        head=head,
        source="config.json",
    )
