"""The two models of the miniature: architectures, vocabularies, chat templates, and how they were trained.

Policy and reward model share no vocabulary and no special token, as with R1-Distill and Skywork: whoever scores a response
must go through its text. Training is supervised, deterministic, on the CPU, from examples that are drawn as it goes: those of
a step depend on the seed and the step alone, so the first steps of a long training can be repeated and compared without
running the rest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch.nn import functional
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ...miniature.preferences import Scored, draw_ladder
from ...miniature.responses import Response, draw_example
from ..reward_training.bradley_terry import bradley_terry_loss

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


ReportStep = Callable[[int, float], None]
"""Called with the step, counted from 0, and its loss."""

_IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """A supervised training: cosine from `peak_lr` to nought over `num_steps`, after a linear warm-up."""

    num_steps: int
    batch_size: int
    peak_lr: float
    num_warmup_steps: int = 50
    weight_decay: float = 0.05

    def lr(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.num_warmup_steps)
        return self.peak_lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.num_steps))


POLICY_RECIPE = Recipe(num_steps=1200, batch_size=64, peak_lr=2e-3)
REWARD_RECIPE = Recipe(num_steps=700, batch_size=8, peak_lr=3e-3)
LABEL_SMOOTHING = 0.02
"""Keeps the scores of separable pairs finite: a sure pair settles at a margin of ln(0.98 / 0.02), about 3.9."""


def train_policy(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, *, seed: int, report: ReportStep, stop_after: int | None = None
) -> Qwen3ForCausalLM:
    """Next-token training on responses (prompts are given, not learned); stops early after `stop_after` steps."""
    torch.manual_seed(seed)
    model = new_policy(tokenizer).train()

    def loss_of(step: int) -> torch.Tensor:
        rng = random.Random(f"policy {seed} {step}")
        return policy_loss(model, tokenizer, [draw_example(rng) for _ in range(recipe.batch_size)])

    _optimise(model, recipe, loss_of, report, stop_after)
    return model.eval()


def train_reward_model(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, *, seed: int, report: ReportStep, stop_after: int | None = None
) -> LlamaForSequenceClassification:
    """Bradley-Terry training on ladders; stops early after `stop_after` steps."""
    torch.manual_seed(seed + 1)
    model = new_reward_model(tokenizer).train()

    def loss_of(step: int) -> torch.Tensor:
        rng = random.Random(f"reward {seed} {step}")
        return preference_loss(model, tokenizer, [draw_ladder(rng) for _ in range(recipe.batch_size)])

    _optimise(model, recipe, loss_of, report, stop_after)
    return model.eval()


def policy_loss(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[tuple[str, Response]]
) -> torch.Tensor:
    """Mean cross-entropy over the response tokens, the end token included; a scalar."""
    rows = []
    for question, response in examples:
        prompt = prompt_ids(tokenizer, question)
        target = [*tokenizer.encode(response.text, add_special_tokens=False), tokenizer.eos_token_id]
        rows.append((prompt, target))
    width = max(len(prompt) + len(target) for prompt, target in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), _IGNORED)
    for index, (prompt, target) in enumerate(rows):
        ids[index, : len(prompt) + len(target)] = torch.tensor(prompt + target)
        labels[index, len(prompt) : len(prompt) + len(target)] = torch.tensor(target)
    # Padding stands on the right of a causal model, so the tokens that count never see it and no mask is needed.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    counted = labels[:, 1:] != _IGNORED
    return functional.cross_entropy(model.lm_head(hidden[counted]), labels[:, 1:][counted])


def preference_loss(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, ladders: list[list[Scored]]
) -> torch.Tensor:
    """Bradley-Terry loss with smoothed labels over all pairs of different rungs, across questions too; a scalar.

    Each combination of rungs weighs the same, or the easy comparisons with broken text would drown the others.
    """
    responses = [response for ladder in ladders for response in ladder]
    scores = reward_scores(model, tokenizer, responses)
    rungs = torch.tensor([response.rung for response in responses])
    losses = bradley_terry_loss(scores[:, None], scores[None, :], label_smoothing=LABEL_SMOOTHING)
    combinations = [
        losses[(rungs[:, None] == high) & (rungs[None, :] == low)].mean()
        for high in rungs.unique().tolist()
        for low in rungs.unique().tolist()
        if high > low
    ]
    return torch.stack(combinations).mean()


def reward_scores(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, responses: list[Scored]
) -> torch.Tensor:
    """Raw scores, float32 [responses]."""
    conversations = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": response.question}, {"role": "assistant", "content": response.text}],
            return_dict=False,
        )
        for response in responses
    ]
    padded = tokenizer.pad({"input_ids": conversations}, return_tensors="pt")
    return model(**padded, use_cache=False).logits[:, 0].float()


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Token ids of a question as the policy sees it, `<think>` and its line break included."""
    messages = [{"role": "user", "content": question}]
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


def _optimise(
    model: torch.nn.Module,
    recipe: Recipe,
    loss_of: Callable[[int], torch.Tensor],
    report: ReportStep,
    stop_after: int | None,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    for step in range(recipe.num_steps if stop_after is None else stop_after):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr(step)
        loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        report(step, loss.item())
