"""A checkpoint's parts put together: files of two ranks, cut by hand as ZeRO-3 cuts them, give the weights they were cut from.

That the trainer's own files give its own export, byte for byte: tests/integration/test_policy_worker.py.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lrm_safety.errors import DataError
from lrm_safety.miniature import POLICY_FOLDER
from lrm_safety.modeling.export import export_checkpoint
from lrm_safety.settings import LoraSettings, ModelSettings

RANKS = 2


def write_state(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """ZeRO-3's files of float32 weights: each is flattened, padded to a multiple of the ranks, and cut into equal parts."""
    folder.mkdir(parents=True)
    shapes = {f"model.{name}": weight.shape for name, weight in weights.items()}
    for rank in range(RANKS):
        parts = []
        for weight in weights.values():
            length = math.ceil(weight.numel() / RANKS)
            padded = torch.nn.functional.pad(weight.float().flatten(), (0, length * RANKS - weight.numel()))
            parts.append(padded[rank * length : (rank + 1) * length])
        prefix = folder / f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save(
            {"buffer_names": [], "module": {}, "param_shapes": [shapes], "shared_params": {}, "ds_version": "any"},
            f"{prefix}_model_states.pt",
        )
        optimizer = {"zero_stage": 3, "partition_count": RANKS, "fp32_flat_groups": [torch.cat(parts)]}
        torch.save({"optimizer_state_dict": optimizer}, f"{prefix}_optim_states.pt")


def settings(dtype: str) -> ModelSettings:
    return ModelSettings(name="tiny", path=str(POLICY_FOLDER), family="miniature", dtype=dtype)


def changed() -> dict[str, torch.Tensor]:
    """Other weights than the model's own; an odd number of values in one, so that a part is padded."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: weight + torch.randn(weight.shape, generator=generator)
        for name, weight in load_file(POLICY_FOLDER / "model.safetensors").items()
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parts_of_all_ranks_make_the_weights(tmp_path: Path, dtype: str) -> None:
    weights = changed()
    write_state(tmp_path / "update/zero3", weights)
    export_checkpoint(settings(dtype), LoraSettings(), 0, tmp_path / "update/zero3", RANKS, tmp_path / "export")
    found = load_file(tmp_path / "export/model.safetensors")
    assert found.keys() == weights.keys()
    for name, weight in found.items():
        assert weight.dtype == getattr(torch, dtype) and torch.equal(weight, weights[name].to(weight.dtype)), name
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "export" / name).is_file()


def test_state_that_is_not_the_models_is_one_line(tmp_path: Path) -> None:
    weights = changed()
    state = tmp_path / "update/zero3"

    def refused(message: str, num_ranks: int = RANKS) -> None:
        with pytest.raises(DataError, match=message) as error:
            export_checkpoint(settings("float32"), LoraSettings(), 0, state, num_ranks, tmp_path / "export")
        assert "\n" not in str(error.value) and not (tmp_path / "export").exists()

    write_state(state, weights)
    refused("holds the state of 2 trainer ranks instead of 3", 3)
    file = state / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    file.write_bytes(file.read_bytes()[:1000])
    refused("cannot be read")
    shutil.rmtree(state)
    write_state(state, {name: weight for name, weight in weights.items() if "norm" not in name})
    refused("lacks model.*norm.*another model")
    shutil.rmtree(state)
    write_state(state, weights | {"model.norm.weight": torch.ones(7)})
    refused(r"holds model\.norm\.weight with the shape \[7\]")
