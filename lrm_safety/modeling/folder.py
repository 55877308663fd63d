"""Look at a model folder without loading it: is it there, is it whole, is it a format we accept?

Runs before any actor starts, so that a mistyped path or a torn download costs a second and not a cluster.
"""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

from ..errors import ModelError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def is_hub_id(path: str) -> bool:
    """Whether `path` reads as `organisation/name` or `name` on the hub and no such folder exists here."""
    return not os.path.exists(path) and not path.startswith((".", "~")) and _HUB_ID.fullmatch(path) is not None


def check_model_folder(path: str, *, needs_tokenizer: bool = True) -> None:
    """Check config, weights and tokenizer files of a local model folder; a hub id passes unchecked.

    Reads the JSON files and the headers of the safetensors files, and compares file sizes with what the headers
    promise. No tensor is read.

    Raises:
        ModelError: the folder or a file of it is absent, torn, or of a format that is not accepted.
    """
    if is_hub_id(path):
        return
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"model folder {path} does not exist: check the model's path")
    _read_json(folder / "config.json", "it is not a Hugging Face model folder")
    for weights in _weight_files(folder):
        _check_safetensors(weights)
    if needs_tokenizer and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer files (such as tokenizer.json): copy the model's tokenizer there")


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(_read_json(index, "the weights cannot be found").get("weight_map", {}).values())
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing or not names:
            raise ModelError(f"{folder} lacks {len(missing)} weight file(s) named in its index, first: {missing[:1]}")
        return [folder / name for name in sorted(names)]
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ModelError(f"{folder} has no model.safetensors: convert the weights to safetensors (no pickle is read)")
    return [single]


def _check_safetensors(file: Path) -> None:
    """Format: 8 bytes little-endian header size, JSON header with byte offsets, data (safetensors README)."""
    size = file.stat().st_size
    torn = ModelError(f"{file} is torn or not safetensors ({size} bytes): download or copy it again")
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise torn
        (header_bytes,) = struct.unpack("<Q", prefix)
        if header_bytes > size - 8:
            raise torn
        try:
            header = json.loads(stream.read(header_bytes))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise torn from error
    if size != 8 + header_bytes + max(ends, default=0):
        raise torn


def _read_json(file: Path, consequence: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file} is absent: {consequence}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}): {consequence}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a JSON object: {consequence}")
    return content
