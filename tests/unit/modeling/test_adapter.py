"""An adapter in a folder: the weights that it and its base stand for, against peft's own merge, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_adapter
from transformers import AutoConfig

from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.miniature import POLICY_FOLDER
from lrm_safety.modeling.adapter import find_adapter, merge_adapter
from lrm_safety.modeling.folder import model_fingerprint
from lrm_safety.settings import ModelSettings


def settings(path: Path = POLICY_FOLDER) -> ModelSettings:
    return ModelSettings(name="miniature", path=str(path), family="miniature", dtype="float32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    save_adapter(POLICY_FOLDER, folder, "q_proj", "down_proj")
    return folder


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(made / "adapter", tmp_path / "adapter"))


def edit(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_merged_folder_is_what_peft_merges(made: Path, tmp_path: Path) -> None:
    found = find_adapter(str(made / "adapter"), settings())
    merge_adapter(settings(), found, tmp_path / "plain")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "plain", made / "merged"))
    assert ours.keys() == theirs.keys()
    base = load_file(POLICY_FOLDER / "model.safetensors")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6)
        adapted = "q_proj" in name or "down_proj" in name
        assert torch.equal(tensor, base[name]) != adapted
    assert (tmp_path / "plain" / "tokenizer.json").is_file()
    assert model_fingerprint(str(tmp_path / "plain")) != model_fingerprint(str(POLICY_FOLDER))


def test_an_adapter_of_a_tied_head_is_refused(tmp_path: Path) -> None:
    """An engine would read the embedding in its place, and what was measured would be the base."""
    assert AutoConfig.from_pretrained(POLICY_FOLDER).tie_word_embeddings
    save_adapter(POLICY_FOLDER, tmp_path, "lm_head")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: one for name, one in load_file(weights).items() if "lora_" in name}, weights)
    with pytest.raises(ModelError, match=r"adapts the head, .*tie_word_embeddings"):
        find_adapter(str(tmp_path / "adapter"), settings())


def test_an_adapter_in_float32_is_rounded_with_its_sum_alone(made: Path, tmp_path: Path) -> None:
    base = replace(settings(), dtype="bfloat16")
    merge_adapter(base, find_adapter(str(made / "adapter"), base), tmp_path / "plain")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "plain", POLICY_FOLDER))
    adapter = load_file(made / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    down, up = (adapter[f"base_model.model.{name}.lora_{one}.weight"] for one in "AB")
    wanted = (theirs[f"{name}.weight"].bfloat16().float() + 12 / 4 * up @ down).bfloat16()
    assert torch.equal(ours[f"{name}.weight"], wanted)


def test_the_fingerprint_is_of_the_content(made: Path, adapter: Path) -> None:
    first = find_adapter(str(made / "adapter"), settings())
    assert find_adapter(str(adapter), settings()).fingerprint == first.fingerprint
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
    assert find_adapter(str(adapter), settings()).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "adapter of type IA3"),
        ({"use_dora": True}, "uses use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "uses rank_pattern"),
        ({"bias": "all"}, "uses bias=all"),
        ({"init_lora_weights": "pissa"}, "uses init_lora_weights=pissa"),
        ({"r": 8}, r"is of another model than model.path: .*lora_A.weight has the shape \[4, .*wants \[8, "),
        ({"target_modules": ["q_proj"]}, "down_proj.lora_A.weight has the shape .* where model.path wants None"),
        ({"target_modules": ["query"]}, "does not fit model.path"),
    ],
)
def test_what_cannot_be_merged_is_refused(adapter: Path, changes: dict[str, Any], message: str) -> None:
    edit(adapter, **changes)
    with pytest.raises(ModelError, match=f"model.adapter={adapter}: .*{message}") as error:
        find_adapter(str(adapter), settings())
    assert "\n" not in str(error.value)


def test_an_adapter_of_another_base_is_refused(made: Path, adapter: Path) -> None:
    edit(adapter, base_model_name_or_path=str(made / "merged"))
    with pytest.raises(ModelError, match=r"was trained on .*merged, which is another model than model\.path="):
        find_adapter(str(adapter), settings())
    edit(adapter, base_model_name_or_path="nobody/knows")
    assert find_adapter(str(adapter), settings()).path == str(adapter), "names alone say nothing of a folder"
    with pytest.raises(
        ModelError, match=r"was trained on nobody/knows, which is another model than model\.path=some/other"
    ):
        find_adapter(str(adapter), settings(Path("some/other")))


def test_folders_without_an_adapter(made: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"model\.adapter=.*policy: has no adapter_config\.json; give a folder as peft writes it"
    ):
        find_adapter(str(POLICY_FOLDER), settings(made / "merged"))
    run = tmp_path / "run"
    shutil.copytree(adapter, run / "export" / "adapter")
    with pytest.raises(ModelError, match=r"has no adapter_config\.json; give .*run/export/adapter"):
        find_adapter(str(run), settings())
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors; convert its weights"):
        find_adapter(str(adapter), settings())
    with pytest.raises(ConfigError, match="no such file or folder"):
        find_adapter(str(tmp_path / "nowhere"), settings())


def test_an_adapter_beside_the_weights_that_hold_it_already(made: Path, adapter: Path, tmp_path: Path) -> None:
    export = Path(shutil.copytree(made / "merged", tmp_path / "export"))
    shutil.copytree(adapter, export / "adapter")
    with pytest.raises(ConfigError, match=r"is merged into the weights of model\.path already"):
        find_adapter(str(export / "adapter"), settings(export))
