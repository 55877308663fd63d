"""Configurations of `lrm-safety reward` and `lrm-safety audit-reward`: what they refuse, and that the shipped files compose."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from lrm_safety.errors import ConfigError
from lrm_safety.settings import RewardModelSettings, RewardSettings
from lrm_safety.settings.audit import AuditRewardSettings, AuditRowSettings
from lrm_safety.settings.compose import AUDIT, REWARD, compose_audit, compose_reward_training
from lrm_safety.settings.reward_training import PairSettings, RewardBaseSettings, RewardTrainingSettings


def training(**pairs: object) -> RewardTrainingSettings:
    values = {"path": "pairs.jsonl"} | pairs
    base = RewardBaseSettings(name="b", path="b/c")
    return RewardTrainingSettings(base=base, pairs=PairSettings(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"path": None}, r"pairs: set exactly one of pairs\.path, pairs\.hub_id, pairs\.function"),
        ({"hub_id": "a/b"}, r"pairs: set exactly one"),
        ({"held_out_fraction": 0.0}, r"pairs\.held_out_fraction=0"),
        ({"held_out_fraction": 0.95}, r"pairs\.held_out_fraction=0\.95: must be at most 0\.9"),
        ({"view": "thoughts"}, r"pairs\.view=thoughts: must be one of full, trace, answer"),
    ],
)
def test_trainings_that_cannot_work(pairs: dict, message: str) -> None:
    REWARD.checked(asdict(training()))
    with pytest.raises(ConfigError, match=message):
        REWARD.checked(asdict(training(**pairs)))


def test_smoothing_of_a_half_teaches_nothing() -> None:
    settings = training()
    settings.trainer.label_smoothing = 0.5
    with pytest.raises(ConfigError, match=r"trainer\.label_smoothing=0\.5: must be below"):
        REWARD.checked(asdict(settings))


def auditing() -> AuditRewardSettings:
    model = RewardModelSettings(kind="python", function="a:b", views={"trace": 1.0})
    return AuditRewardSettings(reward=RewardSettings(models={"m": model}), rows=AuditRowSettings(path="rows.jsonl"))


def test_audits_that_cannot_work() -> None:
    AUDIT.checked(asdict(auditing()))
    settings = auditing()
    settings.audit.views = ["full"]
    with pytest.raises(ConfigError, match=r"audit\.views: lacks trace, which reward\.models\.m reads"):
        AUDIT.checked(asdict(settings))
    settings = auditing()
    settings.audit.limits.auc_fail = 0.95
    with pytest.raises(ConfigError, match=r"audit\.limits\.auc_fail=0\.95: must be at most auc_warn=0\.9"):
        AUDIT.checked(asdict(settings))
    settings = auditing()
    settings.audit.limits.overlong_fail = 0.0
    with pytest.raises(ConfigError, match=r"audit\.limits\.overlong_fail=0\.0: must be at least overlong_warn"):
        AUDIT.checked(asdict(settings))
    settings = auditing()
    settings.rows.function = "a:b"
    with pytest.raises(ConfigError, match=r"rows: set exactly one of rows\.path, rows\.function"):
        AUDIT.checked(asdict(settings))
    settings = auditing()
    settings.reward.models.clear()
    with pytest.raises(ConfigError, match=r"reward\.models: is empty"):
        AUDIT.checked(asdict(settings))


def test_every_recipe_composes(repository_root: Path) -> None:
    recipes = sorted(path.stem for path in (repository_root / "conf" / "recipe").glob("*.yaml"))
    assert "miniature" in recipes
    for name in recipes:
        source = [] if name == "miniature" else ["pairs.path=pairs.jsonl", "pairs.name=mine"]
        settings, _ = compose_reward_training([f"recipe={name}", *source])
        assert settings.base.name == name or name == "skywork_v2_further"
        assert settings.run.directory == f"outputs/reward-{settings.base.name}-{settings.pairs.name}"


def test_defaults_are_those_of_openrlhf() -> None:
    trainer = compose_reward_training(["base.name=b", "base.path=b/c", "pairs.path=p.jsonl"])[0].trainer
    assert (trainer.lr, trainer.batch_size, trainer.epochs, trainer.weight_decay) == (9e-6, 128, 1, 0.0)
    assert (trainer.beta1, trainer.beta2, trainer.gradient_clip) == (0.9, 0.95, 1.0)
    assert (trainer.lr_schedule, trainer.warmup_fraction, trainer.min_lr_ratio) == ("cosine", 0.03, 0.1)


def test_audit_of_the_miniature_composes() -> None:
    settings, resolved = compose_audit(["reward=miniature", "rows=miniature"])
    assert settings.run.directory == "outputs/audit-miniature" == resolved["run"]["directory"]
    assert list(settings.reward.models) == ["miniature"] and settings.audit.limits.min_category_texts == 5
    with pytest.raises(ConfigError, match=r"unknown key audit\.limits\.auc_wrn; did you mean audit\.limits\.auc_warn"):
        compose_audit(["reward=miniature", "rows=miniature", "audit.limits.auc_wrn=0.5"])


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"base\.name"):
        compose_reward_training(["pairs.path=p.jsonl"])
    with pytest.raises(ConfigError, match="reward"):
        compose_audit(["rows=miniature"])
