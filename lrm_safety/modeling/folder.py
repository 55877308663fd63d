"""One model folder, one reader: which files are the model, are they whole, and what do they hold? No tensor is loaded.

Trainer, engines, reward models, judges, fingerprints and the planner all take the files that `weight_files` names. Their
libraries choose differently: transformers reads `model.safetensors` before an index and applies an adapter that lies beside
it, vLLM reads every `*.safetensors` that no index excludes. A folder in which that makes a difference is refused.

Runs before any actor starts, so that a mistyped path or a torn download costs a second and not a cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, ModelError, first_line
from ..files import digest_of, read_json, write_atomically
from ..settings.paths import MENDS, cache_directory, configuration_directory

INDEX, SINGLE, ADAPTER = "model.safetensors.index.json", "model.safetensors", "adapter_config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_TOKENIZER_PATTERNS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")
HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embeddings)\.weight$")
_DIGEST_CHUNK_BYTES = 2**24
_CACHED_FROM_BYTES = 2**26
_RACE_SECONDS = 2.0
_GLANCE_BYTES = 2**16


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies, from the header of its file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Position of its first byte in the file."""
    num_bytes: int


def is_hub_id(path: str) -> bool:
    """Whether `path` reads as `organisation/name` or `name` on the hub and no such folder exists here."""
    return not os.path.exists(path) and not path.startswith((".", "~")) and _HUB_ID.fullmatch(path) is not None


def ahead(path: str, name: str = "NAME") -> str:
    """What to say besides of a model of the hub that could not be read, which may have been meant as a folder: how it gets to
    where the hub is out of reach. `name` is what model=NAME or reward=NAME calls it; nothing of a folder."""
    if not is_hub_id(path):
        return ""
    conf = configuration_directory()
    files = [file for group in ("model", "reward") if (file := conf / group / f"{name}.yaml").is_file()]
    fetches = any(path in file.read_text(encoding="utf-8") for file in files)  # not where model.path was given besides
    fetch = f"`lrm-safety fetch {name}` or " * fetches
    return (
        f"; there is no folder {os.path.abspath(path)}, and where the hub is in reach, {fetch}`hf download {path}` brings a model "
        "of this id into HF_HOME"
    )


def check_model_folder(path: str, *, needs_tokenizer: bool = True) -> None:
    """Check config, weights and tokenizer files of a local model folder; a hub id passes unchecked.

    Reads the JSON files and the headers of the safetensors files, and compares file sizes with what the headers
    promise. No tensor is read.

    Raises:
        ModelError: the folder or a file of it is absent, torn, of a format that is not accepted, or mixed: files that some
            readers take and others do not.
    """
    if is_hub_id(path):
        return
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"model folder {path} does not exist; {MENDS['model']}")
    config = read_config(folder)
    files = weight_files(folder)
    stated = config.get("transformers_weights")
    if stated is not None and stated not in (INDEX, *(file.name for file in files)):
        raise ModelError(
            f"{folder}/config.json names {stated} as transformers_weights, which other readers do not take"
        )
    tensors(folder)
    if needs_tokenizer and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer files (such as tokenizer.json): copy the model's tokenizer there")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder. Raises ModelError, with what to give instead for a folder of a run or one of its checkpoints."""
    if not (folder / "config.json").is_file():
        if (folder / "manifest.json").is_file():
            raise ModelError(
                f"{folder} is a checkpoint of a run, no model folder: write its model with `lrm-safety export {folder}` and "
                "give that folder"
            )
        if (folder / "checkpoints").is_dir():
            exported = f"give {folder}/export" if (folder / "export").is_dir() else f"run `lrm-safety export {folder}`"
            raise ModelError(f"{folder} is the folder of a run, no model folder: {exported}")
        if (folder / ADAPTER).is_file():
            raise ModelError(
                f"{folder} holds an adapter (LoRA) alone: merge it into its base model and give that folder"
            )
    return read_json(folder / "config.json", ModelError, "it is not a Hugging Face model folder")


