"""Every file of conf/reward fits the schema and names what exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter
from tiny_rewards import conversation

from lrm_safety.rewards.check import check_reward
from lrm_safety.rewards.conversation import VIEWS
from lrm_safety.rewards.scorer import build_scorer
from lrm_safety.settings import RewardSettings

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "reward"
# The names on the card of the series (github.com/SkyworkAI/Skywork-Reward-V2).
SKYWORK = {
    f"Skywork/Skywork-Reward-V2-{base}"
    for base in ("Llama-3.1-8B", "Llama-3.2-3B", "Llama-3.2-1B", "Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B")
}


def load(name: str) -> RewardSettings:
    return TypeAdapter(RewardSettings).validate_python(OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_file_fits_the_schema_and_passes_the_checks(name: str) -> None:
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    settings = load(name)
    check_reward(settings)
    assert settings.models
    for model in settings.models.values():
        assert set(model.read_views()) <= set(VIEWS)
        if name.startswith("skywork"):
            assert model.path in SKYWORK and model.max_tokens <= 16384


def test_views_without_the_default_one() -> None:
    (model,) = load("skywork_views").models.values()
    assert model.read_views() == {"trace": 0.3, "answer": 0.7}


def test_miniature_reward_model_prefers_a_whole_answer() -> None:
    scorer = build_scorer(load("miniature"), "cpu")
    good, torn = conversation("What is 3 + 4?", "3 + 4 = 7", "7"), conversation("What is 3 + 4?", "3 + 4 = 7", "9")
    scores = scorer.score([good, torn])
    assert np.isfinite(scores.total).all() and scores.num_overlong == 0
    assert scores.total[0] != scores.total[1]
