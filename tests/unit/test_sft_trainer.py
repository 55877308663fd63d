"""The supervised loop over a policy group of the test's own, which remembers what it was trained on."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from batches import ASSETS

from lrm_safety.checkpoints import Files
from lrm_safety.errors import ConfigError, DataError, FolderLostError, InvariantError
from lrm_safety.files import changed_file, describe_files
from lrm_safety.interruption import DeadlineReached, Interruption, StopRequested
from lrm_safety.monitoring.recorder import Recorder
from lrm_safety.rollouts import TokenScores, TrainingSequence, Update
from lrm_safety.run_folder import Owner
from lrm_safety.settings.compose import compose_sft
from lrm_safety.sft import SftTrainer, supervised_metrics
from lrm_safety.sft_preparation import PreparedSft, prepare_sft
from lrm_safety.workers.protocols import Usage

ROWS = 20
SAME = ("time", "speed/", "memory/")


class Policy:
    """Its weights are the list of updates; a token's log-prob is minus its position, its entropy is 2."""

    def __init__(self, num_ranks: int = 2) -> None:
        self.num_ranks = num_ranks
        self.weights: list[tuple[list[int], float]] = []
        self.validations: list[int] = []
        self.loss = 1.5
        self.on_call: Callable[[], None] = lambda: None

    def scores(self, sequences: Sequence[TrainingSequence]) -> dict[int, TokenScores]:
        return {
            one.index: TokenScores(
                one.index,
                -np.arange(len(one.response_ids), dtype=np.float32),
                np.full(len(one.response_ids), 2.0, np.float32),
            )
            for one in sequences
        }

    def update(self, mini_batches: Sequence[Sequence[TrainingSequence]], lrs: Sequence[float]) -> list[Update]:
        self.on_call()
        (sequences,), (lr,) = mini_batches, lrs
        assert [one.index for one in sequences] == list(range(len(sequences)))
        self.weights.append(([len(one.response_ids) for one in sequences], lr))
        return [Update(self.loss, 0.5, lr, self.scores(sequences))]

    def logprobs(self, sequences: Sequence[TrainingSequence]) -> dict[int, TokenScores]:
        self.on_call()
        self.validations.append(len(self.weights))
        return self.scores(sequences)

    def save(self, folder: Path) -> Files:
        (folder / "weights.json").write_text(json.dumps(self.weights))
        for rank in range(self.num_ranks):
            (folder / f"generators_rank{rank:05d}.pt").touch()
        return describe_files(folder, folder.iterdir())

    def load(self, folder: Path, files: Files) -> None:
        assert changed_file(folder, files) is None
        self.weights = [(rows, lr) for rows, lr in json.loads((folder / "weights.json").read_text())]


def data(folder: Path) -> Path:
    """Row i has a trace of i + 1 words more than the first, so that lengths tell rows apart."""
    path = folder / "traces.jsonl"
    lines = (ASSETS / "prompts" / "train.jsonl").read_text().splitlines()[:ROWS]
    rows = [json.loads(line) for line in lines]
    for number, row in enumerate(rows):
        row["response"] = f"<think>\n{'1' * (number + 1)}\n</think>\n\n2"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Attempt:
    """One process's worth of a run."""

    def __init__(self, folder: Path, *overrides: str, num_ranks: int = 2) -> None:
        settings, _ = compose_sft(
            [
                "model=miniature",
                f"data.path={data(folder)}",
                "sft.batch_size=6",
                "schedule.passes=2",
                "tracking=disabled",
                "tracking.console=off",
                *overrides,
            ]
        )
        self.run: PreparedSft = prepare_sft(settings, folder / "run")
        self.policy, self.interruption = Policy(num_ranks), Interruption()
        self.profiles: list[str] = []
        checkpoint = self.run.checkpoint
        self.recorder = Recorder(
            self.run.directory,
            self.run.settings.run.name,
            self.run.settings.tracking,
            self.run.schedule.limits,
            {},
            resume_state=checkpoint.state["recorder"] if checkpoint else None,
            resume_update=checkpoint.update if checkpoint else None,
        )
        groups: Any = SimpleNamespace(
            policy=self.policy,
            cluster=settings.cluster,
            cards=lambda: {"policy": None},
            usage=lambda: Usage({"memory/policy_0_rss_gib": 1.0}, {"policy": [0.0]}),
            begin_profile=lambda: self.profiles.append(str(len(self.policy.weights))),
            end_profile=lambda folder, label: self.profiles.append(f"{len(self.policy.weights)} {folder.name}/{label}"),
        )
        self.trainer = SftTrainer(self.run, groups, self.recorder, self.interruption)

    def train(self) -> Attempt:
        with self.recorder, self.interruption.handled():
            self.trainer.train()
        return self

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = (self.run.directory / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    @property
    def repeated(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if not k.startswith(SAME)} for line in self.lines]

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self.run.directory.glob("checkpoints/update-*"))


