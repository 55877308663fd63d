"""Settings of a small run, and rollouts to show."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lrm_safety.monitoring.rollout_files import RolloutRow
from lrm_safety.settings import DataSettings, ModelSettings, RewardSettings, Settings


@pytest.fixture
def settings() -> Settings:
    made = Settings(
        model=ModelSettings(name="tiny", path="package:x", family="plain"),
        reward=RewardSettings(),
        data=DataSettings(name="prompts", path="prompts.json"),
    )
    made.tracking.wandb = "disabled"
    made.tracking.console = "off"
    made.schedule.max_updates = 10
    return made


@pytest.fixture
def make_row() -> Callable[..., RolloutRow]:
    def make(request_id: int, reward: float = 0.0) -> RolloutRow:
        return RolloutRow(
            request_id=request_id,
            prompt_index=7,
            prompt_ids=[1, 2, 3],
            response_ids=[4, 5, request_id],
            status="complete",
            num_trace_tokens=2,
            num_answer_tokens=1,
            scores={"skywork/full": reward / 2},
            raw_reward=reward,
            shaped_reward=reward,
            prompt="SECRET-PROMPT",
            trace="SECRET-TRACE",
            answer="SECRET-ANSWER",
        )

    return make
