"""`lrm-safety sft`: its presets as literals, what it refuses, and its page."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from lrm_safety.errors import ConfigError
from lrm_safety.settings import SftScheduleSettings, SftSettings, SupervisedSettings
from lrm_safety.settings.compose import compose_sft, sweep

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "sft.md"
MODEL = ["model=miniature"]


def composed(*overrides: str) -> SftSettings:
    return compose_sft([*MODEL, *overrides])[0]


def test_the_authors_recipe_is_the_default() -> None:
    settings = composed()
    assert settings == composed("sft=star1_authors")
    trainer, sft = settings.trainer, settings.sft
    assert (sft.name, sft.batch_size, sft.targets, sft.overlong) == ("star1_authors", 128, "family", "error")
    assert (trainer.lr, trainer.lr_schedule, trainer.warmup_fraction, trainer.min_lr_ratio) == (1e-5, "cosine", 0.05, 0)
    assert (trainer.beta1, trainer.beta2, trainer.weight_decay, trainer.gradient_clip) == (0.9, 0.95, 1e-4, 1.0)
    assert (settings.schedule.passes, settings.schedule.max_updates) == (5.0, None)
    assert (settings.data.name, settings.data.hub_id) == ("star1", "UCSC-VLAA/STAR-1")
    assert (settings.run.name, settings.run.directory) == (
        "sft-miniature-star1-star1_authors",
        "outputs/sft-miniature-star1-star1_authors",
    )


def test_openrlhf() -> None:
    settings = composed("sft=openrlhf")
    trainer = settings.trainer
    assert (settings.sft.name, settings.sft.batch_size) == ("openrlhf", 128)
    assert (trainer.lr, trainer.lr_schedule, trainer.warmup_fraction, trainer.min_lr_ratio) == (
        5e-6,
        "cosine",
        0.03,
        0.1,
    )
    assert (trainer.beta1, trainer.beta2, trainer.weight_decay) == (0.9, 0.95, 0.0)
    assert settings.schedule.passes == 5.0


@pytest.mark.parametrize("option", sorted(path.stem for path in (ROOT / "conf" / "sft").glob("*.yaml")))
def test_every_preset_composes_and_says_what_it_is_for(option: str) -> None:
    settings, resolved = compose_sft([*MODEL, f"sft={option}"])
    assert settings.sft.name == option
    assert json.loads(json.dumps(resolved)) == asdict(settings)
    comment = (ROOT / "conf" / "sft" / f"{option}.yaml").read_text().splitlines()[1]
    assert comment.startswith("# ") and len(comment) > 20


def test_a_preset_stands_above_the_trainer_and_the_command_line_above_both() -> None:
    settings = composed("trainer=zero3_offload", "trainer.beta2=0.99")
    assert settings.trainer.offload_optimizer and settings.trainer.lr == 1e-5 and settings.trainer.beta2 == 0.99


def test_adapters_may_have_dropout_in_sft_and_keep_the_learning_rate_of_the_preset() -> None:
    settings = composed("trainer=zero3_lora", "trainer.lora.dropout=0.05", "trainer.lora.target_modules=[q_proj]")
    lora = settings.trainer.lora
    assert (lora.rank, lora.alpha, lora.dropout, lora.target_modules) == (32, 64.0, 0.05, ["q_proj"])
    assert settings.trainer.lr == 1e-5 and composed().trainer.lora.rank == 0


GPU = ["cluster=node_8gpu_split"]
REFUSED = {
    "unknown key": (["sft.batchsize=1"], "unknown key sft.batchsize; did you mean sft.batch_size?"),
    "key of training alone": (
        ["algorithm.gamma=1"],
        "unknown key algorithm; `lrm-safety sft model=miniature --cfg job` lists all keys",
    ),
    "nothing near": (["qqqq=1"], "unknown key qqqq; `lrm-safety sft model=miniature --cfg job` lists all keys"),
    "unknown preset": (["sft=openrlfh"], "no file conf/sft/openrlfh.yaml; did you mean openrlhf?"),
    "targets": (["sft.targets=chat"], "sft.targets=chat: must be one of family, raw"),
    "raw and a trace": (["sft.targets=raw", "sft.trace_field=t"], "sft.targets=raw: takes the response as it stands"),
    "batch below the ranks": (["sft.batch_size=1"], "sft.batch_size=1: must be at least cluster.policy.num_workers=2"),
    "rows split over ranks that are left over": (
        ["trainer.sequence_parallel_size=3"],
        "trainer.sequence_parallel_size=3: must divide cluster.policy.num_workers=2",
    ),
    "no end": (["schedule.passes=null"], "schedule.passes: set it, or schedule.max_updates"),
    "no pass": (["schedule.passes=0", "schedule.max_updates=9"], "schedule.passes=0: must be above 0; null leaves"),
    "half held out": (["sft.validation_fraction=0.6"], "sft.validation_fraction=0.6: must be at most 0.5"),
    "beta": (["trainer.beta1=1"], "trainer.beta1=1: must be below 1"),
    "adapters that do nothing": (
        ["trainer=zero3_lora", "trainer.lora.alpha=0"],
        "trainer.lora.alpha=0.0: must be above 0",
    ),
    "no data": (["data.hub_id=null"], "data.path: set it or data.hub_id"),
    "foreign best": (["checkpoint.best_metric=evaluation/safety"], "in SFT it can be sft/validation_loss only"),
    "best without rows": (["checkpoint.best_metric=sft/validation_loss"], "with sft.validation_fraction above 0"),
    "largest loss": (
        ["checkpoint.best_metric=sft/validation_loss", "sft.validation_fraction=0.1"],
        "checkpoint.best_mode=max",
    ),
    "part of a GPU": (["cluster=node_8gpu_colocated"], "cluster.policy.gpus_per_worker=0.4: must be 1 for SFT"),
    "a GPU on the CPU": (["cluster.policy.gpus_per_worker=1"], "cluster.policy.gpus_per_worker: must be 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_one_line_that_names_it(name: str) -> None:
    overrides, expected = REFUSED[name]
    with pytest.raises(ConfigError) as refused:
        composed(*overrides)
    assert expected in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_has_to_be_chosen() -> None:
    with pytest.raises(ConfigError, match=r"^model: nothing chosen; give model=OPTION from conf/model$"):
        compose_sft([])


def test_gpu_layouts_compose() -> None:
    for layout in ("node_8gpu_split", "multinode_4x8gpu"):
        assert composed(f"cluster={layout}").cluster.policy.gpus_per_worker == 1
    settings = composed("cluster=node_8gpu_colocated", "cluster.policy.gpus_per_worker=1")
    assert settings.cluster.policy.num_workers == 8


# ---- docs/sft.md ------------------------------------------------------------------------------------------------------


def test_the_page_lists_every_key_of_its_own_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `((?:sft|schedule)\.[a-z_]+)` \| `([^`]*)` \|", PAGE.read_text(), flags=re.MULTILINE))
    settings = composed()
    expected = {
        f"{group}.{item.name}": getattr(getattr(settings, group), item.name)
        for group, node in (("sft", SupervisedSettings), ("schedule", SftScheduleSettings))
        for item in fields(node)
    }
    assert {key: yaml.safe_load(value) for key, value in rows.items()} == expected


def test_commands_of_the_page_compose() -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("lrm-safety sft ")]
    assert len(lines) >= 3
    for line in lines:
        words = shlex.split(line, comments=True)[2:]
        for overrides in sweep([word for word in words if word != "-m"]):
            compose_sft(overrides)
