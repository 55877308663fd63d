"""Tiny models with random weights of the real architectures: the one place of the tests that builds them.

Every test states the sizes that it needs; what all of them share stands here.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHARED: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def tiny_qwen(*, seed: int | None = None, tied: bool = True, **sizes: Any) -> Qwen3ForCausalLM:
    """A dense decoder; `seed` makes its weights the same every time."""
    if seed is not None:
        torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**SHARED | {"tie_word_embeddings": tied} | sizes))


def tiny_granite(*, seed: int | None = None, **sizes: Any) -> GraniteMoeHybridForCausalLM:
    """A Mamba layer and an attention layer, each with a mixture of experts, and a tied head."""
    if seed is not None:
        torch.manual_seed(seed)
    mixture = {
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "mamba_d_state": 16,
        "mamba_n_groups": 1,
        "mamba_expand": 2,
        "tie_word_embeddings": True,
    }
    return GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(**SHARED | mixture | sizes))
