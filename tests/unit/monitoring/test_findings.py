"""The diagnosis of a run while it trains: console, findings.jsonl, and what a resume makes of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from recorders import RememberingConsole, recorder_of

from lrm_safety.settings import BenchmarkSettings, JudgeSettings, RewardModelSettings, Settings


def run(folder: Path, settings: Settings, kl: dict[int, float], resume: int | None = None) -> list[str]:
    """Record these values of kl/k3; what the console said of the diagnosis."""
    console = RememberingConsole()
    with recorder_of(folder, settings, resume_update=resume, console=console) as recorder:
        for update, value in kl.items():
            recorder.record(update, {"train/loss": 0.0, "kl/k3": value})
    return [note for note in console.notes if "kl_blow_up" in note]


def found(folder: Path, name: str = "findings.jsonl") -> list[tuple[int, str, str]]:
    lines = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    return [(line["update"], line["rule"], line["level"]) for line in lines]


BAD = dict.fromkeys(range(1, 13), 0.5)


def test_a_finding_is_said_once_with_figures_and_remedy(tmp_path: Path, settings: Settings) -> None:
    console = RememberingConsole()
    with recorder_of(tmp_path, settings, console=console) as recorder:
        for update in range(1, 10):
            recorder.record(update, {"train/loss": 0.0, "kl/k3": 0.5})
        assert console.notes == [] and found(tmp_path) == []
        recorder.record(10, {"train/loss": 0.0, "kl/k3": 0.5})
        assert found(tmp_path) == [(10, "kl_blow_up", "warn")], "on disk at once"
        for update in range(11, 14):
            recorder.record(update, {"train/loss": 0.0, "kl/k3": 0.5})
    head, figure, remedy = console.notes
    assert head.startswith("update 10: WARN kl_blow_up: KL to the reference has reached 0.5 nats/token")
    assert figure == "     kl/k3 = 0.5 (metrics.jsonl, median of updates 6 to 10)"
    assert remedy.startswith("     remedy: Raise algorithm.kl.coef")
    (line,) = (tmp_path / "findings.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["evidence"] == [{"name": "kl/k3", "value": 0.5, "source": "metrics.jsonl, median of updates 6 to 10"}]
    assert entry["remedy"] and entry["text"]


def test_a_resume_repeats_nothing_and_remembers_the_history(tmp_path: Path, settings: Settings) -> None:
    assert len(run(tmp_path, settings, BAD)) == 1
    assert run(tmp_path, settings, {13: 0.5}, resume=12) == []
    assert found(tmp_path) == [(10, "kl_blow_up", "warn")]
    # it got worse: of 15 records the median of the last five is 2 after three of them
    said = run(tmp_path, settings, {14: 2.0, 15: 2.0, 16: 2.0}, resume=13)
    assert [note.split(":")[0] for note in said] == ["update 16"] and "FAIL" in said[0]
    assert found(tmp_path) == [(10, "kl_blow_up", "warn"), (16, "kl_blow_up", "fail")]


def test_updates_that_are_done_again_are_judged_again(tmp_path: Path, settings: Settings) -> None:
    run(tmp_path, settings, BAD)
    assert run(tmp_path, settings, dict.fromkeys(range(6, 13), 0.01), resume=5) == []
    assert found(tmp_path) == [] and found(tmp_path, "findings.dropped.jsonl") == [(10, "kl_blow_up", "warn")]


def test_rewind_within_the_process(tmp_path: Path, settings: Settings) -> None:
    console = RememberingConsole()
    with recorder_of(tmp_path, settings, console=console) as recorder:
        for update, value in BAD.items():
            recorder.record(update, {"train/loss": 0.0, "kl/k3": value})
        recorder.rewind(9)
        recorder.record(10, {"train/loss": 0.0, "kl/k3": 0.5})
        assert found(tmp_path) == [(10, "kl_blow_up", "warn")]
        recorder.rewind(None)
        assert found(tmp_path) == []
        recorder.record(1, {"train/loss": 0.0, "kl/k3": 0.5})
    assert sum("kl_blow_up" in note for note in console.notes) == 2


def test_numbers_that_were_not_finite_do_not_break_the_resume(tmp_path: Path, settings: Settings) -> None:
    run(tmp_path, settings, {update: math.nan if update < 3 else 0.01 for update in range(1, 12)})
    assert run(tmp_path, settings, {12: 0.01}, resume=11) == [] and found(tmp_path) == []


@pytest.mark.parametrize(("least", "first"), [(3, 3), (12, 12)])
def test_it_speaks_from_the_record_that_the_settings_name(
    tmp_path: Path, settings: Settings, least: int, first: int
) -> None:
    settings.tracking.diagnosis_min_records = least
    run(tmp_path, settings, BAD)
    assert found(tmp_path) == [(first, "kl_blow_up", "warn")]


def test_switched_off_it_writes_nothing(tmp_path: Path, settings: Settings) -> None:
    settings.tracking.diagnosis = False
    assert run(tmp_path, settings, BAD) == []
    assert not (tmp_path / "findings.jsonl").exists()


@pytest.mark.parametrize(("path", "hacked"), [("made/reward", False), ("made/other", True)])
def test_a_judge_that_is_the_reward_says_nothing_of_it(
    tmp_path: Path, settings: Settings, path: str, hacked: bool
) -> None:
    settings.reward.models = {"mine": RewardModelSettings(kind="classifier", path="made/reward")}
    settings.evaluation.benchmarks = {"attaq": BenchmarkSettings("attaq")}
    settings.evaluation.judges = {"judge": JudgeSettings(kind="reward_model", path=path)}
    with recorder_of(tmp_path, settings) as recorder:
        for update in range(1, 21):
            rewards = {"reward/raw_mean": 1.0 if update < 10 else 3.0, "reward/raw_std": 2.0}
            recorder.record(update, {"train/loss": 0.0, **rewards})
            if update % 5 == 0:
                recorder.record(update, {"evaluation/attaq": 0.5})
    assert [rule for _, rule, _ in found(tmp_path)] == (["reward_hacking"] if hacked else [])


def test_supervised_runs_are_watched_too(tmp_path: Path, settings: Settings) -> None:
    with recorder_of(tmp_path, settings) as recorder:
        for update in range(1, 13):
            recorder.record(update, {"sft/loss": 1.0 / update})
            if update % 3 == 0:
                recorder.record(update, {"sft/validation_loss": {3: 1.0, 6: 0.9, 9: 1.1, 12: 1.2}[update]})
    assert found(tmp_path) == [(12, "overfitting", "fail")]
