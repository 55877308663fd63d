"""Which checkpoint `lrm-safety export` takes and where it goes; what the model card says. Weights: tests/integration."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

import lrm_safety
from lrm_safety.checkpoints import CheckpointStore
from lrm_safety.commands import export as command
from lrm_safety.commands.export import default_target, export, find, model_card
from lrm_safety.errors import ConfigError, DataError, LrmSafetyError, ModelError
from lrm_safety.preparation import model_content, with_paths
from lrm_safety.settings.compose import compose_settings

ASSETS = Path(lrm_safety.__file__).parent / "miniature/assets"
METRIC = "evaluation/safety"


def config(*overrides: str) -> dict[str, Any]:
    settings = compose_settings(["experiment=miniature", f"checkpoint.best_metric={METRIC}", *overrides])[0]
    return asdict(settings) | {"content": model_content(with_paths(settings).model)}


def begin(store: CheckpointStore, update: int) -> Path:
    """With what tells how many trainer ranks wrote it: two, whatever the configuration says."""
    folder = store.begin(update)
    for rank in range(2):
        (folder / f"generators_rank{rank:05d}.pt").touch()
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Checkpoints of updates 2, 4 and 6; the second is the best. Their trainer state is absent."""
    folder = tmp_path / "seed=1"
    store = CheckpointStore(folder / "checkpoints", keep_last=3, best_metric=METRIC)
    for update, metric in ((2, 0.5), (4, 0.9), (6, 0.7)):
        state = {"last_evaluation": {"update": float(update), METRIC: metric}}
        store.commit(
            begin(store, update),
            update,
            state=state,
            config=config(f"run.name=mine{update}"),
            data_fingerprint="x",
            metric=metric,
        )
    return folder


def test_what_is_exported_and_where(run: Path) -> None:
    newest, named = run / "checkpoints/update-000006", run / "checkpoints/update-000002"
    for place, which, update, target in (
        (run, "last", 6, run / "export"),
        (run / "checkpoints", "last", 6, run / "export"),
        (run, "best", 4, run / "export-update-000004"),
        (named, "last", 2, run / "export-update-000002"),
        (newest, "last", 6, run / "export-update-000006"),
    ):
        found = find(place, which)
        assert (found.update, default_target(place, found, which)) == (update, target)
    (run / "export").mkdir()
    assert default_target(run, find(run), "last") == run / "export-update-000006", "what is there is not written over"


def test_a_checkpoint_given_by_its_path_is_read_before_it_is_believed(run: Path) -> None:
    state = run / "checkpoints/update-000002/state.json"
    state.write_text(state.read_text().replace("0.5", "0.6"))
    with pytest.raises(ModelError, match=r"the content of state\.json is not what was written"):
        find(state.parent)


def test_what_cannot_be_exported_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    cases: dict[str, tuple[list[str], type[LrmSafetyError]]] = {
        "give one folder": ([], ConfigError),
        "knows a folder of a run": ([str(run), "where=here"], ConfigError),
        "must be last or best": ([str(run), "which=first"], ConfigError),
        "is no folder of a run and no checkpoint": ([str(tmp_path)], ConfigError),
        "full exists; give another folder": ([str(run), f"to={tmp_path}/full"], ConfigError),
        "file exists; give another folder": ([str(run), f"to={tmp_path}/full/file"], ConfigError),
        "file/below: cannot be written .*; give another folder as to=FOLDER": (
            [str(run), f"to={tmp_path}/full/file/below"],
            ConfigError,
        ),
        "holds the state of 0 trainer ranks instead of 2": ([str(run), f"to={tmp_path}/new"], DataError),
        "model=.*no such file or folder": ([str(run), "model=/nowhere/at/all"], ConfigError),
    }
    for message, (arguments, kind) in cases.items():
        with pytest.raises(kind, match=message) as refused:
            export(arguments)
        assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "seed=1"], "nothing half-written is left"
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(ModelError, match="holds no whole checkpoint"):
        export([str(run)])


def test_adapters_need_the_weights_that_they_were_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ASSETS / "policy", tmp_path / "model")
    options = (f"model.path={tmp_path}/model", "trainer=zero3_lora", "cluster.policy.num_workers=3")
    store = CheckpointStore(tmp_path / "run/checkpoints")
    store.commit(begin(store, 2), 2, state={}, config=config(*options), data_fingerprint="x")
    written: list[Any] = []
    monkeypatch.setattr(
        "lrm_safety.modeling.export.export_checkpoint", lambda *given: (written.append(given), given[-1].mkdir())
    )
    assert export([str(tmp_path / "run"), f"to={tmp_path}/whole"]) == 0
    ((model, lora, _, state, ranks, _),) = written
    assert model.path == f"{tmp_path}/model" and lora.rank > 0 and state.name == "zero3" and ranks == 2
    assert (tmp_path / "whole/README.md").is_file()
    file = tmp_path / "model/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights of model\.path differs .*adapters"):
        command.write(find(tmp_path / "run"), tmp_path / "other")


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    base = Path(shutil.copytree(ASSETS / "policy", tmp_path / "base"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Base\n")
    card = model_card(config(f"model.path={base}", "run.name=mine", "seed=7"), 120, {"update": 100.0, METRIC: 0.9375})
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
    }
    for part in (
        "# mine\n",
        f"`{base}`",
        "120 updates, seed 7",
        "apache-2.0",
        "| `evaluation/safety` | 0.9375 |",
        "after update 100",
    ):
        assert part in text
    hub = model_card(config("trainer=zero3_lora") | {"model": {**config()["model"], "path": "Qwen/Qwen3-4B"}}, 5, {})
    assert yaml.safe_load(hub.split("---\n")[1])["base_model"] == "Qwen/Qwen3-4B"
    assert "not stated by the base model" in hub and "did not evaluate" in hub and "LoRA of rank" in hub
