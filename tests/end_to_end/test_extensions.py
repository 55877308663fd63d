"""A family, a baseline, a correction, a kind of reward, a judged benchmark and a judge of somebody else's, from one file
outside the package: trained with, and evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from running import Command

MINE = '''
"""Everything of this experiment in one file."""

import json
from pathlib import Path

import numpy as np

from lrm_safety.algorithm.baselines import baseline
from lrm_safety.algorithm.corrections import correction
from lrm_safety.conversation.families import Family
from lrm_safety.evaluation.benchmarks.registry import Question, questions
from lrm_safety.evaluation.benchmarks.registry import benchmark
from lrm_safety.evaluation.judges.judge import Verdict, judge
from lrm_safety.rewards.kinds import reward

FAMILY = Family(
    name="mine", trace_opened_by="prompt", sft_layout="{trace}\\n</think>\\n\\n{answer}", end_tokens=("<|end|>",)
)


@baseline()
def half(scores, groups):
    return scores - groups.mean(scores) / 2


@correction
def capped(ratio, cap):
    return ratio.clamp(max=cap), ratio > cap


class Short:
    """Shorter answers score higher."""

    def __init__(self, scale):
        from collections import Counter

        self.counters, self.scale = Counter(), scale

    def score_texts(self, conversations, view):
        return np.array([-len(one.answer) * self.scale for one in conversations], dtype=np.float32)


@reward("short")
def short(name, settings, device):
    return Short(settings.arguments["scale"])


@benchmark("shopping", kind="safety", scoring="judges")
def shopping(size: int = 3):
    rows = [json.loads(line) for line in Path("prompts.jsonl").read_text().splitlines()][:size]
    return questions(
        (Question(id=row["id"], prompt=row["question"], request=row["question"], groups={"end": row["id"][-1]}) for row in rows),
        "prompts.jsonl",
    )


@judge("silent", refusal_in="safety")
class Silent:
    """Safe is what is shorter than `limit` characters."""

    def __init__(self, *, name, limit):
        self.name, self.limit = name, limit

    def judge(self, items):
        return [Verdict(float(len(item.text) < self.limit), "seen") for item in items]

    def close(self):
        pass
'''
TRAIN = (
    "train",
    "experiment=miniature",
    "model.family=mine:FAMILY",
    "algorithm.baseline=mine:half",
    "algorithm.correction=mine:capped",
    "algorithm.samples_per_prompt=2",
    "algorithm.rollout_batch_size=8",
    "algorithm.mini_batch_size=16",
    "schedule.max_updates=1",
    "evaluation=none",
    "checkpoint.best_metric=null",
    "+reward.models.short.kind='mine:short'",
    "+reward.models.short.arguments.scale=1.0",
    "run.directory=run",
)
CONFIGURATION = {
    # As the files of conf/judge, which begin with `@package evaluation.judges`.
    "judge/silent": {"silent": {"kind": "mine:Silent", "views": ["answer", "trace"], "arguments": {"limit": 1000}}},
    "evaluation/judged": {
        "benchmarks": {
            "shop": {"task": "mine:shopping", "arguments": {"size": 3}},
            "own": {"task": "custom", "arguments": {"path": "prompts.jsonl"}},
        }
    },
}


def test_one_file_from_outside_is_trained_and_evaluated(tmp_path: Path, command: Callable[..., Command]) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    rows = [{"id": f"p{n}", "question": f"Which of the {n} ways is the best?", "category": ["c"]} for n in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, content in CONFIGURATION.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        package = "# @package evaluation.judges\n" if name.startswith("judge") else ""
        path.write_text(package + yaml.safe_dump(content))

    trained = command(*TRAIN)
    assert trained.wait() == 0, trained.output
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["reward/raw_mean"] < -10, "minus the answers' lengths"

    evaluated = command(
        "evaluate",
        "model=miniature",
        "model.path=run/export",
        "model.family=mine:FAMILY",
        "rollout=vllm_cpu",
        f"hydra.searchpath=[file://{tmp_path / 'conf'}]",
        "evaluation=judged",
        "judge=[silent,refusal_rules]",
        "evaluation.max_response_tokens=80",
        "run.directory=measured",
    )
    assert evaluated.wait() == 0, evaluated.output
    results = json.loads((tmp_path / "measured" / "results.json").read_text())["benchmarks"]
    assert {name: (one["kind"], one["data"]["num_questions"]) for name, one in results.items()} == {
        "shop": ("safety", 3),
        "own": ("safety", 4),
    }
    for name in ("shop", "own"):
        figures = results[name]["figures"]
        assert results[name]["primary"] == "safety/silent/answer"
        assert figures["safety/silent/trace"]["value"] == 1.0, "no trace has a thousand characters"
        assert figures.keys() >= {"safety/refusal_rules/trace", "safety/refusal_rules/answer"}, "two judges read it"
