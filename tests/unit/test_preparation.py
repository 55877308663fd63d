"""What is found out before any actor starts, with the embedded miniature and checkpoints of a store of the test's own."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from batches import ASSETS, miniature_tokenizer
from safetensors.torch import load_file, save_file

from lrm_safety.checkpoints import CheckpointStore
from lrm_safety.datasets.prompts import load_prompts
from lrm_safety.errors import ConfigError, DataError, LrmSafetyError, ModelError
from lrm_safety.preparation import find_checkpoint, prepare, resolved
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings

# The values that tests speak of are stated here: the experiment's own are free to change.
BASE = (
    "experiment=miniature",
    "data.limit=70",
    "algorithm.rollout_batch_size=64",
    "algorithm.mini_batch_size=32",
    "schedule.max_updates=120",
    "trainer.lr=3e-4",
)
TRAIN = str(ASSETS / "prompts" / "train.jsonl")


@cache
def _composed(overrides: tuple[str, ...]) -> Settings:
    return compose_settings([*BASE, *overrides])[0]


def composed(*overrides: str) -> Settings:
    return copy.deepcopy(_composed(overrides))


def test_a_fresh_run(tmp_path: Path) -> None:
    settings = composed("rollout.temperature=0.7", "rollout.max_response_tokens=33")
    run = prepare(settings, tmp_path / "run")
    assert run.checkpoint is None and run.restarts == 0 and run.directory == tmp_path / "run"
    assert not (tmp_path / "run").exists(), "preparing writes nothing"
    # The identity is what the user wrote, the settings are what loaders take.
    content = run.identity.pop("content")
    assert content and run.identity == asdict(settings) and run.identity["model"]["path"].startswith("package:")
    assert run.settings.model.path == str(ASSETS / "policy")
    assert run.settings.reward.models["miniature"].path == str(ASSETS / "reward")
    assert run.settings.data.path == TRAIN
    stop = miniature_tokenizer().convert_tokens_to_ids("<|end|>")
    sampling = run.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 1.0, 0)
    assert (sampling.max_response_tokens, sampling.stop_token_ids) == (33, (stop,))


def test_prompts_are_the_first_ones_rendered_through_the_chat_template(tmp_path: Path) -> None:
    run = prepare(composed(), tmp_path)
    assert len(run.prompts) == len(run.rendered) == 70
    first = json.loads(Path(TRAIN).read_text().splitlines()[0])
    assert run.prompts[0].question == first["question"]
    ids = run.rendered[0]
    assert ids.dtype == np.int32
    text = miniature_tokenizer().decode(ids.tolist())
    assert first["question"] in text and text.rstrip().endswith("<think>")


@pytest.mark.parametrize(("prompts", "fits"), [(64, True), (63, False)])
def test_a_rollout_batch_above_the_prompts(tmp_path: Path, prompts: int, fits: bool) -> None:
    settings = composed(f"data.limit={prompts}")
    if fits:
        assert len(prepare(settings, tmp_path).prompts) == 64
        return
    with pytest.raises(ConfigError, match=rf"algorithm\.rollout_batch_size=64: is above the 63 prompts of {TRAIN}"):
        prepare(settings, tmp_path)


def test_a_prompt_over_the_limit_is_named(tmp_path: Path) -> None:
    row = json.loads(Path(TRAIN).read_text().splitlines()[0])
    with pytest.raises(DataError, match=rf"train.jsonl,? row 1 \(id {row['id']}\): .*rollout.max_prompt_tokens=6"):
        prepare(composed("rollout.max_prompt_tokens=6"), tmp_path)


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut weights": (truncated, "model.safetensors is torn"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "no model.safetensors|lacks model.safetensors",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "no tokenizer": (
        lambda folder: [path.unlink() for path in folder.glob("tokenizer*")] and None,
        "no tokenizer",
    ),
}


@pytest.mark.parametrize("part", ["policy", "reward"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model_is_named(tmp_path: Path, part: str, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ASSETS / part, folder)
    damage, message = DAMAGE[name]
    damage(folder)
    settings = composed()
    (settings.model if part == "policy" else settings.reward.models["miniature"]).path = str(folder)
    with pytest.raises(ModelError, match=message) as refused:
        prepare(settings, tmp_path / "run")
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.path=absent", "model.path=absent"),
        ("model.family=gpt", "model.family=gpt: must be one of"),
        ("reward.models.miniature.path=absent", "reward.models.miniature.path=absent"),
        ("data.path=absent.jsonl", "data.path=absent.jsonl"),
        ("model.path=cache:no_such_model", "no_such_model"),
    ],
)
def test_what_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRM_SAFETY_CACHE", str(tmp_path / "cache"))
    with pytest.raises(LrmSafetyError) as refused:
        prepare(composed(override), tmp_path / "run")
    assert expected in str(refused.value)


def test_resolving_changes_paths_and_tolerances_of_a_copy() -> None:
    settings = composed()
    before = asdict(settings)
    after = asdict(resolved(settings))
    assert asdict(settings) == before
    for part, name in (("model", "path"), ("data", "path")):
        after[part][name] = before[part][name]
    after["reward"]["models"]["miniature"]["path"] = before["reward"]["models"]["miniature"]["path"]
    assert after.pop("run") == before.pop("run") | {"invariant_tolerance": 1e-4}
    assert after.pop("rollout") == before.pop("rollout") | {"probe_tolerance": 1e-3}
    assert after == before
    half = resolved(composed("model.dtype=bfloat16", "run.invariant_tolerance=0.2"))
    assert (half.run.invariant_tolerance, half.rollout.probe_tolerance) == (0.2, 0.4)
    assert resolved(composed("data.path=null", "data.hub_id=someone/prompts")).data.path is None


# ---- resume -----------------------------------------------------------------------------------------------------------

FINGERPRINT = load_prompts(TRAIN).fingerprint


def saved(folder: Path, settings: Settings, updates: tuple[int, ...] = (40, 80)) -> None:
    store = CheckpointStore(folder / "checkpoints", keep_last=5)
    for update in updates:
        partial = store.begin(update)
        (partial / "weights.bin").write_bytes(b"12345678")
        store.commit(partial, update, state={"update": update}, config=asdict(settings), data_fingerprint=FINGERPRINT)


def resumed(folder: Path, *overrides: str, fingerprint: str = FINGERPRINT) -> int | None:
    """The update that a run with these overrides goes on from."""
    settings = composed(*overrides)
    store = CheckpointStore(folder / "checkpoints", keep_last=5)
    checkpoint = find_checkpoint(settings, asdict(settings), fingerprint, store)
    return None if checkpoint is None else checkpoint.update


def test_prepare_finds_the_newest_checkpoint_by_itself(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    checkpoint = prepare(composed(), tmp_path).checkpoint
    assert checkpoint is not None and (checkpoint.update, checkpoint.state) == (80, {"update": 80})


def test_a_folder_without_checkpoints_begins(tmp_path: Path) -> None:
    assert resumed(tmp_path) is None
    assert resumed(tmp_path, "checkpoint.resume=never") is None


def test_a_torn_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    (tmp_path / "checkpoints" / "update-000080" / "weights.bin").write_bytes(b"1234")
    assert resumed(tmp_path) == 40


def test_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    assert [resumed(tmp_path, f"cluster.policy.num_workers={ranks}") for ranks in (1, 3)] == [80, 80]


def test_a_newest_checkpoint_with_another_content_is_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    (tmp_path / "checkpoints" / "update-000080" / "weights.bin").write_bytes(b"87654321")
    assert resumed(tmp_path) == 40
    with pytest.raises(ModelError, match=r"the content of weights\.bin is not what was written"):
        resumed(tmp_path, f"checkpoint.resume={tmp_path / 'checkpoints' / 'update-000080'}")


def test_never_refuses_a_used_folder(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    with pytest.raises(ConfigError, match=r"checkpoint.resume=never: .*update-000080 exists; choose another run.name"):
        resumed(tmp_path, "checkpoint.resume=never")


def test_a_named_checkpoint_is_taken(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    chosen = tmp_path / "checkpoints" / "update-000040"
    assert resumed(tmp_path, f"checkpoint.resume={chosen}") == 40
    assert resumed(tmp_path / "elsewhere", f"checkpoint.resume={chosen}") == 40, "of another run's folder too"
    with pytest.raises(ConfigError, match=r"checkpoint\.resume"):
        resumed(tmp_path, f"checkpoint.resume={tmp_path / 'absent'}")


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("trainer.lr=1e-5", "trainer.lr: 0.0003 -> 1e-05"),
        ("algorithm.gamma=0.9", "algorithm.gamma: 1 -> 0.9"),
        ("seed=1", "seed: 0 -> 1"),
        ("data.limit=64", "data.limit: 70 -> 64"),
        ("reward.models.miniature.weight=2", "reward.models.miniature.weight: 1 -> 2"),
        ("schedule.max_updates=200", "schedule.max_updates: 120 -> 200"),
    ],
)
def test_another_configuration_is_refused_unless_allowed(tmp_path: Path, override: str, difference: str) -> None:
    saved(tmp_path, composed())
    with pytest.raises(
        ConfigError,
        match=r"choose another run\.directory \(or run\.name\) to begin anew; checkpoint\.allow_changes=true goes on from",
    ) as refused:
        resumed(tmp_path, override)
    assert ("comparable with no run" in str(refused.value)) == (not override.startswith("schedule."))
    assert difference in str(refused.value) and "update-000080" in str(refused.value)
    assert resumed(tmp_path, override, "checkpoint.allow_changes=true") == 80


def test_adapters_that_the_model_has_no_layers_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.lora\.target_modules: fc1 is no linear layer"):
        prepare(composed("trainer=zero3_lora", "trainer.lora.target_modules=[fc1]"), tmp_path / "run")


def test_a_checkpoint_of_all_weights_is_no_checkpoint_of_adapters(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    with pytest.raises(ConfigError, match=r"trainer\.lora\.rank: 0 -> 8"):
        resumed(tmp_path, "trainer.lora.rank=8")


def test_other_data_are_refused_unless_allowed(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    with pytest.raises(ConfigError, match="data_fingerprint"):
        resumed(tmp_path, fingerprint="other")
    assert resumed(tmp_path, "checkpoint.allow_changes=true", fingerprint="other") == 80


@pytest.mark.parametrize(
    "override",
    [
        "run.name=other",
        "schedule.stop_after_updates=10",
        "evaluation.every_updates=5",
        "tracking=online",
        "checkpoint.every_updates=7",
        "cluster.call_timeout_seconds=9",
        "trainer.max_restarts=2",
    ],
)
def test_what_does_not_change_the_learning_may_change(tmp_path: Path, override: str) -> None:
    saved(tmp_path, composed())
    assert resumed(tmp_path, override) == 80


EARLIER = Path(__file__).parent / "identities_of_0_1"
"""What a manifest of version 0.1 calls `config`, of the miniature's first updates under `train` and `sft`."""


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its configuration lacks keys that came since: they stand at what was done before."""
    old = json.loads((EARLIER / "train.json").read_text())
    assert "arguments" not in old["reward"]["models"]["miniature"], "what came since"
    given = (
        "data.limit=null",
        "algorithm.rollout_batch_size=16",
        "algorithm.mini_batch_size=8",
        "schedule.max_updates=8",
    )
    given += ("rollout.max_response_tokens=64", "rollout.stream_chunk_size=8")
    store = CheckpointStore(tmp_path / "checkpoints")
    store.commit(store.begin(4), 4, state={}, config=old, data_fingerprint=FINGERPRINT)
    checkpoint = prepare(composed(*given), tmp_path).checkpoint
    assert checkpoint is not None and checkpoint.update == 4 and not caplog.records
    del old["trainer"]["lr"]
    store.commit(store.begin(4), 4, state={}, config=old, data_fingerprint=FINGERPRINT)
    with pytest.raises(ConfigError, match=r"configuration \(trainer\.lr: 1e-06 -> 0\.0003\)"):
        prepare(composed(*given), tmp_path)


def test_many_differences_are_cut_short(tmp_path: Path) -> None:
    saved(tmp_path, composed())
    changes = [f"trainer.{name}=0.5" for name in ("lr", "min_lr_ratio", "warmup_fraction", "beta1", "beta2", "epsilon")]
    changes += ["trainer.weight_decay=0.5", "trainer.gradient_clip=0.5", "algorithm.gamma=0.5", "seed=3"]
    with pytest.raises(ConfigError, match="; and 2 more"):
        resumed(tmp_path, *changes)


def _begun(folder: Path, overrides: tuple[str, ...], change: Callable[[Path], None]) -> None:
    """A run whose model, reward model and data lie in `folder`, stopped at update 2; then `change`, then its resume."""
    shutil.copytree(ASSETS / "policy", folder / "model")
    shutil.copytree(ASSETS / "reward", folder / "reward")
    shutil.copy(TRAIN, folder / "train.jsonl")
    settings = composed(
        f"model.path={folder}/model", f"data.path={folder}/train.jsonl", f"reward.models.miniature.path={folder}/reward"
    )
    run = prepare(settings, folder / "run")
    store = CheckpointStore(folder / "run/checkpoints")
    store.commit(store.begin(2), 2, state={}, config=run.identity, data_fingerprint=run.prompts.fingerprint)
    again = prepare(settings, folder / "run")
    assert again.checkpoint is not None and again.checkpoint.update == 2, "nothing has changed yet"
    change(folder)
    settings = composed(
        f"model.path={folder}/model",
        f"data.path={folder}/train.jsonl",
        f"reward.models.miniature.path={folder}/reward",
        *overrides,
    )
    again = prepare(settings, folder / "run")
    assert again.checkpoint is not None


def _other_weights(file: Path) -> None:
    values = load_file(file)
    values[min(values)] = values[min(values)] + 2.0**-8
    save_file(values, file, metadata={"format": "pt"})


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (lambda folder: _other_weights(folder / "model/model.safetensors"), "weights of model.path"),
    "configuration of the model": (
        lambda folder: _edit(folder / "model/config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'),
        "weights of model.path",
    ),
    "tokenizer": (
        lambda folder: _edit(folder / "model/tokenizer.json", '"add_prefix_space": false', '"add_prefix_space": true'),
        "tokenizer of model.path",
    ),
    "chat template": (
        lambda folder: _edit(folder / "model/chat_template.jinja", "'<|user|>'", "'<|user|>Be brief. '"),
        "prompts as rendered",
    ),
    "reward weights": (
        lambda folder: _other_weights(folder / "reward/model.safetensors"),
        "weights of reward.models.miniature.path",
    ),
    "reward template": (
        lambda folder: _edit(folder / "reward/chat_template.jinja", "'[question]'", "'[question] '"),
        "tokenizer of reward.models.miniature.path",
    ),
    "a field of the data": (
        lambda folder: _edit(folder / "train.jsonl", '"category"', '"other": 1, "category"'),
        "fields of the data",
    ),
}


@pytest.mark.parametrize("part", CHANGES)
def test_what_was_written_over_under_the_same_name_is_another_run(tmp_path: Path, part: str) -> None:
    change, named = CHANGES[part]
    with pytest.raises(
        ConfigError, match=rf"update-000002 belongs to another configuration .*content\.{named}: "
    ) as refused:
        _begun(tmp_path, (), change)
    assert "checkpoint.allow_changes=true" in str(refused.value) and "\n" not in str(refused.value)


def test_other_content_may_be_allowed(tmp_path: Path) -> None:
    _begun(tmp_path, ("checkpoint.allow_changes=true",), CHANGES["weights"][0])


MINE = """\
from dataclasses import replace
from lrm_safety.algorithm.baselines import baseline
from lrm_safety.algorithm.corrections import correction
from lrm_safety.conversation.families import get_family
from lrm_safety.rewards.kinds import reward

