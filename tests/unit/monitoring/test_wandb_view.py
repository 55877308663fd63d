"""Real offline W&B runs, read back from their file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorders import recorder_of

from lrm_safety.errors import RewardError
from lrm_safety.monitoring.registry import GROUPS
from lrm_safety.monitoring.rollout_files import RolloutRow
from lrm_safety.settings import Settings


def payloads(data: bytes) -> Iterator[bytes]:
    """Records of a .wandb file: LevelDB's log format behind a 7-byte header.

    Blocks of 32 KiB hold fragments: checksum (4 bytes), length (2), kind (1: whole, 2: first, 3: middle, 4: last).
    """
    assert data.startswith(b":W&B")
    position, parts = 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        fragment = data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind == 0:
            return
        parts = parts + fragment if kind in (3, 4) else fragment
        if kind in (1, 4):
            yield parts


def read(run_dir: Path) -> list[tuple[str, list[Any]]]:
    """(file name, records) of every offline run below `run_dir`, in the order of their start."""
    from wandb.proto import wandb_internal_pb2

    runs = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        records = []
        for payload in payloads(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            records.append(record)
        runs.append((path.name, records))
    return runs


def history(records: list[Any]) -> list[dict[str, Any]]:
    return [
        {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def of_kind(records: list[Any], kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-config"))


@pytest.mark.usefixtures("clean_environment")
def test_an_offline_run_and_its_resume(tmp_path: Path, settings: Settings, make_row: Callable[..., RolloutRow]) -> None:
    settings.tracking.wandb = "offline"
    settings.tracking.tags, settings.tracking.group, settings.tracking.notes = ["first"], "a group", "why"
    settings.run.name = "a name"
    with recorder_of(tmp_path, settings) as recorder:
        spent = {"time/iteration_seconds": 3.0, "time/update_seconds": 2.0}
        recorder.record(1, {"kl/k1": 0.25, "reward/score/skywork/full": 3.0, **spent})
        recorder.record(2, {"kl/k1": 0.5, "train/gradient_norm": 50.0, **spent})
        recorder.rollout_table(2, [make_row(i, float(i)) for i in range(3)])
        state = recorder.state()
    settings.algorithm.gamma = 0.5
    settings.tracking.log_text = True
    settings.tracking.table_every = 2
    with pytest.raises(RewardError), recorder_of(tmp_path, settings, state, resume_update=1) as recorder:
        assert recorder.state() == state
        for update in range(2, 8):
            recorder.record(
                update, {"kl/k1": 0.75, "evaluation/safety": update / 10, "evaluation/safety/rate/timeout": 0.0}
            )
            recorder.rollout_table(update, [make_row(update)])
        raise RewardError("the reward fell silent")

    (first_name, first), (second_name, second) = read(tmp_path)
    assert first_name == second_name == f"run-{state['tracker_id']}.wandb"

    rows = history(first)
    assert rows[0].items() >= {("train/update", 1), ("kl/k1", 0.25), ("reward/score/skywork/full", 3.0)}
    assert rows[1].items() >= {("train/update", 2), ("kl/k1", 0.5)}
    assert rows[2]["train/update"] == 2 and any(key.startswith("rollouts") for key in rows[2])
    assert history(second)[0].items() >= {("train/update", 2), ("kl/k1", 0.75)}

    metrics = {(m.glob_name or m.name): m.step_metric for m in of_kind(first, "metric")}
    assert metrics["kl/*"] == metrics["rollouts"] == "train/update"

    # The few that matter stand in a section of their own, which is the first by name; constants have no chart.
    assert history(second)[0].items() >= {("a_overview/kl_k1", 0.75), ("a_overview/evaluation_safety", 0.2)}
    assert "a_overview/evaluation_safety_rate_timeout" not in history(second)[0]
    assert min(GROUPS) > "a_overview"
    defined = {one.name: one for one in of_kind(second, "metric") if one.name}
    assert defined["evaluation/safety/rate/timeout"].options.hidden and not defined["evaluation/safety"].options.hidden
    assert (defined["evaluation/safety"].summary.max, defined["evaluation/safety"].summary.min) == (True, True)

    (alert,) = of_kind(first, "alert")
    (end,) = of_kind(second, "alert")
    assert (end.title, end.text, end.level) == ("a name failed", "update 7: the reward fell silent", "ERROR")
    assert "train/gradient_norm" in alert.title and "healthy 0 to 10" in alert.text
    assert [record.exit_code for record in of_kind(first, "exit")] == [0]
    assert [record.exit_code for record in of_kind(second, "exit")] == [1]

    run = of_kind(first, "run")[0]
    assert (run.project, run.display_name, list(run.tags)) == ("lrm_safety", "a name", ["first"])
    assert (run.job_type, run.run_group, run.notes) == ("train", "a group", "why")
    assert uploaded_config(first)["algorithm"]["gamma"] == 1.0
    assert uploaded_config(second)["algorithm"]["gamma"] == 0.5

    first_folder, second_folder = sorted(
        (path.parent for path in tmp_path.glob("wandb/offline-run-*/*.wandb")),
        key=lambda folder: (folder / first_name).stat().st_mtime_ns,
    )
    table = json.loads(next(first_folder.glob("files/media/table/*.json")).read_text())
    assert "response_hash" in table["columns"] and len(table["data"]) == 3
    assert list(first_folder.glob("files/media/images/a_overview/phases_*.png"))
    # One growing table: of iterations 1, 3, 5 (every second) and 6 (the last), six of them.
    tables = [json.loads(path.read_text()) for path in second_folder.glob("files/media/table/*.json")]
    table = max(tables, key=lambda one: len(one["data"]))
    assert len(tables) == 4 and [row[0] for row in table["data"]] == [2, 4, 6, 7]
    assert table["columns"][:5] == ["update", "prompt", "trace", "answer", "status"]
    assert not any("hash" in column for column in table["columns"]) and table["data"][0][2] == "SECRET-TRACE"
    assert holds_secret(second_folder)
    assert not holds_secret(first_folder), "text must not leave unless tracking.log_text says so"


@pytest.mark.usefixtures("clean_environment")
def test_findings_are_alerts_of_an_offline_run(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.tracking.wandb = "offline"
    settings.tracking.diagnosis_min_records = 3
    with caplog.at_level(logging.WARNING), recorder_of(tmp_path, settings) as recorder:
        for update, kl in enumerate([0.5, 0.5, 0.5, 0.9, 0.9, 5.0, 5.0, 5.0], start=1):
            recorder.record(update, {"train/loss": 0.0, "kl/k3": kl})
    assert not [record for record in caplog.records if record.name.startswith("lrm_safety")]
    ((_, records),) = read(tmp_path)
    alerts = [alert for alert in of_kind(records, "alert") if alert.title.startswith("kl_blow_up")]
    assert [(alert.title, alert.level) for alert in alerts] == [
        ("kl_blow_up: kl/k3", "WARN"),
        ("kl_blow_up: kl/k3", "ERROR"),
    ]
    assert "remedy: Raise algorithm.kl.coef" in alerts[0].text and "kl/k3 = 0.5" in alerts[0].text
    assert all(alert.wait_duration < 60_000 for alert in alerts), "the second would be swallowed within the minute"


def uploaded_config(records: list[Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for part in [run.config for run in of_kind(records, "run")] + of_kind(records, "config"):
        config |= {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in part.update}
    return config


def holds_secret(folder: Path) -> bool:
    return any(b"SECRET" in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("clean_environment")
def test_online_without_an_account_goes_on_offline_with_one_warning(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.tracking.wandb = "online"
    with caplog.at_level(logging.WARNING), recorder_of(tmp_path, settings) as recorder:
        recorder.record(1, {"kl/k1": 0.25})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("lrm_safety")]
    assert len(ours) == 1 and "goes on offline" in ours[0]
    ((_, records),) = read(tmp_path)
    assert history(records)[0]["kl/k1"] == 0.25


UNREACHABLE = """
import logging, sys
from pathlib import Path
from lrm_safety.monitoring.wandb_view import WandbView
from lrm_safety.settings import DataSettings, ModelSettings, RewardSettings, Settings
logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")
settings = Settings(model=ModelSettings("m", "p", None, "plain"), reward=RewardSettings(), data=DataSettings("d"))
settings.tracking.wandb = "online"
view = WandbView(Path(sys.argv[1]), settings.tracking, "a", "train", {}, "the-id", init_timeout_seconds=2.0)
view.record(3, {"kl/k1": 0.25})
view.close(0)
"""


def test_an_unreachable_server_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> None:
    # A process of its own: wandb reads the server's address once per process.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    command = [sys.executable, "-c", UNREACHABLE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("goes on offline") == 1 and "failed to" not in done.stdout
    name, records = read(tmp_path)[-1]
    assert name == "run-the-id.wandb"
    assert history(records)[0].items() >= {("kl/k1", 0.25), ("train/update", 3)}


@pytest.mark.usefixtures("clean_environment")
def test_a_tracker_that_breaks_later_does_not_stop_the_run(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    from lrm_safety.monitoring.wandb_view import WandbView

    settings.tracking.wandb = "offline"
    view = WandbView(tmp_path, settings.tracking, "a", "train", {})
    assert view._run is not None
    view._run.finish()
    with caplog.at_level(logging.WARNING):
        view.record(1, {"kl/k1": 0.5})
        view.record(2, {"kl/k1": 0.5})
        view.close(0)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("lrm_safety")]
    assert len(ours) == 1 and ours[0].startswith("W&B failed to log")


STOPPED = """
import logging, signal, sys, time
from pathlib import Path

