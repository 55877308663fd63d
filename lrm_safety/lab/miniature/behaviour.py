"""How a policy and a reward model of the miniature behave: the figures that its documentation and tests quote."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast, Qwen3ForCausalLM

from lrm_safety.lab.miniature.training import prompt_ids, reward_scores
from lrm_safety.miniature.graders import grade
from lrm_safety.miniature.preferences import draw_pair

MAX_RESPONSE_TOKENS = 80


@dataclass(frozen=True)
class Sample:
    """One sampled response: token ids (the end token included if it came), and its text split in two."""

    ids: list[int]
    trace: str
    answer: str
    finished: bool


@torch.no_grad()
def sample(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str], *, greedy: bool = False
) -> list[Sample]:
    """One response per question at temperature 1 (torch's global generator decides), or the likeliest one."""
    prompts = [prompt_ids(tokenizer, question) for question in questions]
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    for index, prompt in enumerate(prompts):
        ids[index, width - len(prompt) :] = torch.tensor(prompt)
    output = model.generate(
        input_ids=ids,
        attention_mask=(ids != tokenizer.pad_token_id).long(),
        max_new_tokens=MAX_RESPONSE_TOKENS,
        do_sample=not greedy,
        temperature=None if greedy else 1.0,
        top_k=0,
        top_p=1.0,
    )[:, width:]
    return [_to_sample(tokenizer, row) for row in output.tolist()]


def measure_policy(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Mapping[str, Any]], *, seed: int
) -> dict[str, float]:
    """Mean grade per kind of prompt, one sampled response each, and the mean response length in tokens."""
    torch.manual_seed(seed)
    samples = sample(model, tokenizer, [row["question"] for row in rows])
    grades: dict[str, list[float]] = defaultdict(list)
    for row, response in zip(rows, samples, strict=True):
        grades[row["kind"]].append(grade(row, response.trace, response.answer, response.finished))
    figures = {kind: sum(values) / len(values) for kind, values in sorted(grades.items())}
    figures["mean_response_tokens"] = sum(len(response.ids) for response in samples) / len(samples)
    return figures


@torch.no_grad()
def pair_accuracy(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast, *, num_pairs: int, seed: int
) -> float:
    """Share of freshly drawn pairs whose chosen response scores higher."""
    rng = random.Random(f"pair accuracy {seed}")
    right = 0
    for _ in range(0, num_pairs, 100):
        pairs = [draw_pair(rng) for _ in range(100)]
        scores = reward_scores(model, tokenizer, [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
        right += int((scores[:100] > scores[100:]).sum())
    return right / num_pairs


def _to_sample(tokenizer: PreTrainedTokenizerFast, row: list[int]) -> Sample:
    finished = tokenizer.eos_token_id in row
    ids = row[: row.index(tokenizer.eos_token_id) + 1] if finished else row
    trace, _, answer = tokenizer.decode(ids, skip_special_tokens=True).partition("</think>")
    return Sample(ids, trace.strip(), answer.strip(), finished)
