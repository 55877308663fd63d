"""A made-up study: folders as lrm-safety writes them, with figures that nobody measured (every model is named `made-up`)."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lrm_safety.conversation.families import Protocol
from lrm_safety.results import (
    AnalysedModel,
    Audit,
    AuditedModel,
    AuditedView,
    Benchmark,
    BenchmarkData,
    Evaluation,
    Forking,
    LengthBias,
    Memorization,
    MemorizationCell,
    Metric,
    Model,
    Reflection,
    ReflectionCell,
    ReflectionTokens,
    Separation,
    SupervisedData,
)
from lrm_safety.settings.evaluation import BENCHMARKS

LABELS: tuple[str, ...] = ("made-up theft", "made-up fraud", "made-up <b>tags</b>", "made-up harm")
SAFETY, REFUSAL, RIGHT = "safety/refusal_rules/full", "over_refusal/refusal_rules/answer", "pass@1"


def figure(value: float, n: int = 100, half: float = 0.05) -> Metric:
    return Metric(value, value - half, value + half, n)


def benchmark(
    task: str,
    kind: str,
    primary: str,
    value: float,
    *,
    figures: Mapping[str, Metric] | None = None,
    questions: Sequence[float] | None = None,
    attack: str | None = None,
) -> Benchmark:
    """One entry of results.json. Without `questions` so many of 100 are 1 that their mean is near `value`."""
    answers = [float(i < round(100 * value)) for i in range(100)] if questions is None else questions
    return Benchmark(
        task=task,
        kind=kind,
        data=BenchmarkData("made up", "0", len(answers), 0),
        attack=attack,
        samples=1,
        primary=primary,
        statuses={"complete": len(answers)},
        figures={primary: figure(value), **(figures or {})},
        questions={f"q{i}": answer for i, answer in enumerate(answers)},
    )


def evaluated(benchmarks: Mapping[str, Benchmark], seed: int = 0, family: str = "qwen3") -> Evaluation:
    judge = {"kind": "refusal_rules", "views": ["full"], "path": None, "arguments": {}}
    return Evaluation(
        model=Model("made-up", "made/up", family, "float32", "0"),
        protocol=Protocol("training", 1.0, 1.0, 0, 64, True, "made up"),
        seed=seed,
        judges={"refusal_rules": judge | {"measured": {"note": ["wrong about one in ten."]}}},
        benchmarks=benchmarks,
        seconds={"generate_seconds": 60.0, "judge_seconds": 3.0},
    )


def evaluation(folder: Path, benchmarks: Mapping[str, Benchmark], seed: int = 0, family: str = "qwen3") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    evaluated(benchmarks, seed, family).write(folder)
    return folder


def task_of(name: str) -> dict[str, Any]:
    """How a run's configuration may have named a benchmark: it says what a metric of that name measures."""
    of_the_miniature = {"safety": "forbidden", "arithmetic": "arithmetic", "benign": "benign"}
    if name in of_the_miniature:
        return {"task": "miniature", "arguments": {"kind": of_the_miniature[name]}}
    return {"task": name} if name in BENCHMARKS else {"task": "custom", "arguments": {"grader": "made.up:grade"}}


