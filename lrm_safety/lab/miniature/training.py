"""Supervised training of the miniature's two models: deterministic, on CPU, from examples that are drawn as it goes.

The examples of a step depend on the seed and the step alone, so the first steps of a long training can be repeated
and compared without running the rest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast, Qwen3ForCausalLM

from lrm_safety.lab.miniature.models import new_policy, new_reward_model
from lrm_safety.lab.reward_training.loss import bradley_terry_loss
from lrm_safety.miniature.preferences import Scored, draw_ladder
from lrm_safety.miniature.responses import Response, draw_example

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
