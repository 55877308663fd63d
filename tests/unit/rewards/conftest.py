"""Tiny reward models on disk, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import tiny_model
from tiny_rewards import TinyModel, llama_tokenizer, qwen_tokenizer, save_reward_model
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, Qwen3ForSequenceClassification


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    tokenizer = llama_tokenizer()
    return save_reward_model(
        tmp_path_factory.mktemp("llama_reward"),
        tokenizer,
        LlamaForSequenceClassification,
        seed=1,
        pad_token_id=tokenizer.pad_token_id,
    )


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Without a padding token in the configuration, as Qwen3's."""
    folder = tmp_path_factory.mktemp("qwen_reward")
    return save_reward_model(folder, qwen_tokenizer(), Qwen3ForSequenceClassification, seed=2, pad_token_id=None)


@pytest.fixture(scope="session")
def language_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language_model")
    tokenizer = llama_tokenizer()
    tiny_model(LlamaForCausalLM, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