def test_every_row_is_drawn_once_a_pass_in_whole_batches(tmp_path: Path) -> None:
    """Two passes over 20 rows in batches of 6: 40 of 42 draws, the last two of a third pass."""
    weights = Attempt(tmp_path).train().policy.weights
    assert [len(rows) for rows, _ in weights] == [6] * 7
    drawn = [length for rows, _ in weights for length in rows]
    assert len(set(drawn[:20])) == 20 and all(len(set(rows)) == 6 for rows, _ in weights)
    assert sorted(Counter(drawn).values()) == [2] * 18 + [3] * 2
    (tmp_path / "other").mkdir()
    assert [rows for rows, _ in Attempt(tmp_path / "other", "seed=1").train().policy.weights] != [r for r, _ in weights]


def test_the_updates_that_are_named_are_profiled_and_learn_the_same(tmp_path: Path) -> None:
    plain = Attempt(tmp_path).train()
    (tmp_path / "other").mkdir()
    profiled = Attempt(tmp_path / "other", "run.profile_updates=[7,3]").train()
    assert profiled.profiles == ["2", "3 profile/update-000003", "6", "7 profile/update-000007"]
    assert plain.profiles == [] and profiled.repeated == plain.repeated
    with pytest.raises(
        ConfigError, match=r"^run\.profile_updates=\[2,8\]: update 8 is beyond the updates of the run=7;"
    ):
        Attempt(tmp_path, "run.profile_updates=[2,8]")


def test_what_is_recorded(tmp_path: Path) -> None:
    done = Attempt(tmp_path, "trainer.warmup_fraction=0.5").train()
    lines = done.lines
    assert [line["update"] for line in lines] == list(range(1, 8))
    assert [round(line["train/passes"], 3) for line in lines[:2]] == [0.3, 0.6]
    # ceil(0.5 * 7) = 4 updates of warm-up.
    assert [line["train/lr"] for line in lines[:4]] == pytest.approx([2.5e-6, 5e-6, 7.5e-6, 1e-5])
    first = lines[0]
    assert (first["sft/loss"], first["train/gradient_norm"], first["sft/entropy"]) == (1.5, 0.5, 2.0)
    assert first["sft/response_length_mean"] == pytest.approx(np.mean(done.policy.weights[0][0]))
    assert first["sft/num_dropped"] == 0 and first["memory/policy_0_rss_gib"] == 1.0
    assert first["speed/update_tokens_per_second"] > 0 and "sft/validation_loss" not in first


def test_losses_of_trace_and_answer() -> None:
    """Responses of 3 and 2 tokens, traces of 2 and 0: (1 + 2) / 2 and (4 + 8 + 16) / 3; entropies 1..5."""
    rows: Any = [
        SimpleNamespace(num_trace_tokens=2, response_ids=[0] * 3),
        SimpleNamespace(num_trace_tokens=0, response_ids=[0] * 2),
    ]
    scores = {
        0: TokenScores(0, np.float32([-1, -2, -4]), np.float32([1, 2, 3])),
        1: TokenScores(1, np.float32([-8, -16]), np.float32([4, 5])),
    }
    assert supervised_metrics(rows, scores) == {
        "sft/trace_loss": 1.5,
        "sft/answer_loss": pytest.approx(28 / 3),
        "sft/entropy": 3.0,
        "sft/response_length_mean": 2.5,
    }
    assert "sft/trace_loss" not in supervised_metrics(rows[1:], {0: scores[1]})


