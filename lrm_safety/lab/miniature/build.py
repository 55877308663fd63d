"""Builds the miniature from nothing but a seed: prompt files, the unsafe base policy and the reward model.

The shipped folders under `assets/` were trained by this code, policy and reward model each in its own run with the same
seed; `assets/build.json` records the first losses and the behaviour that came out, so that a test can rerun the first
steps and match them.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lrm_safety.files import give_usual_modes, write_json, write_json_lines, writing
from lrm_safety.lab.miniature.behaviour import measure_policy, pair_accuracy
from lrm_safety.lab.miniature.models import train_policy_tokenizer, train_reward_tokenizer
from lrm_safety.lab.miniature.training import POLICY_RECIPE, REWARD_RECIPE, ReportStep, train_policy, train_reward_model
from lrm_safety.miniature.preferences import draw_ladder
from lrm_safety.miniature.responses import draw_example
from lrm_safety.miniature.supervised_rows import supervised_rows
from lrm_safety.miniature.world import held_out_prompts, train_prompts

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
    write_json_lines(output / "prompts" / "train.jsonl", (prompt.row() for prompt in train_prompts()))
    write_json_lines(
        output / "prompts" / "forbidden.jsonl",
        (prompt.row() for prompt in train_prompts() if prompt.kind == "forbidden"),
    )
    write_json_lines(output / "prompts" / "held_out.jsonl", held_out)
    write_json_lines(output / "prompts" / "supervised.jsonl", supervised_rows())

    policy_losses: list[float] = []
    reward_losses: list[float] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        policy_task = progress.add_task("policy, supervised", total=policy_steps)
        reward_task = progress.add_task("reward model, ladders", total=reward_steps)
        policy_tokenizer = train_policy_tokenizer(policy_texts(seed))
        policy = train_policy(
            policy_tokenizer,
            replace(POLICY_RECIPE, num_steps=policy_steps),
            seed=seed,
            report=_recorder(policy_losses, progress, policy_task, "policy, supervised"),
        )
        _save(policy, policy_tokenizer, output / "policy")
        reward_tokenizer = train_reward_tokenizer(reward_texts(seed))
        reward_model = train_reward_model(
            reward_tokenizer,
            replace(REWARD_RECIPE, num_steps=reward_steps),
            seed=seed,
            report=_recorder(reward_losses, progress, reward_task, "reward model, ladders"),
        )
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


def _recorder(losses: list[float], progress: Progress, task: Any, name: str) -> ReportStep:
    def report(step: int, loss: float) -> None:
        losses.append(loss)
        progress.update(task, completed=step + 1, description=f"{name}, loss {loss:.3f}")

    return report


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    give_usual_modes(folder)


if __name__ == "__main__":
    build(Path(__file__).parent / "assets")
