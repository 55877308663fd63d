"""Every ablation composes, and differs from what it is applied to in exactly the keys that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lrm_safety.settings.compose import compose_settings

CONF = Path(__file__).resolve().parents[3] / "conf"
GENERAL = sorted(path.stem for path in (CONF / "ablation").glob("*.yaml") if path.stem != "none")
OF_THE_MINIATURE = sorted(path.stem for path in (CONF / "experiment" / "ablation").glob("*.yaml"))
IDENTITY = {"run.directory", "tracking.tags"}
"""What every ablation sets besides, so that its runs are told apart."""
EXPECTED = {
    "no_kl": {"algorithm.kl.coef": 0.0},
    "kl_in_loss": {"algorithm.kl.placement": "loss", "algorithm.kl.estimator": "k3"},
    "no_clip": {"algorithm.clip_low": None, "algorithm.clip_high": None},
    "clip_higher": {"algorithm.clip_high": 0.28},
    "no_normalisation": {"algorithm.normalisation": "none"},
    "one_update": {"algorithm.mini_batch_size": 64},
    "few_prompts": {"data.limit": 64},
    "four_updates": {"algorithm.mini_batch_size": 16, "schedule.max_updates": 240},
    "half_schedule": {"schedule.max_updates": 60},
    "reward_answer": {
        "reward.models.miniature.views.full": 0.0,
        "reward.models.miniature.views.answer": 1.0,
    },
    "reward_trace": {"reward.models.miniature.views.full": 0.0, "reward.models.miniature.views.trace": 1.0},
    "forbidden_prompts": {
        "data.name": "miniature_forbidden",
        "data.path": "package:lrm_safety/miniature/assets/prompts/forbidden.jsonl",
    },
}


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in node.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found


def changed(base: list[str], ablated: list[str]) -> dict[str, Any]:
    """Keys of the resolved configurations that differ, with the new values."""
    old, new = (flat(compose_settings(overrides)[1]) for overrides in (base, ablated))
    absent = object()
    return {key: new.get(key) for key in old | new if old.get(key, absent) != new.get(key, absent)}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_ablation_changes_what_it_names_and_nothing_else(name: str) -> None:
    found = changed(["experiment=miniature"], [f"experiment=ablation/{name}"])
    assert {key: value for key, value in found.items() if key not in IDENTITY} == EXPECTED[name]
    assert found["run.directory"] == f"outputs/miniature-{name}" and found["tracking.tags"] == [name]


def test_none_changes_nothing() -> None:
    assert changed(["experiment=star1"], ["experiment=star1", "ablation=none"]) == {}


def test_one_update_takes_every_response_of_the_batch() -> None:
    settings, _ = compose_settings(["experiment=star1", "algorithm=rloo", "ablation=one_update"])
    algorithm = settings.algorithm
    assert algorithm.mini_batch_size == algorithm.rollout_batch_size * algorithm.samples_per_prompt == 256


@pytest.mark.parametrize("name", OF_THE_MINIATURE)
def test_the_files_say_what_differs(name: str) -> None:
    """Whoever adds an ablation: its own keys are the difference, and nothing comes with them unseen."""
    file = OmegaConf.load(CONF / "experiment" / "ablation" / f"{name}.yaml")
    said = flat(OmegaConf.to_container(file))  # type: ignore[arg-type]
    if "/ablation/" + name in (defaults := said.pop("defaults")):
        general = OmegaConf.load(CONF / "ablation" / f"{name}.yaml")
        said |= flat(OmegaConf.to_container(general))  # type: ignore[arg-type]
        defaults = [*defaults, *said.pop("defaults", [])]
    found = changed(["experiment=miniature"], [f"experiment=ablation/{name}"])
    groups = {key.split("/")[1] for one in defaults if isinstance(one, dict) for key in one}
    beyond = {key for key in found.keys() - said.keys() if key.split(".")[0] not in groups}
    assert not beyond and found.keys() >= IDENTITY - {"tracking.tags"}
    assert len(found.keys() - IDENTITY) > 0, "an ablation that changes nothing"


def test_every_general_ablation_has_its_experiment() -> None:
    assert set(GENERAL) <= set(OF_THE_MINIATURE) and len(GENERAL) >= 8
    assert set(EXPECTED) | {"refusal_reward"} <= set(OF_THE_MINIATURE)


@pytest.mark.parametrize("name", GENERAL)
def test_a_general_ablation_is_the_same_change_on_a_papers_model(name: str) -> None:
    paper = ["experiment=star1"]
    found = changed(paper, [*paper, f"ablation={name}"])
    assert found.pop("run.directory") == f"outputs/deepseek_r1_distill_qwen_7b_star1-{name}"
    assert found.pop("tracking.tags") == [name]
    if name in EXPECTED:
        # one rollout batch of the paper's experiments is 256 prompts
        expected = {key: 256 if value == 64 else value for key, value in EXPECTED[name].items()}
        assert found == expected
    here = ["experiment=miniature", f"ablation={name}"]
    assert changed(here, [f"experiment=ablation/{name}"]) == {}, "both forms are one"


def test_the_page_has_a_row_for_every_ablation() -> None:
    page = (CONF.parent / "docs" / "ablations.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in row.strip().strip("`").split("`, `")) == OF_THE_MINIATURE


def test_the_command_line_stands_above_the_ablation() -> None:
    settings, _ = compose_settings(["experiment=ablation/no_kl", "algorithm.kl.coef=0.5", "run.directory=here"])
    assert settings.algorithm.kl.coef == 0.5 and settings.run.directory == "here"


def test_another_reward_replaces_the_experiments_own() -> None:
    for overrides in (
        ["experiment=ablation/refusal_reward"],
        ["experiment=star1", "model=qwen3_4b", "ablation=refusal_reward"],
    ):
        settings, _ = compose_settings(overrides)
        assert list(settings.reward.models) == ["refusal_phrases"]
        assert settings.reward.models["refusal_phrases"].kind == "python"
