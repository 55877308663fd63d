"""Tiny reward models with random weights: one token a byte, so that lengths can be counted by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lrm_safety.rewards.conversation import Conversation

LLAMA_SPECIAL = ["<|pad|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LLAMA_TEMPLATE = """\
{%- for message in messages -%}
{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim -%}
{%- if loop.first -%}{%- set content = bos_token + content -%}{%- endif -%}
{{- content + '<|eot_id|>' -}}
{%- endfor -%}
"""
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Qwen3's way with the last assistant turn: what stands in the first thought is kept, everything else before the last
# closing tag is lost.
QWEN_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' -}}
{%- else -%}
{%- set content = message.content -%}
{%- set thought = '' -%}
{%- if '</think>' in content -%}
{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' + content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
"""


def byte_tokenizer(
    special: list[str], template: str, *, bos: str | None, eos: str, pad: str | None, adds_bos: bool
) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    if adds_bos:
        assert bos is not None
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0", special_tokens=[(bos, vocabulary[bos])]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad)
    fast.chat_template = template
    return fast


def llama_tokenizer(*, adds_bos: bool = True, pad: str | None = "<|pad|>") -> PreTrainedTokenizerFast:
    return byte_tokenizer(
        LLAMA_SPECIAL, LLAMA_TEMPLATE, bos="<|begin_of_text|>", eos="<|eot_id|>", pad=pad, adds_bos=adds_bos
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(QWEN_SPECIAL, QWEN_TEMPLATE, bos=None, eos="<|im_end|>", pad="<|endoftext|>", adds_bos=False)


SHAPE = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=2048,
    initializer_range=0.3,  # wide enough that scores of different texts differ well above the tolerance
)


@dataclass
class TinyModel:
    folder: Path
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerFast

    def plain_score(self, prompt: str, response: str) -> float:
        """The score by the recipe of Skywork-Reward-V2's card: one text at a time, plain transformers."""
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        bos = self.tokenizer.bos_token
        if bos is not None:
            text = text.removeprefix(bos)
        with torch.no_grad():
            return self.model(**self.tokenizer(text, return_tensors="pt")).logits[0][0].item()


def conversation(prompt: str, trace: str, answer: str, status: str = "complete") -> Conversation:
    full = f"<think>\n{trace}\n</think>\n\n{answer}" if trace and answer else f"<think>\n{trace}" if trace else answer
    return Conversation(prompt, trace, answer, full, status)
