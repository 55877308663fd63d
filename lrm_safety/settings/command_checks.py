"""Checks of the configurations of the commands beside `train`, and the keys that each leaves unread."""

from __future__ import annotations

from dataclasses import fields

from ..errors import ConfigError
from . import AnalyzeSettings, EvaluateSettings, SftSettings
from .audit import AuditRewardSettings
from .checks import check_data, check_evaluation, check_every_rank_learns, check_sequence_parallel
from .evaluation import BEHIND_ENDPOINT


def check_evaluate(settings: EvaluateSettings) -> None:
    """What `checks.check` is for training."""
    check_evaluation(settings.evaluation)
    model, endpoint = settings.model, settings.model.endpoint
    if endpoint.url is None and model.path == BEHIND_ENDPOINT:
        raise ConfigError("model.endpoint.url: is not set; give the address before /chat/completions")
    if endpoint.url is not None and model.adapter is not None:
        raise ConfigError(
            f"model.adapter={model.adapter}: nothing can be merged behind model.endpoint.url; leave one of them out"
        )


def check_sft(settings: SftSettings) -> None:
    """What `checks.check` is for training."""
    check_data(settings.data)
    sft, policy = settings.sft, settings.cluster.policy
    check_sequence_parallel(settings.trainer, settings.model, settings.cluster)
    check_every_rank_learns(sft.batch_size, "sft.batch_size", "a row", settings.trainer, settings.cluster)
    best = settings.checkpoint.best_metric
    if best is not None and (best != "sft/validation_loss" or not sft.validation_fraction):
        raise ConfigError(
            f"checkpoint.best_metric={best}: in SFT it can be sft/validation_loss only, with sft.validation_fraction above 0"
        )
    if best is not None and settings.checkpoint.best_mode == "max":
        raise ConfigError("checkpoint.best_mode=max: the best loss is the smallest; use checkpoint.best_mode=min")
    gpus = policy.gpus_per_worker
    if settings.cluster.device == "cuda" and gpus != 1:
        raise ConfigError(
            f"cluster.policy.gpus_per_worker={gpus:g}: must be 1 for SFT, where no other group shares the ranks' GPUs"
        )
    if settings.cluster.device == "cpu" and gpus:
        raise ConfigError("cluster.policy.gpus_per_worker: must be 0 on cluster.device=cpu")


def check_audit(settings: AuditRewardSettings) -> None:
    """What `checks.check` is for training."""
    for name, model in settings.reward.models.items():
        for view in model.read_views():
            if view not in settings.audit.views:
                raise ConfigError(f"audit.views: lacks {view}, which reward.models.{name} reads; add it")


def unread_by_sft(settings: SftSettings) -> dict[str, str]:
    """Keys of groups that are shared with training, and that SFT leaves aside, each with what is read instead."""
    others = "of the groups of workers SFT starts cluster.policy alone"
    return {
        "data.overlong": "sft.overlong says what becomes of a long row",
        "trainer.reference_sharding": "SFT has no reference",
        "trainer.lora.sync": "SFT has no engines",
        **{f"cluster.{name}": others for name in ("rollout", "reference", "reward", "colocate")},
    }


def unread_by_evaluate(settings: EvaluateSettings) -> dict[str, str]:
    """What `unread_by_sft` is for SFT."""
    unread = {"evaluation.every_updates": "it is of `train`, and an evaluation is done once"}
    if settings.model.endpoint.url is None:
        unread["model.endpoint"] = "it is of model=endpoint, which needs model.endpoint.url"
    else:
        behind = "the endpoint loads its model, and what it runs together, as it likes"
        names = ("path", "revision", "dtype", "attention", "packing", "trust_remote_code")
        unread |= {f"model.{name}": behind for name in names}
        unread |= dict.fromkeys(("rollout", "run.num_engines", "evaluation.batch_size", "evaluation.overlong"), behind)
        return unread
    for name in ("weight_transfer", "bucket_bytes", "probe_tolerance", "probe_every_syncs"):
        unread[f"rollout.{name}"] = "no weights are sent to an engine that only evaluates"
    if settings.run.num_engines == 1:
        for name in ("max_restarts", "timeout_seconds"):
            unread[f"rollout.{name}"] = "one engine runs in the command's own process; it is of run.num_engines above 1"
    if settings.evaluation.protocol != "training":
        sampling = ("temperature", "top_p", "top_k", "max_response_tokens")
        unread |= {f"rollout.{name}": f"evaluation.{name} says how responses are sampled" for name in sampling}
    return unread


def unread_by_analyze(settings: AnalyzeSettings) -> dict[str, str]:
    """What `unread_by_sft` is for SFT."""
    return {
        "data.overlong": "sft.overlong says what becomes of a long row",
        "sft.batch_size": "analysis.micro_batch_tokens says what a forward pass takes",
    }


def unread_by_audit(settings: AuditRewardSettings) -> dict[str, str]:
    """What `unread_by_sft` is for SFT."""
    shaping = (item.name for item in fields(settings.reward) if item.name != "models")
    return {f"reward.{name}": "every model is judged by its raw scores, before they are shaped" for name in shaping}
