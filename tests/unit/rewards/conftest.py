"""Tiny reward models on disk, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_rewards import SHAPE, TinyModel, llama_tokenizer, qwen_tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    folder = tmp_path_factory.mktemp("llama_reward")
    tokenizer = llama_tokenizer()
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **SHAPE)
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TinyModel(folder, model, tokenizer)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Without a padding token in the configuration, as Qwen3's."""
    folder = tmp_path_factory.mktemp("qwen_reward")
    tokenizer = qwen_tokenizer()
    torch.manual_seed(2)
    config = Qwen3Config(vocab_size=len(tokenizer), num_labels=1, pad_token_id=None, **SHAPE)
    model = Qwen3ForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TinyModel(folder, model, tokenizer)


@pytest.fixture(scope="session")
def language_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language_model")
    tokenizer = llama_tokenizer()
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
