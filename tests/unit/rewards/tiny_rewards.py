"""Tiny reward models with random weights: one token a byte, so that lengths can be counted by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_model
from tiny_tokenizers import byte_tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

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


def llama_tokenizer(*, adds_bos: bool = True, pad: str | None = "<|pad|>") -> PreTrainedTokenizerFast:
    return byte_tokenizer(
        LLAMA_SPECIAL,
        template=LLAMA_TEMPLATE,
        single="<|begin_of_text|> $A" if adds_bos else None,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token=pad,
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(QWEN_SPECIAL, template=QWEN_TEMPLATE, eos_token="<|im_end|>", pad_token="<|endoftext|>")


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


def save_reward_model(
    folder: Path, tokenizer: PreTrainedTokenizerFast, architecture: type[PreTrainedModel], **sizes: Any
) -> TinyModel:
    """Weights wide enough that scores of different texts differ well above the tolerance."""
    model = tiny_model(
        architecture,
        vocab_size=len(tokenizer),
        num_labels=1,
        max_position_embeddings=2048,
        initializer_range=0.3,
        **sizes,
    ).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TinyModel(folder, model, tokenizer)


def conversation(prompt: str, trace: str, answer: str, status: str = "complete") -> Conversation:
    full = f"<think>\n{trace}\n</think>\n\n{answer}" if trace and answer else f"<think>\n{trace}" if trace else answer
    return Conversation(prompt, trace, answer, full, status)