family = replace(get_family("miniature"), name="mine")

@baseline()
def half(scores, groups): return scores - groups.mean(scores) / 2

@baseline()
def undefined(scores, groups): return (scores - 10).log()

@correction
def capped(ratio, cap): return ratio.clamp(max=cap), ratio > cap

@correction
def alone(ratio, cap): return ratio

@reward("short")
def short(name, settings, device): return None
"""
NAMES = {
    "model.family": "family",
    "algorithm.baseline": "half",
    "algorithm.correction": "capped",
    "reward.models.mine.kind": "short",
}


@pytest.mark.parametrize("key", NAMES)
def test_the_file_of_what_is_the_users_is_part_of_a_run(
    tmp_path: Path, users_module: Callable[[str], str], key: str
) -> None:
    new = "+" if key.startswith("reward") else ""
    settings = composed("algorithm.samples_per_prompt=2", f"{new}{key}={users_module(MINE)}:{NAMES[key]}")
    run = prepare(settings, tmp_path / "run")
    store = CheckpointStore(tmp_path / "run/checkpoints")
    store.commit(store.begin(2), 2, state={}, config=run.identity, data_fingerprint=run.prompts.fingerprint)
    assert prepare(settings, tmp_path / "run").checkpoint is not None
    users_module(f"{MINE}# edited\n")
    with pytest.raises(ConfigError, match=rf"content\.file of {key}: "):
        prepare(settings, tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "name", "told"),
    [
        ("algorithm.baseline", "undefined", "returned 4 of 4 numbers that are NaN or infinite"),
        ("algorithm.correction", "alone", "returned a Tensor, and must return (weights, corrected)"),
    ],
)
def test_what_the_users_algorithm_returns_wrongly_is_told_before_any_actor_starts(
    tmp_path: Path, users_module: Callable[[str], str], key: str, name: str, told: str
) -> None:
    path = f"{users_module(MINE)}:{name}"
    with pytest.raises(ConfigError) as refused:
        prepare(composed("algorithm.samples_per_prompt=2", f"{key}={path}"), tmp_path / "run")
    assert str(refused.value) == f"{key}={path}: {told}"


def test_the_file_of_a_reward_function_is_part_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "reward_of_this_test.py"
    module.write_text("def score(conversations):\n    return [1.0] * len(conversations)\n")
    settings = composed(
        "+reward.models.mine.kind=python",
        "+reward.models.mine.function=reward_of_this_test:score",
        "~reward.models.miniature",
    )
    run = prepare(settings, tmp_path / "run")
    store = CheckpointStore(tmp_path / "run/checkpoints")
    store.commit(store.begin(2), 2, state={}, config=run.identity, data_fingerprint=run.prompts.fingerprint)
    assert prepare(settings, tmp_path / "run").checkpoint is not None
    module.write_text("def score(conversations):\n    return [2.0] * len(conversations)\n")
    with pytest.raises(ConfigError, match=r"content\.file of reward\.models\.mine\.function: "):
        prepare(settings, tmp_path / "run")