import psutil

from lrm_safety.monitoring.wandb_view import WandbView
from lrm_safety.settings.system import TrackerSettings

logging.basicConfig(level=logging.WARNING, format="%(message)s")
view = WandbView(Path(sys.argv[1]), TrackerSettings(wandb="offline"), "a", "train", {})
service = psutil.Process().children(recursive=True)
assert service
for process in service:
    process.send_signal(signal.SIGTERM)
psutil.wait_procs(service, timeout=60)
deadline = time.monotonic() + 20
while view._run is not None and time.monotonic() < deadline:  # its client takes a moment to notice
    view.record(1, {"kl/k1": 0.5})
    time.sleep(0.1)
view.close(143)
"""


@pytest.mark.usefixtures("clean_environment")
def test_a_tracker_that_was_stopped_with_the_job_is_one_line_and_no_failure(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    apart = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # W&B's process of this test
    done = subprocess.run(command, env=apart, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert done.stdout + done.stderr == (
        "W&B's own process has ended, as it does where a job is stopped: its file of this run ends here, metrics.jsonl has every "
        "record\n"
    )


def test_disabled_does_not_even_import_wandb(tmp_path: Path) -> None:
    code = (
        "import sys; from lrm_safety.monitoring.recorder import Recorder; from lrm_safety.settings import *\n"
        "tracking = TrackingSettings(wandb='disabled')\n"
        f"r = Recorder({str(tmp_path)!r}, 'name', tracking, ScheduleSettings(), {{}}); r.record(1, {{'kl/k1': 0.5}}); r.close()\n"
        "assert 'wandb' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_phases_lie_on_one_another() -> None:
    from lrm_safety.monitoring.wandb_view import stacked_phases

    lines = [
        {"update": 0, "evaluation/safety": 0.5},
        {"update": 2, "time/iteration_seconds": 4.0, "time/generate_seconds": 1.0, "time/update_seconds": 2.0},
        {"update": 4, "time/iteration_seconds": 9.0, "time/generate_seconds": 3.0, "time/controller_seconds": 1.0},
    ]
    figure = stacked_phases(lines)
    assert figure is not None
    (axes,) = figure.axes
    tops = [[float(area.get_paths()[0].vertices[:, 1].max()), area.get_label()] for area in axes.collections]
    # Of each phase the highest upper edge: of the update 1 + 2 at update 2 and 3 + 0 at 4, of the controller 3 + 0 + 1.
    assert tops == [[3.0, "generate"], [3.0, "update"], [4.0, "controller"]]
    assert axes.get_xlim() == (2, 4)
    assert stacked_phases(lines[:2]) is None, "one record makes no curve"
    assert stacked_phases([{"update": update, "sft/loss": 1.0} for update in range(3)]) is None
