"""Every file of conf/ composes into a valid configuration, and mistakes are named with the nearest right key."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lrm_safety.errors import ConfigError
from lrm_safety.settings import BenchmarkSettings, JudgeSettings, Settings, SftSettings
from lrm_safety.settings.compose import compose_settings, compose_sft
from lrm_safety.settings.keys import known_keys

CONF = Path(__file__).resolve().parents[3] / "conf"
PARTS = ["model=miniature", "reward=miniature", "data=miniature"]
CPU, CUDA = ["rollout=vllm_cpu", "cluster=laptop_cpu"], ["rollout=vllm", "cluster=node_8gpu_split"]
# What stands around an option of each group: an experiment that has chosen otherwise, or a whole run without one.
AROUND = {
    "model": ["experiment=smollm2_star1"],
    "reward": ["model=miniature", "data=miniature", *CPU],
    "data": ["model=miniature", "reward=miniature", *CPU],
    "algorithm": [*PARTS, *CPU],
    "trainer": [*PARTS, *CPU],
    "evaluation": [*PARTS, *CPU],
    "judge": [*PARTS, *CPU],
    "tracking": [*PARTS, *CPU],
    "ablation": [*PARTS, *CPU],
    "experiment": [],
}
SEVERAL = ("evaluation", "judge")  # groups of which several options are chosen at once
NAMED = {"endpoint": ["model.name=endpoint"]}  # options that leave their name to the user
# Engines and the layouts they are for.
LAYOUTS = {"vllm_cpu": "laptop_cpu", "vllm_colocated": "node_8gpu_colocated", "vllm": "node_8gpu_split"}
ENGINES = {layout: engine for engine, layout in LAYOUTS.items()}


def overrides_for(group: str, option: str) -> list[str]:
    if group == "cluster":
        return [*PARTS, f"cluster={option}", f"rollout={ENGINES.get(option, 'vllm')}"]
    if group == "rollout":
        return [*PARTS, f"rollout={option}", f"cluster={LAYOUTS[option]}"]
    chosen = f"{group}=[{option}]" if group in SEVERAL else f"{group}={option}"
    return [*AROUND[group], chosen, *NAMED.get(option, [])]


DEFAULTS = OmegaConf.load(CONF / "config.yaml").defaults
GROUPS = {name for entry in DEFAULTS if not isinstance(entry, str) for name in entry}
OPTIONS = [str(path.relative_to(CONF).with_suffix("")).partition("/")[::2] for path in CONF.glob("*/**/*.yaml")]
FILES = sorted((group, option) for group, option in OPTIONS if group in GROUPS)


@pytest.mark.parametrize(("group", "option"), FILES)
def test_every_file_composes(group: str, option: str) -> None:
    text = (CONF / group / f"{option}.yaml").read_text()
    comment = next(line for line in text.splitlines() if not line.startswith("# @package"))
    assert comment.startswith("# ") and len(comment) > 20, "a file says what it is for"
    supervised = group == "experiment" and option.startswith("sft/")
    settings, resolved = (compose_sft if supervised else compose_settings)(overrides_for(group, option))
    assert isinstance(settings, SftSettings if supervised else Settings)
    assert resolved == asdict(settings), "the typed and the plain configuration are one"
    if group in ("model", "data", "cluster"):
        assert getattr(settings, group).name == option
    if group == "model":
        chosen = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{option}.yaml"))
        assert isinstance(chosen, dict)
        assert {key: one for key, one in chosen.items() if one != "???"}.items() <= asdict(settings.model).items()
        assert settings.data.name == "star1", "the rest is the experiment's"


def test_an_override_beats_the_experiment_and_the_experiment_beats_the_group() -> None:
    experiment = OmegaConf.load(CONF / "experiment" / "smollm2_star1.yaml")
    assert (experiment.algorithm.rollout_batch_size, experiment.algorithm.mini_batch_size) == (16, 8)
    settings, _ = compose_settings(["experiment=smollm2_star1", "algorithm=rloo", "algorithm.mini_batch_size=16"])
    algorithm = settings.algorithm
    assert (algorithm.name, algorithm.samples_per_prompt) == ("rloo", 4), "the option's own keys"
    assert (algorithm.rollout_batch_size, algorithm.mini_batch_size) == (16, 16)


@pytest.mark.parametrize(("packing", "tokens"), [("true", 16384), ("false", 8192), ("off", 8192), ("0", 8192)])
def test_a_batch_that_is_padded_is_smaller(packing: str, tokens: int) -> None:
    """`off` is text to Hydra, and a switch to the schema: `${if:..}` reads it as the schema does."""
    settings, _ = compose_settings(["experiment=star1", f"model.packing={packing}"])
    assert (settings.model.packing, settings.trainer.micro_batch_tokens) == (tokens == 16384, tokens)


def test_settings_survive_pickle_and_json() -> None:
    settings, resolved = compose_settings(["experiment=miniature", "reward=skywork_views", "cluster.colocate=[]"])
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings and type(again.reward.models["skywork"]) is type(settings.reward.models["skywork"])
    assert json.loads(json.dumps(asdict(settings))) == asdict(settings) == resolved


def test_the_run_folder_follows_the_name() -> None:
    settings, _ = compose_settings(["experiment=miniature", "run.name=seven"])
    assert settings.run.directory == "outputs/seven"


REFUSED = {
    "nearest key": (["trainer.learning_rate=1"], "unknown key trainer.learning_rate; did you mean trainer.lr?"),
    "nearest nested key": (["algorithm.kl.coeff=1"], "unknown key algorithm.kl.coeff; did you mean algorithm.kl.coef?"),
    "nearest group": (["algoritm.gamma=1"], "did you mean algorithm"),
    "inside a dictionary": (["reward.models.miniature.wheight=1"], "did you mean reward.models.*.weight?"),
    "added key": (["+trainer.momentum_decay=1"], "unknown key trainer.momentum_decay"),
    "a group's name": (["experimentt=miniature"], "unknown key experimentt; did you mean experiment?"),
    "nothing near": (["qqqq=1"], "unknown key qqqq; `lrm-safety train experiment=miniature --cfg job` lists all keys"),
    "unknown option": (["model=qwen3_8"], "no file conf/model/qwen3_8.yaml; did you mean qwen3_8b?"),
    "word for a number": (["trainer.lr=fast"], "trainer.lr"),
    "fraction for an integer": (["algorithm.samples_per_prompt=1.5"], "algorithm.samples_per_prompt"),
    "number for a switch": (["model.packing=perhaps"], "model.packing"),
    "null where none may be": (["algorithm.gamma=null"], "algorithm.gamma"),
    "unparsable": (["trainer.lr=[1"], "trainer.lr=[1: "),
    "no value": (["trainer.lr"], "trainer.lr: missing EQUAL"),
    "number for an option": (["model=3"], "must be a string"),
    "value left open": (["data.name=???"], "data.name: must be set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_one_line_that_names_it(name: str) -> None:
    overrides, expected = REFUSED[name]
    with pytest.raises(ConfigError) as refused:
        compose_settings(["experiment=miniature", *overrides])
    assert expected in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("group", ["model", "reward", "data"])
def test_a_group_without_a_choice_is_named(group: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{group}: nothing chosen; .*{group}=OPTION from conf/{group}$"):
        compose_settings([*(part for part in PARTS if not part.startswith(group)), *CPU])


def test_known_keys_reach_every_level() -> None:
    keys = set(known_keys())
    assert {"seed", "algorithm.kl.coef", "cluster.policy.num_workers"} <= keys
    assert {"reward.models.*.weight", "evaluation.benchmarks.*.attack"} <= keys


def test_members_of_dictionaries_are_added_on_the_command_line() -> None:
    """Hydra alone refuses them, since a plain dictionary is no JudgeSettings."""
    settings, _ = compose_settings(
        [
            "experiment=miniature",
            "+evaluation.judges.mine.kind=python",
            "+evaluation.judges.mine.arguments.function=a.b:c",
            "evaluation.judges.mine.views=[answer]",
            "+evaluation.benchmarks.tail={task: long_tail, arguments: {size: 4}, limit: 2}",
            "evaluation.benchmarks.tail.limit=3",
            "+reward.models.second={path: package:lrm_safety/miniature/assets/reward, weight: 0.5}",
            "reward.models.miniature.weight=0.5",
        ]
    )
    assert settings.evaluation.judges["mine"] == JudgeSettings("python", ["answer"], None, {"function": "a.b:c"})
    assert settings.evaluation.judges["refusal_rules"] == JudgeSettings()
    assert settings.evaluation.benchmarks["tail"] == BenchmarkSettings("long_tail", {"size": 4}, limit=3)
    assert list(settings.evaluation.benchmarks) == ["safety", "arithmetic", "benign", "tail"]
    assert {name: model.weight for name, model in settings.reward.models.items()} == {"miniature": 0.5, "second": 0.5}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "evaluation.benchmarks.safety.arguments.size=3",
            "add it with a plus, +evaluation.benchmarks.safety.arguments",
        ),
        ("cluster.policy.node_labels.role=train", "add it with a plus, +cluster.policy.node_labels.role"),
        ("evaluation.judges.mine.kind=python", "unknown key evaluation.judges.mine"),
        (
            "+evaluation.benchmarks.tail.task=long_tail,+evaluation.benchmarks.tail.limit=nine",
            "evaluation.benchmarks.tail.limit=nine: must be a whole number",
        ),
        (
            "+evaluation.benchmarks.tail.task=long_tail,+evaluation.benchmarks.tail.tusk=3",
            "evaluation.benchmarks.tail.tusk",
        ),
        ("+evaluation.judges.mine=3", "evaluation.judges.mine: "),
        ("evaluation=[attak]", "no file conf/evaluation/attak.yaml; did you mean attaq?"),
    ],
)
def test_mistakes_in_dictionaries_are_named(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose_settings(["experiment=miniature", *override.split(",")])
    assert expected in str(refused.value) and "\n" not in str(refused.value)


def test_an_empty_dictionary_that_would_take_nothing_out_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation.judges=\{\}: takes nothing out.* write ~evaluation.judges.refusal_rules "
    ):
        compose_settings(["experiment=miniature", "evaluation.judges={}"])


@pytest.mark.parametrize("override", ["run.name=1e3", "model.revision=12e4567", "tracking.tags=[1e3]"])
def test_text_that_hydra_has_read_as_a_number_is_refused(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(
        ConfigError, match=rf"^{key}\S*=\S+: must be text, and this was read as a number; quote it twice"
    ):
        compose_settings(["experiment=miniature", override])
    quoted = override.replace("1e3", "'1e3'").replace("12e4567", "'12e4567'")
    settings, _ = compose_settings(["experiment=miniature", quoted])
    assert settings.run.name == "1e3" or settings.model.revision == "12e4567" or settings.tracking.tags == ["1e3"]
