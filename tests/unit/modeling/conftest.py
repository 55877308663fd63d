import pytest
import tiny_models
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
)

VOCABULARY = 97


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tiny_qwen():
    """Random Qwen3 with weights large enough that its distributions are far from uniform."""

    def make(tied=False, **changes):
        return tiny_models.tiny_qwen(
            seed=3,
            tied=tied,
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            head_dim=8,
            max_position_embeddings=256,
            initializer_range=0.3,
            **changes,
        )

    return make


@pytest.fixture
def tiny_granite():
    def make():
        return tiny_models.tiny_granite(
            seed=4,
            layer_types=["linear_attention", "full_attention"],
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            shared_intermediate_size=24,
            mamba_n_heads=8,
            mamba_d_head=8,
            mamba_chunk_size=16,
            logits_scaling=3.0,
            initializer_range=0.3,
        )

    return make


@pytest.fixture
def tiny_tokenizer():
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", pad_token="w1", unk_token="w0")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}<think>"
    return fast


@pytest.fixture
def model_folder(tmp_path, tiny_qwen, tiny_tokenizer):
    folder = tmp_path / "model"
    tiny_qwen().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