def weight_files(folder: Path) -> list[Path]:
    """The files that are the model, which every reader takes.

    Those that the index names, or `model.safetensors`. Raises ModelError for a folder without them, and for one where
    readers would differ.
    """
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{folder} holds {ADAPTER} beside the weights: some readers would apply the adapter and others not; merge it, or "
            "move it elsewhere"
        )
    index, single = folder / INDEX, folder / SINGLE
    present = sorted(file.name for file in folder.glob("*.safetensors"))
    if index.is_file():
        named = _shards(index)
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing or not named:
            raise ModelError(f"{folder} lacks {len(missing)} weight file(s) named in its index, first: {missing[:1]}")
        if single.is_file() and named != {SINGLE}:
            raise ModelError(
                f"{folder} holds {SINGLE} beside {INDEX}, which names other files: two models in one folder; remove one of them"
            )
        # Files that the index does not name are left alone by all.
        return [folder / name for name in sorted(named)]
    if not single.is_file():
        raise ModelError(f"{folder} has no model.safetensors: convert the weights to safetensors (no pickle is read)")
    if others := [name for name in present if name != SINGLE]:
        raise ModelError(
            f"{folder} holds {', '.join(others[:3])} beside {SINGLE} and no index: engines would read them too, the trainer "
            "not; move them elsewhere"
        )
    return [single]