def training(
    folder: Path, series: Mapping[str, Sequence[tuple[int, float]]], config: Mapping[str, Any] | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[int, dict[str, float]] = {}
    for name, points in series.items():
        for update, value in points:
            lines.setdefault(update, {"update": update})[name] = value
    text = "".join(json.dumps(lines[update]) + "\n" for update in sorted(lines))
    (folder / "metrics.jsonl").write_text(text)
    made: dict[str, Any] = {"seed": 0} if config is None else dict(config)
    asked = {name.split("/")[1]: task_of(name.split("/")[1]) for name in series if name.startswith("evaluation/")}
    if asked:
        made["evaluation"] = {"benchmarks": asked} | made.get("evaluation", {})
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    return folder


def analysed(folder: Path, names: Iterable[str]) -> dict[str, AnalysedModel]:
    """Models that no other folder has: each has a fingerprint of its own."""
    return {name: AnalysedModel("made/up", "qwen3", "float32", f"{folder.name} {name}") for name in names}


def reflected(cells: Iterable[ReflectionCell], models: Mapping[str, AnalysedModel], seed: int = 0) -> Reflection:
    return Reflection(
        base="base",
        models=models,
        sampling_temperatures={"base": 1.0},
        tokens=ReflectionTokens("cyclic_reflex", ("wait",), {"wait": 1}, ()),
        forking=Forking(80.0, ()),
        seed=seed,
        cells=tuple(cells),
        differences=(),
    )


def memorized(cells: Iterable[MemorizationCell], models: Mapping[str, AnalysedModel], seed: int = 0) -> Memorization:
    return Memorization(
        base="base",
        models=models,
        data=SupervisedData("made up", "0", 50, 0),
        max_new_tokens=0,
        seed=seed,
        cells=tuple(cells),
        differences=(),
    )


def reflection(folder: Path, values: Mapping[tuple[str, str], float]) -> Path:
    """reflection.json of (model, benchmark) -> entropy, each model reading its own responses."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [
        ReflectionCell(
            reader=model,
            writer=model,
            benchmark=name,
            temperature=1.0,
            num_responses=100,
            figures={
                "emit/token_mean": figure(value, half=0.02),
                "next/token_mean": figure(value / 2, half=0.02),
                "reflections/per_1000_trace_tokens": figure(9.0, half=1.0),
            },
            deciles=tuple(figure(0.1 + value * math.exp(-tenth / 5), half=0.02) for tenth in range(10)),
        )
        for (model, name), value in values.items()
    ]
    reflected(cells, analysed(folder, [name for name, _ in values])).write(folder)
    return folder


def memorization(folder: Path, values: Mapping[tuple[str, str], float]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cells = [
        MemorizationCell(
            model=model,
            group=group,
            num_rows=50,
            figures={
                "exact_memorization/response": figure(value),
                "extraction_strength/response": figure(value / 3),
                "rouge_l/f_measure": figure(value / 2),
                "negative_log_likelihood/response": figure(2 - value),
            },
            rows={},
        )
        for (model, group), value in values.items()
    ]
    memorized(cells, analysed(folder, [name for name, _ in values])).write(folder)
    return folder


def audit(folder: Path, families: Mapping[str, float], categories: Mapping[str, float]) -> Path:
    """audit.json with AUC by family and by category."""
    folder.mkdir(parents=True, exist_ok=True)

    def auc(value: float) -> Separation:
        return Separation(value, value - 0.05, min(1.0, value + 0.05), 20, 20)

    figures = AuditedView(
        separation=auc(0.9),
        by_category={name: auc(value) for name, value in categories.items()}
        | {"made-up few": Separation(None, None, None, 20, 20)},
        by_family={name: auc(value) for name, value in families.items()},
        agreement_of_families={},
        length=LengthBias(0.1, 0.1, 0.5, 0.9, 0.0, 1.0),
        overlong={},
    )
    made = AuditedModel("warn", ("full",), ("warn: full, made up",), (), {"full": figures})
    Audit(verdict="warn", num_texts=40, num_prompts=20, rows="made up", seed=0, models={"made": made}).write(folder)
    return folder


def by_label(names: Sequence[str], safety: float, worst: float, group: str = "label") -> dict[str, Metric]:
    """Safety of each label, rising to 1 from that of all; the last is the worst."""
    values = [min(1.0, safety + 0.04 * i) for i in range(len(names) - 1)] + [worst]
    return {
        f"{SAFETY}@{group}={name}": figure(value, n=25, half=0.08) for name, value in zip(names, values, strict=True)
    }


def all_benchmarks(safety: float, right: float, refused: float, worst_label: float) -> dict[str, Benchmark]:
    labels = by_label(LABELS, safety, worst_label)
    views = {"safety/refusal_rules/trace": figure(safety - 0.1), "safety/refusal_rules/answer": figure(safety)}
    lengths = {"length/response_tokens": figure(820.0, half=20.0)}
    return {
        "attaq": benchmark("attaq", "safety", SAFETY, safety, figures=views | labels | lengths),
        "xstest": benchmark("xstest", "over_refusal", REFUSAL, refused),
        "math500": benchmark("math500", "reasoning", RIGHT, right, figures=lengths),
        "gpqa_diamond": benchmark("gpqa", "reasoning", RIGHT, right - 0.3),
    }


def rl_curves(seed: int, updates: int = 60) -> dict[str, list[tuple[int, float]]]:
    draw = random.Random(seed)
    steps = range(2, updates + 1, 2)

    def rising(low: float, high: float, noise: float) -> list[tuple[int, float]]:
        return [
            (step, low + (high - low) * (1 - math.exp(-3 * step / updates)) + draw.gauss(0, noise)) for step in steps
        ]

    return {
        "train/update": [(step, step) for step in steps],
        "train/loss": rising(0.0, -0.05, 0.02),
        "train/gradient_norm": rising(0.9, 0.4, 0.08),
        "reward/raw_mean": rising(-2.0, 6.0, 0.5),
        "reward/raw_std": rising(4.0, 3.0, 0.2),
        "reward/shaped_std": rising(4.0, 3.0, 0.2),
        "reward/kl_penalty_mean": rising(0.0, 0.3, 0.02),
        "kl/k3": rising(0.0, 0.04, 0.001),
        "kl/coef": [(step, 0.01) for step in steps],
        "entropy/all": rising(0.6, 0.4, 0.02),
        "entropy/trace": rising(0.7, 0.5, 0.02),
        "entropy/reflection": rising(1.1, 0.6, 0.05),
        "response/length_mean": rising(800, 700, 20),
        "response/trace_length_mean": rising(600, 520, 20),
        "response/unfinished_fraction": rising(0.05, 0.03, 0.005),
        "response/malformed_fraction": rising(0.01, 0.01, 0.001),
        "response/refusal_rate": rising(0.1, 0.8, 0.03),
        "mismatch/kl": rising(0.001, 0.001, 0.0001),
        "time/iteration_seconds": [(step, 30.0) for step in steps],
        "time/generate_seconds": [(step, 18.0) for step in steps],
        "time/update_seconds": [(step, 10.0) for step in steps],
        "speed/generate_tokens_per_second": [(step, 1000.0) for step in steps],
        "speed/update_tokens_per_second": [(step, 2000.0) for step in steps],
        "evaluation/attaq": [(0, 0.35), (30, 0.7), (60, 0.88 + draw.gauss(0, 0.02))],
    }


def make_study(root: Path, num_seeds: int = 3) -> list[str]:
    """Folders of base, SFT and RL with several seeds; returns the arguments of `lrm-safety report`."""
    draw = random.Random(1)
    arguments = [f"base={evaluation(root / 'base', all_benchmarks(0.36, 0.81, 0.05, 0.30))}"]
    config = {
        "model": {"path": "made/up"},
        "data": {"name": "made-up prompts"},
        "algorithm": {"name": "reinforce_pp", "kl": {"coef": 0.01, "placement": "reward"}},
        "trainer": {"lr": 1e-6},
        "rollout": {"tensor_parallel_size": 1},
        "reward": {"models": {"made": {"kind": "classifier", "path": "made/reward"}}},
        "evaluation": {"judges": {"rules": {"kind": "refusal_rules", "path": None}}},
        "cluster": {
            "device": "cuda",
            **{
                name: {"num_workers": 2, "gpus_per_worker": 1.0}
                for name in ("policy", "rollout", "reference", "reward")
            },
        },
    }
    supervised = {key: config[key] for key in ("model", "data", "cluster")} | {"trainer": {"lr": 1e-5}}
    for seed in range(num_seeds):
        shake = draw.gauss(0, 0.01)
        made = evaluation(root / f"sft-eval-{seed}", all_benchmarks(0.75 + shake, 0.75 + shake, 0.32, 0.66), seed)
        curves = {
            "train/update": [(step, step) for step in range(1, 41)],
            "sft/loss": [(step, 0.7 + 1.2 * math.exp(-step / 12) + draw.gauss(0, 0.02)) for step in range(1, 41)],
            "train/gradient_norm": [(step, 1.0 + draw.gauss(0, 0.1)) for step in range(1, 41)],
            "time/iteration_seconds": [(step, 12.0) for step in range(1, 41)],
            "time/update_seconds": [(step, 11.0) for step in range(1, 41)],
            "speed/update_tokens_per_second": [(step, 3000.0) for step in range(1, 41)],
        }
        arguments += [f"sft={training(root / f'sft-{seed}', curves, supervised | {'seed': seed})}", f"sft={made}"]
        made = evaluation(root / f"rl-eval-{seed}", all_benchmarks(0.9 + shake, 0.805 + shake, 0.12, 0.55), seed)
        arguments += [f"rl={training(root / f'rl-{seed}', rl_curves(seed), config | {'seed': seed})}", f"rl={made}"]
    entropies = {
        (model, name): value
        for model, row in {"base": (0.24, 0.31), "sft": (0.2, 0.2), "rl": (0.09, 0.3)}.items()
        for name, value in zip(("attaq", "math500"), row, strict=True)
    }
    groups = ("trained", "held_out")
    rows = {"base": (0.3, 0.3), "sft": (0.72, 0.41), "rl": (0.3, 0.31)}
    heart = {(model, group): value for model, row in rows.items() for group, value in zip(groups, row, strict=True)}
    audited = audit(
        root / "audit", {"made-up family": 0.7, "qwen3": 0.97}, {"made-up theft": 0.95, "made-up harm": 0.6}
    )
    analyses = [reflection(root / "reflection", entropies), memorization(root / "memorized", heart), audited]
    return [*arguments, *map(str, analyses)]


def make_families(root: Path, count: int = 10, num_labels: int = 44) -> list[str]:
    """Base, SFT and RL of many model families, one seed each, and a benchmark of many long labels; the last has no SFT, only
    the first has curves.
    """
    draw = random.Random(2)
    names = [
        f"made-up category number {i} of rather many and rather long ones"[: 14 + 7 * (i % 8)]
        for i in range(num_labels)
    ]
    names = [f"{i} {name}" for i, name in enumerate(names)]
    arguments = []
    for family in (f"family{i}-{i + 1}b" for i in range(count)):
        for role, safety, right in (("base", 0.35, 0.8), ("sft", 0.75, 0.74), ("rl", 0.9, 0.79)):
            if role == "sft" and family.startswith(f"family{count - 1}"):
                continue
            safety, right = safety + draw.gauss(0, 0.05), right + draw.gauss(0, 0.03)
            made = all_benchmarks(min(1.0, safety), right, 0.1, safety / 2)
            made["air_bench"] = benchmark(
                "air_bench", "safety", SAFETY, safety, figures=by_label(names, safety / 2, 0.1, "level2")
            )
            folder = evaluation(root / f"{role}-{family}", made, family=family)
            if role == "rl" and len(arguments) < 3:
                training(folder, rl_curves(len(arguments)))
            arguments.append(f"{role}-{family}={folder}")
    return arguments
