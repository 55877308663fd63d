import pytest
import tiny_models
import torch
from tiny_tokenizers import word_tokenizer


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tiny_qwen():
    """Random Qwen3 with weights large enough that its distributions are far from uniform."""

    def make(tied=False, **changes):
        return tiny_models.tiny_qwen(seed=3, tied=tied, initializer_range=0.3, **changes)

    return make


@pytest.fixture
def tiny_granite():
    def make():
        return tiny_models.tiny_granite(seed=4, logits_scaling=3.0, initializer_range=0.3)

    return make


@pytest.fixture
def tiny_tokenizer():
    return word_tokenizer()


@pytest.fixture
def model_folder(tmp_path, tiny_qwen, tiny_tokenizer):
    folder = tmp_path / "model"
    tiny_qwen().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
