"""Event files, read back by protobuf's own reader of the public message types and by the checksums' published values."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from recorders import recorder_of

from lrm_safety.cli import main
from lrm_safety.monitoring.tensorboard import masked_crc32c
from lrm_safety.settings import Settings

FIELDS = descriptor_pb2.FieldDescriptorProto


def event_type() -> Any:
    """tensorboard.Event as far as scalars need it."""
    file = descriptor_pb2.FileDescriptorProto(name="event_of_the_test.proto", package="of_the_test", syntax="proto3")
    value = file.message_type.add(name="Value")
    value.field.add(name="tag", number=1, type=FIELDS.TYPE_STRING, label=1)
    value.field.add(name="simple_value", number=2, type=FIELDS.TYPE_FLOAT, label=1)
    summary = file.message_type.add(name="Summary")
    summary.field.add(name="value", number=1, type=FIELDS.TYPE_MESSAGE, type_name=".of_the_test.Value", label=3)
    event = file.message_type.add(name="Event")
    event.field.add(name="wall_time", number=1, type=FIELDS.TYPE_DOUBLE, label=1)
    event.field.add(name="step", number=2, type=FIELDS.TYPE_INT64, label=1)
    event.field.add(name="file_version", number=3, type=FIELDS.TYPE_STRING, label=1)
    event.field.add(name="summary", number=5, type=FIELDS.TYPE_MESSAGE, type_name=".of_the_test.Summary", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("of_the_test.Event"))


def events(run_dir: Path) -> list[Any]:
    (path,) = (run_dir / "tensorboard").glob("events.out.tfevents.*")
    data, found, kind = path.read_bytes(), [], event_type()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        content = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12]) == (masked_crc32c(data[:8]),)
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked_crc32c(content),)
        found.append(kind.FromString(content))
        data = data[16 + length :]
    return found


def scalars(run_dir: Path) -> list[tuple[int, str, float]]:
    return [(one.step, value.tag, value.simple_value) for one in events(run_dir) for value in one.summary.value]


# RFC 3720, B.4 and the polynomial's usual check value.
@pytest.mark.parametrize(
    ("data", "crc"), [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)]
)
def test_checksums_are_the_published_ones(data: bytes, crc: int) -> None:
    unmasked = (masked_crc32c(data) - 0xA282EAD8) & 0xFFFFFFFF
    assert (unmasked << 15 | unmasked >> 17) & 0xFFFFFFFF == crc


def test_a_run_writes_its_metrics_once_also_after_a_restart(tmp_path: Path, settings: Settings) -> None:
    settings.tracking.tensorboard = True
    with recorder_of(tmp_path, settings) as recorder:
        recorder.record(0, {"kl/k1": -0.25})
        recorder.record(300, {"kl/k1": 0.5, "reward/raw_mean": math.nan})
        recorder.rewind(0)
        recorder.record(300, {"kl/k1": 0.75})
    first, *rest = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(one.step, one.wall_time) for one in rest] == [(line["update"], line["time"]) for line in lines]
    assert [one for one in scalars(tmp_path) if one[1] == "kl/k1"] == [(0, "kl/k1", -0.25), (300, "kl/k1", 0.75)]


def test_a_finished_run_is_converted(tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        with recorder_of(tmp_path / name, settings) as recorder:
            recorder.record(1, {"kl/k1": 0.5, "reward/raw_mean": math.inf, "train/lr": 1e-6})
        assert not (tmp_path / name / "tensorboard").exists()
    assert main(["tensorboard", str(tmp_path)]) == 0
    assert "tensorboard --logdir" in capsys.readouterr().out
    found = {tag: value for _, tag, value in scalars(tmp_path / "two")}
    assert found["kl/k1"] == 0.5 and math.isnan(found["reward/raw_mean"]) and found["train/update"] == 1
    assert found["train/lr"] == pytest.approx(1e-6, rel=1e-6)
    assert main(["tensorboard", str(tmp_path / "nothing")]) == 1
    assert "no run in it" in capsys.readouterr().err