def tensors(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of the model by name. Raises ModelError for a torn file, for a name in two files, and where the index and
    the files disagree."""
    found: dict[str, TensorEntry] = {}
    for file in weight_files(folder):
        for name, entry in _header(file).items():
            if name in found:
                raise ModelError(
                    f"{folder}: {name} stands in {found[name].file.name} and in {file.name}; remove one of them"
                )
            found[name] = entry
    if (folder / INDEX).is_file():
        mapped: dict[str, str] = read_json(folder / INDEX, ModelError, "the weights cannot be found")["weight_map"]
        for name, file_name in mapped.items():
            if name not in found or found[name].file.name != file_name:
                raise ModelError(
                    f"{folder}: the index says that {name} stands in {file_name}, where it does not; mend the index"
                )
        if extra := sorted(found.keys() - mapped.keys()):
            raise ModelError(
                f"{folder}: the index does not name {extra[0]}, which stands in {found[extra[0]].file.name}"
            )
    return found


def check_tied_head(folder: Path) -> None:
    """For a model whose config.json ties head and embedding. Raises ModelError for a head of its own in the files: the trainer
    would read it, the engines not. An equal copy is fine."""
    found = tensors(folder)
    heads = [name for name in found if name.endswith(HEADS)]
    embeddings = [name for name in found if _EMBEDDINGS.search(name)]
    for head in heads:
        for embedding in embeddings:
            one, other = found[head], found[embedding]
            if one.shape == other.shape and (one.dtype != other.dtype or _range_digest(one) != _range_digest(other)):
                raise ModelError(
                    f"{folder}: config.json says tie_word_embeddings=true, but {one.file.name} holds a {head} that differs from "
                    f"{embedding}: set tie_word_embeddings to false, or remove the head"
                )


def model_fingerprint(path: str, revision: str | None = None, *, key: str = "model.path") -> str:
    """A hash of what the model is: for a folder its config.json and the whole content of its weight files, for a hub id the
    commit that is in the cache, or on the hub.

    The digest of a large file is kept in the cache folder, by its path, size, inode and times of change; that of one changed
    within the last two seconds is not.

    Raises ModelError, which names `key`, for a folder or hub id without a model.
    """
    folder = Path(path)
    if not folder.is_dir():
        return _hub_commit(path, revision, key)
    try:
        files = weight_files(folder)
        config = read_json(folder / "config.json", ModelError)
    except ModelError as error:
        raise ModelError(f"{key}: {error}") from error  # which names the folder
    contents = (f"{file.name}:{_file_digest(file)}" for file in files)
    return digest_of([json.dumps(config, sort_keys=True), *contents])


def tokenizer_fingerprint(path: str, revision: str | None = None, *, template: bool, key: str = "model.path") -> str:
    """A hash of the tokenizer's files, with or without the chat template; for a hub id its commit."""
    folder = Path(path)
    if not folder.is_dir():
        return _hub_commit(path, revision, key)
    parts: list[bytes] = []
    for file in _matching(folder, (*_TOKENIZER_PATTERNS, *(_TEMPLATE_FILES if template else ()))):
        content = file.read_bytes()
        if file.name == "tokenizer_config.json" and not template:
            settings = read_json(file, ModelError, "the tokenizer cannot be read")
            content = json.dumps({**settings, "chat_template": None}, sort_keys=True).encode()
        parts.append(f"{file.relative_to(folder)}:{len(content)}:".encode() + content)
    return digest_of(parts)


def model_glance(path: str, revision: str | None = None) -> dict[str, str] | None:
    """What tells copies of a model apart in a moment: by name of every file that is read, a digest of its size and its two ends.
    None where it is absent.

    Of a hub id it is the commit in the cache where the hub is not asked (HF_HUB_OFFLINE), and nothing where it is.
    """
    folder = Path(path)
    if folder.is_dir():
        patterns = ("*config.json", "*.safetensors", INDEX, *_TOKENIZER_PATTERNS, *_TEMPLATE_FILES)
        return {str(file.relative_to(folder)): _ends_digest(file) for file in _matching(folder, patterns)}
    if not is_hub_id(path):
        return None
    from huggingface_hub import constants, try_to_load_from_cache

    if not constants.HF_HUB_OFFLINE:
        return {}
    held = try_to_load_from_cache(path, "config.json", revision=revision)
    return {"commit": Path(held).parent.name} if isinstance(held, str) else None


def _ends_digest(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        begin = stream.read(_GLANCE_BYTES)
        stream.seek(max(0, size - _GLANCE_BYTES))
        return digest_of([f"{size}:", begin, stream.read(_GLANCE_BYTES)])


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _shards(index: Path) -> set[str]:
    """Names of the files that an index names."""
    mapped = read_json(index, ModelError, "the weights cannot be found").get("weight_map", {})
    names = set(mapped.values()) if isinstance(mapped, Mapping) else set()
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(
                f"{index} names {name!r}, which is no file beside it: put all weight files into the folder itself"
            )
    return names


def _header(file: Path) -> dict[str, TensorEntry]:
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
            entries = {
                name: TensorEntry(
                    file,
                    str(tensor["dtype"]),
                    tuple(int(length) for length in tensor["shape"]),
                    8 + header_bytes + tensor["data_offsets"][0],
                    tensor["data_offsets"][1] - tensor["data_offsets"][0],
                )
                for name, tensor in json.loads(stream.read(header_bytes)).items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise torn from error
    if size != max((entry.begin + entry.num_bytes for entry in entries.values()), default=8 + header_bytes):
        raise torn
    return entries


def _range_digest(entry: TensorEntry) -> str:
    return _content_digest(entry.file, entry.begin, entry.num_bytes)


def _file_digest(file: Path) -> str:
    """sha256 of sha256s of pieces of a file; that of a large file from the cache, where it can be trusted."""
    file = file.resolve()
    before = _state(file)
    num_bytes = file.stat().st_size
    if num_bytes < _CACHED_FROM_BYTES:
        return _content_digest(file, 0, num_bytes)
    name = f"{digest_of([str(file)])}.json"
    try:
        held = read_json(cache_directory() / "digests" / name)
        if held["state"] == before:
            return str(held["digest"])
    except (DataError, OSError, KeyError, RuntimeError):
        pass  # none, or one that says nothing: it is made again
    digest = _content_digest(file, 0, num_bytes)
    # A file changed a moment ago could change again within one tick of its clock.
    settled = time.time() - max(file.stat().st_mtime, file.stat().st_ctime) > _RACE_SECONDS
    if settled and _state(file) == before:
        try:
            folder = cache_directory() / "digests"
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, json.dumps({"state": before, "digest": digest}), shared=True)
        except (OSError, RuntimeError):
            pass  # a cache that cannot be written costs time and nothing else
    return digest


def _state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _content_digest(file: Path, begin: int, num_bytes: int) -> str:
    descriptor = os.open(file, os.O_RDONLY)

    def piece(start: int) -> bytes:
        return hashlib.sha256(os.pread(descriptor, min(_DIGEST_CHUNK_BYTES, begin + num_bytes - start), start)).digest()

    try:
        with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
            pieces = pool.map(piece, range(begin, begin + num_bytes, _DIGEST_CHUNK_BYTES))
            return hashlib.sha256(num_bytes.to_bytes(8, "little") + b"".join(pieces)).hexdigest()
    finally:
        os.close(descriptor)


def _hub_commit(path: str, revision: str | None, key: str) -> str:
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    try:
        resolved = cached_file(path, "config.json", revision=revision)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{key}={path}: is neither a folder nor a model that the hub gives ({first_line(error)})"
        ) from error
    commit = extract_commit_hash(resolved, None)
    return f"{path}@{commit or revision or 'main'}"