def test_held_out_rows_are_scored_before_after_every_pass_and_at_the_end(tmp_path: Path) -> None:
    """18 rows in batches of 4, two passes: 9 updates; passes end within updates 5 and 9."""
    options = ("sft.validation_fraction=0.1", "sft.batch_size=4", "checkpoint.best_metric=sft/validation_loss")
    done = Attempt(tmp_path, *options, "checkpoint.best_mode=min").train()
    assert done.policy.validations == [0, 5, 9]
    values = {line["update"]: line["sft/validation_loss"] for line in done.lines if "sft/validation_loss" in line}
    tokens = [position for row in done.run.validation for position in range(len(row.response_ids))]
    assert values == dict.fromkeys([0, 5, 9], pytest.approx(sum(tokens) / len(tokens)))
    # Every held-out loss after update 0 belongs to a checkpoint, or the best one could be lost (checkpoint.every_updates=50).
    folder = done.run.directory / "checkpoints"
    kept = {one.update: one.metric for one in map(done.run.store.open, sorted(folder.glob("update-*")))}
    assert kept == {5: values[5], 9: values[9]}
    best = done.run.store.best()
    assert best is not None and best.update == 9


def test_another_number_of_ranks_is_said_at_the_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Attempt(tmp_path, "schedule.stop_after_updates=3").train()
    Attempt(tmp_path, "tracking.console=plain", "schedule.stop_after_updates=4").train()
    assert "go on: weights" not in capsys.readouterr().out
    Attempt(tmp_path, "tracking.console=plain", num_ranks=3).train()
    assert "2 trainer ranks wrote it and 3 go on: weights" in " ".join(capsys.readouterr().out.split())


def test_a_checkpoint_saved_before_its_validation_gets_the_figure_on_resume(tmp_path: Path) -> None:
    options = ("sft.validation_fraction=0.1", "sft.batch_size=4", "checkpoint.best_metric=sft/validation_loss")
    options = (*options, "checkpoint.best_mode=min")
    stopped = Attempt(tmp_path, *options)

    def stop_in_validation() -> None:
        if stopped.policy.validations == [0] and len(stopped.policy.weights) == 5:
            raise StopRequested(15)

    stopped.policy.on_call = stop_in_validation
    with pytest.raises(StopRequested):
        stopped.train()
    saved = stopped.run.store.latest()
    assert saved is not None and (saved.update, saved.metric) == (5, None)
    resumed = Attempt(tmp_path, *options).train()
    again = resumed.run.store.open(tmp_path / "run" / "checkpoints" / "update-000005")
    assert again.metric is not None and resumed.policy.validations[0] == 5


