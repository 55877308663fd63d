"""One reader of a model folder: which files are the model, and a fingerprint of what they hold."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lrm_safety.errors import ModelError
from lrm_safety.miniature import POLICY_FOLDER
from lrm_safety.modeling import folder as folder_module
from lrm_safety.modeling.configuration import check_causal_lm
from lrm_safety.modeling.folder import check_model_folder, model_fingerprint, tensors, weight_files
from lrm_safety.settings import ModelSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICY_FOLDER, tmp_path / "model"))


def shard(folder: Path) -> None:
    """Split model.safetensors into two files and an index."""
    values = load_file(folder / "model.safetensors")
    names = sorted(values)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: values[name] for name in part}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in files.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def edit_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


def two_models(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "keep")
    shard(folder)
    (folder / "keep").rename(folder / "model.safetensors")


def beside(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder / "model.safetensors", folder / name)


def twice(folder: Path) -> None:
    shard(folder)
    first, second = sorted(folder.glob("model-*.safetensors"))
    one, other = load_file(first), load_file(second)
    save_file(other | dict([next(iter(one.items()))]), second, metadata={"format": "pt"})


def unnamed(folder: Path) -> None:
    shard(folder)
    edit_index(folder, lambda mapped: mapped.pop("model.norm.weight"))


def misplaced(folder: Path) -> None:
    shard(folder)
    files = sorted(file.name for file in folder.glob("model-*.safetensors"))
    edit_index(
        folder, lambda mapped: mapped.update({"model.norm.weight": files[mapped["model.norm.weight"] == files[0]]})
    )


def outside(folder: Path) -> None:
    shard(folder)
    edit_index(folder, lambda mapped: mapped.update({"model.norm.weight": "../other.safetensors"}))


MIXED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a whole model beside shards": (two_models, "two models in one folder"),
    "another precision": (beside("model.fp16.safetensors"), r"model\.fp16\.safetensors beside model\.safetensors"),
    "Mistral's own file": (beside("consolidated.safetensors"), "consolidated.safetensors beside"),
    "an adapter's weights": (beside("adapter_model.safetensors"), "adapter_model.safetensors beside"),
    "shards without an index": (beside("model-00001-of-00002.safetensors"), "and no index"),
    "an adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "apply the adapter"),
    "a tensor in two shards": (twice, "stands in model-00001"),
    "a tensor that the index does not name": (unnamed, "does not name model.norm.weight"),
    "a tensor in another shard": (misplaced, "the index says that model.norm.weight"),
    "a shard elsewhere": (outside, "no file beside it"),
    "another file in the configuration": (
        lambda folder: (folder / "config.json").write_text(
            json.dumps(
                {**json.loads((folder / "config.json").read_text()), "transformers_weights": "other.safetensors"}
            )
        ),
        "transformers_weights",
    ),
}


@pytest.mark.parametrize("kind", MIXED)
def test_a_folder_that_readers_would_read_differently_is_refused(kind: str, model: Path) -> None:
    mix, message = MIXED[kind]
    check_model_folder(str(model))
    mix(model)
    with pytest.raises(ModelError, match=message) as refused:
        check_model_folder(str(model))
    assert str(model) in str(refused.value) and "\n" not in str(refused.value)


def test_files_that_no_reader_takes_do_no_harm(model: Path) -> None:
    """Pickles are read by none; beside an index neither are files that it does not name; nor are folders."""
    whole = tensors(model)
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    (model / "adapter").mkdir()
    shutil.copy(model / "model.safetensors", model / "adapter/adapter_model.safetensors")
    check_model_folder(str(model))
    assert [file.name for file in weight_files(model)] == ["model.safetensors"]
    shard(model)
    shutil.copy(POLICY_FOLDER / "model.safetensors", model / "consolidated.safetensors")
    check_model_folder(str(model))
    assert [file.name[:11] for file in weight_files(model)] == ["model-00001", "model-00002"]
    assert {name: entry.shape for name, entry in tensors(model).items()} == {
        name: entry.shape for name, entry in whole.items()
    }


def test_vllm_takes_the_same_files(model: Path) -> None:
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    shard(model)
    shutil.copy(POLICY_FOLDER / "model.safetensors", model / "consolidated.safetensors")
    loader = DefaultModelLoader(LoadConfig(load_format="safetensors"))
    _, files, _, _ = loader._prepare_weights(str(model), None, None, False, None)
    assert sorted(files) == [str(file) for file in weight_files(model)]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (["manifest.json"], r"is a checkpoint of a run.*`lrm-safety export .*/given`"),
        (["checkpoints/x"], r"is the folder of a run.*`lrm-safety export .*/given`"),
        (["checkpoints/x", "export/x"], r"is the folder of a run.*give .*/given/export"),
        (["adapter_config.json"], "holds an adapter"),
        (["README.md"], r"config\.json: is absent"),
    ],
)
def test_a_folder_that_is_something_else_is_told(made: list[str], message: str, tmp_path: Path) -> None:
    for name in made:
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "given" / name).write_text("{}")
    with pytest.raises(ModelError, match=message):
        check_model_folder(str(tmp_path / "given"))


def test_the_fingerprint_reads_every_byte(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_DIGEST_CHUNK_BYTES", 1000)  # several pieces
    before = model_fingerprint(str(model))
    assert model_fingerprint(str(model)) == before
    file = model / "model.safetensors"
    content = bytearray(file.read_bytes())
    for place in (len(content) - 1, len(content) // 2, len(content) // 3):
        content[place] ^= 1
        file.write_bytes(content)
        assert model_fingerprint(str(model)) != before
        content[place] ^= 1
    file.write_bytes(content)
    assert model_fingerprint(str(model)) == before


def test_a_kept_digest_is_believed_only_for_the_file_it_is_of(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_CACHED_FROM_BYTES", 0)
    monkeypatch.setenv("LRM_SAFETY_CACHE", str(tmp_path / "cache"))
    file = model / "model.safetensors"
    before = model_fingerprint(str(model))
    assert not (tmp_path / "cache").exists(), "the file was written a moment ago"
    monkeypatch.setattr(folder_module, "_RACE_SECONDS", -1.0)
    assert model_fingerprint(str(model)) == before
    (entry,) = (tmp_path / "cache/digests").iterdir()
    held = json.loads(entry.read_text())
    entry.write_text(json.dumps(held | {"digest": "what is kept"}))
    assert model_fingerprint(str(model)) != before, "the kept one is used while the file stands as it was"
    status = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp --preserve` leaves it
    other = model_fingerprint(str(model))
    monkeypatch.setenv("LRM_SAFETY_CACHE", "/proc/nothing")  # a cache that cannot be written costs time only
    assert model_fingerprint(str(model)) == other != before


def settings_of(folder: Path) -> ModelSettings:
    return ModelSettings(name="tiny", path=str(folder), family="miniature", dtype="float32")


def test_a_head_of_its_own_under_tied_embeddings(model: Path) -> None:
    values = load_file(model / "model.safetensors")
    embedding = values["model.embed_tokens.weight"]
    save_file(values | {"lm_head.weight": embedding.clone()}, model / "model.safetensors", metadata={"format": "pt"})
    check_causal_lm(settings_of(model))  # an equal copy
    other = embedding.clone()
    other[5, 7] += 0.5
    save_file(values | {"lm_head.weight": other}, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"tie_word_embeddings=true, but model\.safetensors holds a lm_head\.weight"):
        check_causal_lm(settings_of(model))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    check_causal_lm(settings_of(model))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}},
            "cannot be used",
        ),
        ({"model_type": "t5"}, "of type t5 is no causal language model"),
        ({"model_type": "qwen3", "num_hidden_layers": "four"}, "cannot be used"),
    ],
)
def test_a_model_type_that_cannot_be_trained_is_found_before_the_start(
    config: dict[str, object], message: str, model: Path
) -> None:
    held = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(held | config))
    with pytest.raises(ModelError, match=message) as refused:
        check_causal_lm(settings_of(model))
    assert "model.path=" in str(refused.value) and "\n" not in str(refused.value)


def test_a_shape_is_read_from_the_header() -> None:
    entry = tensors(POLICY_FOLDER)["model.embed_tokens.weight"]
    assert (entry.dtype, entry.shape) == ("F32", (768, 128)) and entry.num_bytes == 768 * 128 * torch.float32.itemsize
