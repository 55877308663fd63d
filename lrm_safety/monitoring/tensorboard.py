"""TensorBoard as a view of metrics.jsonl: event files, written without TensorBoard, which only a reader needs.

An event file is a series of records, each of its length (uint64), the length's checksum, the bytes and their checksum; the
bytes are an `Event` of tensorboard/compat/proto/event.proto in protobuf's wire format. Checksums are CRC-32C, masked as
TFRecord wants it (tensorflow/core/lib/hash/crc32c.h).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

FOLDER = "tensorboard"
"""Below the run's folder."""
_NO_METRICS = ("update", "iteration", "time", "nonfinite")


class TensorBoardView:
    """RUN/tensorboard with one event file, which holds `lines` and whatever is recorded later."""

    def __init__(self, run_dir: Path, lines: Iterable[Mapping[str, Any]]) -> None:
        self._folder = run_dir / FOLDER
        self._file: BinaryIO | None = None
        self.rewrite(lines)

    def rewrite(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Begin anew with `lines`: updates that a restart does again must not stand twice."""
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        # A name of its own each time: a TensorBoard that reads the old file does not mistake the new one for its end.
        self._file = (self._folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("wb")
        self._file.write(_record(_double(1, time.time()) + _bytes(3, b"brain.Event:2")))
        for line in lines:
            self._write(line)
        self._file.flush()

    def record(self, line: Mapping[str, Any]) -> None:
        """Append one line of metrics.jsonl; a number that is not finite shows as NaN."""
        self._write(line)
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file; more than once is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None, "the file is closed"
        lost = line.get("nonfinite", ())
        values = {
            name: float("nan") if name in lost else value for name, value in line.items() if name not in _NO_METRICS
        }
        scalars = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, value))
            for name, value in values.items()
            if isinstance(value, int | float)
        )
        event = _double(1, float(line.get("time", 0.0))) + _varint(2, int(line["update"])) + _bytes(5, scalars)
        self._file.write(_record(event))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _double(field: int, value: float) -> bytes:
    return _number(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(value)) + value


def _float(field: int, value: float) -> bytes:
    # Beyond the range of float32, which simple_value has, struct would raise.
    bounded = value if abs(value) < 3.4e38 or value != value else float("inf") * (1 if value > 0 else -1)
    return _number(field << 3 | 5) + struct.pack("<f", bounded)


def _number(value: int) -> bytes:
    """A varint of a number that is not negative."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, reflected
        table.append(byte)
    return tuple(table)


_CRC = _table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C of `data`, rotated and offset, so that a checksum of data that hold checksums is sound."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
