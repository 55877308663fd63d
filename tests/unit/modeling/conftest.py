import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 97


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tiny_qwen():
    """Random Qwen3 with weights large enough that its distributions are far from uniform."""

    def make(tied=False, **changes):
        torch.manual_seed(3)
        config = Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=256,
            tie_word_embeddings=tied,
            initializer_range=0.3,
            **changes,
        )
        return Qwen3ForCausalLM(config)

    return make


@pytest.fixture
def tiny_granite():
    def make():
        torch.manual_seed(4)
        config = GraniteMoeHybridConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            shared_intermediate_size=24,
            num_hidden_layers=2,
            layer_types=["linear_attention", "full_attention"],
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
            num_experts_per_tok=2,
            mamba_n_heads=8,
            mamba_d_head=8,
            mamba_n_groups=1,
            mamba_d_state=16,
            mamba_expand=2,
            mamba_chunk_size=16,
            logits_scaling=3.0,
            initializer_range=0.3,
            tie_word_embeddings=True,
        )
        return GraniteMoeHybridForCausalLM(config)

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
