"""Checks of the configurations of `lrm-safety reward` and `lrm-safety audit-reward`; every failure names the key."""

from __future__ import annotations

from ..errors import ConfigError
from .audit import AuditLimitSettings, AuditRewardSettings
from .reward_training import RewardTrainingSettings

# figure -> whether a larger one is better.
_LARGER_IS_BETTER = {
    "auc": True,
    "agreement": True,
    "length": False,
    "matched_drop": False,
    "format_shift": False,
    "opener_auc": True,
    "opener_shift": False,
    "overlong": False,
}


def check_reward_training(settings: RewardTrainingSettings) -> None:
    """Raise ConfigError for the first value out of its limits or combination that cannot work."""
    pairs = settings.pairs
    _check_one_source(pairs.path, pairs.hub_id, pairs.function, "pairs")
    if not pairs.held_out_path and pairs.held_out_fraction == 0:
        raise ConfigError(
            "pairs.held_out_fraction=0: without held-out pairs nothing is measured; use 0.1 or held_out_path"
        )


def check_audit(settings: AuditRewardSettings) -> None:
    """Raise ConfigError for the first value out of its limits or combination that cannot work."""
    _check_one_source(settings.rows.path, None, settings.rows.function, "rows")
    if not settings.reward.models:
        raise ConfigError("reward.models: is empty; choose a reward, e.g. reward=skywork_v2_llama_8b")
    audit = settings.audit
    for name, model in settings.reward.models.items():
        for view in model.read_views():
            if view not in audit.views:
                raise ConfigError(f"audit.views: lacks {view}, which reward.models.{name} reads; add it")
    _check_order(audit.limits)


def _check_order(limits: AuditLimitSettings) -> None:
    for name, larger in _LARGER_IS_BETTER.items():
        warn, fail = getattr(limits, f"{name}_warn"), getattr(limits, f"{name}_fail")
        if (fail > warn) if larger else (fail < warn):
            raise ConfigError(
                f"audit.limits.{name}_fail={fail}: must be {'at most' if larger else 'at least'} {name}_warn={warn}"
            )


def _check_one_source(path: str | None, hub_id: str | None, function: str | None, key: str) -> None:
    if sum(source is not None for source in (path, hub_id, function)) != 1:
        keys = [f"{key}.path", *([f"{key}.hub_id"] if key == "pairs" else []), f"{key}.function"]
        raise ConfigError(f"{key}: set exactly one of {', '.join(keys)}")
