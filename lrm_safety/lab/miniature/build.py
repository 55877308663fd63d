"""Builds the miniature from nothing but a seed: prompt files, the unsafe base policy, the reward model, and how both behave.

The shipped folders under `lrm_safety/miniature/assets` were trained by this code, policy and reward model each in its own run
with the same seed; `build.json` records the first losses and the behaviour that came out, so that a test can rerun the first
steps and match them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import LlamaForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast, Qwen3ForCausalLM

from ...files import give_usual_modes, write_json, write_json_lines, writing
from ...miniature.graders import grade
from ...miniature.preferences import draw_ladder, draw_pair
from ...miniature.responses import draw_example
from ...miniature.rows import supervised_rows
from ...miniature.world import held_out_prompts, train_prompts
from .models import (
    POLICY_RECIPE,
    REWARD_RECIPE,
    ReportStep,
    prompt_ids,
    reward_scores,
    train_policy,
    train_policy_tokenizer,
    train_reward_model,
    train_reward_tokenizer,
)

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


NUM_THREADS = 2
"""Float sums depend on how threads share them, so the builder fixes their number."""
NUM_RECORDED_STEPS = 20
NUM_TOKENIZER_EXAMPLES = 6000


def build(
    output: Path,
    *,
    seed: int = 0,
    policy_steps: int = POLICY_RECIPE.num_steps,
    reward_steps: int = REWARD_RECIPE.num_steps,
) -> dict[str, Any]:
    """Writes `policy/`, `reward/`, `prompts/` and `build.json` under `output`; returns what build.json holds. Raises ConfigError
    where they cannot be made.

    With the default numbers of steps the two trainings took 21 and 8 minutes on two cores that were shared with others.
    """
    with writing(f"build-miniature: {output}", "give another folder"):
        for name in ("prompts", "policy", "reward"):
            (output / name).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(NUM_THREADS)
    held_out = [prompt.row() for prompt in held_out_prompts()]
    train = [prompt.row() for prompt in train_prompts()]
    for name, rows in {
        "train": train,
        "forbidden": [row for row in train if row["kind"] == "forbidden"],
        "held_out": held_out,
        "supervised": supervised_rows(),
    }.items():
        write_json_lines(output / "prompts" / f"{name}.jsonl", rows)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        report_policy, policy_losses = _recorder(progress, "policy, supervised", policy_steps)
        report_reward, reward_losses = _recorder(progress, "reward model, ladders", reward_steps)
        policy_tokenizer = train_policy_tokenizer(policy_texts(seed))
        recipe = replace(POLICY_RECIPE, num_steps=policy_steps)
        policy = train_policy(policy_tokenizer, recipe, seed=seed, report=report_policy)
        _save(policy, policy_tokenizer, output / "policy")
        reward_tokenizer = train_reward_tokenizer(reward_texts(seed))
        recipe = replace(REWARD_RECIPE, num_steps=reward_steps)
        reward_model = train_reward_model(reward_tokenizer, recipe, seed=seed, report=report_reward)
        _save(reward_model, reward_tokenizer, output / "reward")

    record = {
        "seed": seed,
        "policy_steps": policy_steps,
        "reward_steps": reward_steps,
        "policy_losses": policy_losses[:NUM_RECORDED_STEPS],
        "reward_losses": reward_losses[:NUM_RECORDED_STEPS],
        "policy_last_loss": sum(policy_losses[-NUM_RECORDED_STEPS:]) / len(policy_losses[-NUM_RECORDED_STEPS:]),
        "reward_last_loss": sum(reward_losses[-NUM_RECORDED_STEPS:]) / len(reward_losses[-NUM_RECORDED_STEPS:]),
        "held_out": measure_policy(policy, policy_tokenizer, held_out, seed=seed),
        "pair_accuracy": pair_accuracy(reward_model, reward_tokenizer, num_pairs=2000, seed=seed),
    }
    write_json(output / "build.json", record)
    return record


def policy_texts(seed: int) -> list[str]:
    """What the policy's tokenizer is trained on: questions and responses of the supervised corpus."""
    rng = random.Random(f"policy tokenizer {seed}")
    examples = (draw_example(rng) for _ in range(NUM_TOKENIZER_EXAMPLES))
    # The markers are added tokens and must not be learned as text.
    return [text for question, response in examples for text in (question, response.trace, response.answer)]


def reward_texts(seed: int) -> list[str]:
    """What the reward model's tokenizer is trained on: questions and responses of the preference ladders."""
    rng = random.Random(f"reward tokenizer {seed}")
    ladders = (draw_ladder(rng) for _ in range(NUM_TOKENIZER_EXAMPLES))
    return [text for ladder in ladders for text in (ladder[0].question, ladder[0].text)]


def _recorder(progress: Progress, name: str, total: int) -> tuple[ReportStep, list[float]]:
    """Whom a training tells of its steps, and the losses that it has told."""
    losses: list[float] = []
    task = progress.add_task(name, total=total)

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        progress.update(task, completed=step + 1, description=f"{name}, loss {loss:.3f}")

    return report, losses


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    give_usual_modes(folder)
