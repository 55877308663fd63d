"""The two models of the miniature and their tokenizers: architectures, vocabularies and chat templates.

Policy and reward model share no vocabulary and no special token, as with R1-Distill and Skywork: whoever scores a
response must go through its text.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

MAX_LENGTH_TOKENS = 256
POLICY_VOCABULARY = 768
REWARD_VOCABULARY = 640

POLICY_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- '<|user|>' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- '<|assistant|>' + message['content'].split('</think>')[-1].lstrip('\\n') + '<|end|>' -}}
{%- else -%}
{{- raise_exception('the miniature policy knows user and assistant turns only, not ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|><think>\\n' -}}
{%- endif -%}
"""
REWARD_CHAT_TEMPLATE = """\
{{- '[start]' -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- '[question]' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- '[reply]' + message['content'] + '[stop]' -}}
{%- else -%}
{{- raise_exception('the miniature reward model knows user and assistant turns only, not ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
"""


def train_policy_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with one token a digit. `<think>` and `</think>` are added tokens that decoding keeps, as in
    R1-Distill; turn markers, the end token and the pad token are special tokens that decoding may skip."""
    tokenizer = _byte_level_bpe(
        texts,
        vocabulary=POLICY_VOCABULARY,
        special=["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"],
        kept=["<think>", "</think>"],
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    )
    return _fast_tokenizer(tokenizer, POLICY_CHAT_TEMPLATE, pad="<|pad|>", end="<|end|>")


def train_reward_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of another vocabulary, whole numbers in one piece, thought markers as ordinary text."""
    tokenizer = _byte_level_bpe(
        texts,
        vocabulary=REWARD_VOCABULARY,
        special=["[fill]", "[start]", "[stop]", "[question]", "[reply]"],
        kept=[],
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True),
    )
    return _fast_tokenizer(tokenizer, REWARD_CHAT_TEMPLATE, pad="[fill]", end="[stop]", start="[start]")


def new_policy(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Fresh float32 weights from torch's global generator, about 0.9 M parameters, tied embeddings.

    The head width is 32 because vLLM's attention on CPU accepts no narrower head.
    """
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 1.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def new_reward_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForSequenceClassification:
    """Fresh float32 weights from torch's global generator, about 0.4 M parameters, one score."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        num_labels=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    return LlamaForSequenceClassification(config)


def _byte_level_bpe(
    texts: Iterable[str],
    *,
    vocabulary: int,
    special: list[str],
    kept: list[str],
    pre_tokenizer: pre_tokenizers.PreTokenizer,
) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary - len(kept),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in kept])
    return tokenizer


def _fast_tokenizer(
    tokenizer: Tokenizer, chat_template: str, *, pad: str, end: str, start: str | None = None
) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=end,
        bos_token=start,
        chat_template=chat_template,
        model_max_length=MAX_LENGTH_TOKENS,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