@pytest.mark.parametrize("overrides", [(), ("sft.validation_fraction=0.1",)])
def test_stop_and_resume_equal_an_uninterrupted_run(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = Attempt(tmp_path / "whole", *overrides).train()
    for stop in (2, 5):
        part = Attempt(tmp_path / "parts", *overrides, f"schedule.stop_after_updates={stop}").train()
        assert part.checkpoints[-1] == f"update-{stop:06d}"
    last = Attempt(tmp_path / "parts", *overrides).train()
    assert last.policy.weights == [(rows, lr) for rows, lr in whole.policy.weights]
    trained = [line for line in last.repeated if "sft/loss" in line]
    assert trained == [line for line in whole.repeated if "sft/loss" in line]
    again = Attempt(tmp_path / "parts", *overrides).train()
    assert again.policy.weights == whole.policy.weights, "a finished run has nothing left to do"


def test_a_signal_finishes_the_update_and_saves(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, "checkpoint.every_updates=0")

    def third() -> None:
        if len(attempt.policy.weights) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            attempt.interruption.check()  # as the group does while it waits: silent, for the update must finish

    attempt.policy.on_call = third
    with pytest.raises(StopRequested) as stopped:
        attempt.train()
    assert stopped.value.exit_code == 143
    assert attempt.checkpoints == ["update-000003"] and len(attempt.policy.weights) == 3
    assert [line["update"] for line in attempt.lines] == [1, 2, 3]
    assert len(Attempt(tmp_path).train().policy.weights) == 7


def test_a_signal_during_the_validation_is_obeyed_and_the_validation_made_again(tmp_path: Path) -> None:
    options = ("sft.validation_fraction=0.1", "sft.batch_size=9", "checkpoint.every_updates=0")
    attempt = Attempt(tmp_path, *options)

    def after_the_first_pass() -> None:
        if len(attempt.policy.weights) == 2 and attempt.trainer.update == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            attempt.interruption.check()

    attempt.policy.on_call = after_the_first_pass
    with pytest.raises(StopRequested):
        attempt.train()
    assert attempt.checkpoints == ["update-000002"]
    resumed = Attempt(tmp_path, *options).train()
    assert resumed.policy.validations == [2, 4]
    assert [line["update"] for line in resumed.lines] == [0, 1, 2, 2, 3, 4, 4]


def test_a_loss_that_is_no_number_ends_the_run_and_names_rows(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, "trainer.max_skipped_steps=1")
    attempt.policy.loss = math.nan
    with pytest.raises(InvariantError, match=r"update 2: loss or gradient is NaN .*\(rows .*, .*\)") as refused:
        attempt.train()
    (skipped,) = [line for line in attempt.lines if "sft/loss" in line]
    assert skipped["sft/loss"] is None and skipped["train/num_skipped"] == 1
    assert attempt.checkpoints == [] and "\n" not in str(refused.value)


def test_checkpoints_come_as_often_as_asked(tmp_path: Path) -> None:
    done = Attempt(tmp_path, "checkpoint.every_updates=3", "checkpoint.keep_last=9").train()
    assert done.checkpoints == ["update-000003", "update-000006", "update-000007"]


def test_other_data_need_leave_and_begin_a_new_pass(tmp_path: Path) -> None:
    Attempt(tmp_path, "schedule.stop_after_updates=2").train()
    with pytest.raises(ConfigError, match=r"data\.limit"):
        Attempt(tmp_path, "data.limit=10")
    changed = Attempt(tmp_path, "data.limit=10", "checkpoint.allow_changes=true").train()
    assert len(changed.policy.weights) == 4  # 2 passes over 10 rows in batches of 6


def test_a_folder_that_vanishes_is_noticed_and_what_was_lost_written_again(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, "checkpoint.every_updates=0")

    def remove() -> None:
        if len(attempt.policy.weights) == 2:
            shutil.rmtree(attempt.run.directory)

    attempt.policy.on_call = remove
    with pytest.raises(FolderLostError, match=r"metrics\.jsonl: was removed") as lost:
        attempt.train()
    assert "\n" not in str(lost.value)
    assert [line["update"] for line in attempt.lines] == [1, 2, 3] and attempt.checkpoints == ["update-000003"]
    resumed = Attempt(tmp_path).train()
    assert len(resumed.policy.weights) == 7 and [line["update"] for line in resumed.lines] == list(range(1, 8))


def test_a_folder_that_another_run_took_is_left_to_it(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, "checkpoint.every_updates=0")
    other = replace(Owner.of_this_process("lrm-safety train"), host="node7", system="another kernel")

    def take() -> None:
        if len(attempt.policy.weights) == 2:
            shutil.rmtree(attempt.run.directory)
            attempt.run.directory.mkdir()
            (attempt.run.directory / ".owner").write_text(json.dumps(asdict(other)))

    attempt.policy.on_call = take
    with pytest.raises(DataError, match="was taken by node7"):
        attempt.train()
    assert [path.name for path in attempt.run.directory.iterdir()] == [".owner"]


def test_sigusr1_saves_and_goes_on(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, "checkpoint.every_updates=0", "checkpoint.keep_last=5")

    def ask() -> None:
        if len(attempt.policy.weights) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    attempt.policy.on_call = ask
    attempt.train()
    assert attempt.checkpoints == ["update-000003", "update-000007"]


def test_checkpoints_by_the_clock_and_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each update takes 50 s: with a checkpoint every minute and a limit of four minutes, updates 2 and 4 are saved, and a
    fifth would end after 250 s."""
    now = [0.0]
    monkeypatch.setattr("lrm_safety.lifecycle.time.monotonic", lambda: now[0])
    options = ("checkpoint.every_updates=0", "checkpoint.every_minutes=1", "checkpoint.keep_last=9")
    attempt = Attempt(tmp_path, *options, "checkpoint.stop_after_minutes=4")

    def pass_time() -> None:
        now[0] += 50.0

    attempt.policy.on_call = pass_time
    with pytest.raises(DeadlineReached):
        attempt.train()
    assert attempt.checkpoints == ["update-000002", "update-000004"]
