"""Tiny models with random weights of the real architectures, and adapters: the one place of the tests that builds them.

What is said nowhere else stands here, and every test states only the sizes that matter to it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForCausalLM, GraniteMoeHybridForCausalLM, PreTrainedModel, Qwen3ForCausalLM

Architecture = TypeVar("Architecture", bound=PreTrainedModel)

VOCABULARY = 97
"""Unlike every other size, so that an axis of this length is the vocabulary's."""
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}


def tiny_model(architecture: type[Architecture], *, seed: int | None = None, **sizes: Any) -> Architecture:
    """Any architecture of transformers; `seed` makes its weights the same every time."""
    if seed is not None:
        torch.manual_seed(seed)
    return architecture(architecture.config_class(**SIZES | sizes))


def tiny_qwen(*, seed: int | None = None, tied: bool = True, **sizes: Any) -> Qwen3ForCausalLM:
    """A dense decoder."""
    return tiny_model(Qwen3ForCausalLM, seed=seed, tie_word_embeddings=tied, **sizes)


def tiny_granite(*, seed: int | None = None, **sizes: Any) -> GraniteMoeHybridForCausalLM:
    """A Mamba layer and an attention layer, each with a mixture of experts, and a tied head."""
    mixture = {
        "layer_types": ["linear_attention", "full_attention"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 24,
        "mamba_n_heads": 8,
        "mamba_d_state": 16,
        "mamba_chunk_size": 16,
        "tie_word_embeddings": True,
    }
    return tiny_model(GraniteMoeHybridForCausalLM, seed=seed, **mixture | sizes)


def save_adapter(base: Path, folder: Path, *layers: str) -> None:
    """`folder`/adapter as peft writes it, A and B random, and `folder`/merged, by peft, with the tokenizer of `base`."""
    from peft import LoraConfig, get_peft_model  # a second that no other test waits for

    torch.manual_seed(0)
    adapted: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=12, target_modules=list(layers)),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(folder / "adapter")
    adapted.merge_and_unload().save_pretrained(folder / "merged")
    for file in (*base.glob("*token*"), *base.glob("*.jinja")):
        shutil.copy(file, folder / "merged")
