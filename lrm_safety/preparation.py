"""Everything that can be found out before any actor starts: paths, models, prompts, sizes, what to resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from .algorithm.advantages import subtract_baseline
from .checkpoints import NOT_IDENTITY, Checkpoint, CheckpointStore
from .conversation.families import FAMILIES, Family, get_family
from .conversation.response import ResponseParser, reflection_token_ids
from .datasets.prompts import PromptSet, load_prompts, render_prompts
from .errors import ConfigError
from .files import digest_of
from .modeling.configuration import check_causal_lm, load_tokenizer
from .modeling.folder import model_fingerprint, tokenizer_fingerprint
from .modeling.lora import target_layers
from .models_cache import ensure_cached
from .rewards.check import check_reward
from .rollouts import SamplingParameters, TokenIds
from .schedule import Schedule
from .settings import (
    AlgorithmSettings,
    CheckpointSettings,
    DataSettings,
    ModelSettings,
    RewardModelSettings,
    RewardSettings,
    Settings,
    SftSettings,
    TrainerSettings,
)
from .settings.components import REWARDS, reward_kind
from .settings.keys import with_defaults
from .settings.paths import CACHE_PREFIX, cache_directory, resolve
from .settings.training import BASELINES, CORRECTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SettingsOf = TypeVar("SettingsOf", Settings, SftSettings)


@dataclass(kw_only=True)
class Prepared(Generic[SettingsOf]):
    """A checked run, of whatever kind."""

    settings: SettingsOf
    """With every path resolved."""
    identity: dict[str, Any]
    """The configuration as the user gave it, and fingerprints of what it names: what a checkpoint is compared with."""
    directory: Path
    data_fingerprint: str
    """sha256 of the rows that are trained on."""
    schedule: Schedule
    store: CheckpointStore
    checkpoint: Checkpoint | None
    """Where to go on from; None: a fresh run."""
    restarts: int = 0
    """Times the run has restarted itself."""
    replacements: int = 0
    """Workers replaced so far, over all restarts."""


@dataclass(kw_only=True)
class PreparedRun(Prepared[Settings]):
    """A checked RL run."""

    tokenizer: PreTrainedTokenizerBase
    family: Family
    parser: ResponseParser
    prompts: PromptSet
    rendered: list[TokenIds]
    sampling: SamplingParameters
    reflection_ids: frozenset[int]
    num_embeddings: int | None = None
    """Tokens that the policy's embedding has, where its configuration says so."""


def prepare(settings: Settings, directory: Path) -> PreparedRun:
    """Check and load what the controller needs. Raises ConfigError, DataError or ModelError with one line."""
    identity = asdict(settings)
    settings = resolved(settings)
    family, rollout = get_family(settings.model.family), settings.rollout
    num_embeddings = check_policy(settings.model, settings.trainer)
    check_reward(settings.reward)
    check_algorithm(settings.algorithm)
    tokenizer = load_tokenizer(settings.model)
    prompts, rendered = render_prompts(
        load_rows(settings.data),
        family,
        tokenizer,
        system_prompt=settings.model.system_prompt,
        max_prompt_tokens=rollout.max_prompt_tokens,
        overlong=settings.data.overlong,
        num_embeddings=num_embeddings,
    )
    identity["content"] = (
        model_content(settings.model)
        | {"fields of the data": _digest_of_fields(prompts), "prompts as rendered": _digest_of_ids(rendered)}
        | _reward_content(settings.reward)
        | FAMILIES.content(settings.model.family, "model.family")
        | BASELINES.content(settings.algorithm.baseline, "algorithm.baseline")
        | CORRECTIONS.content(settings.algorithm.correction, "algorithm.correction")
    )
    if settings.algorithm.rollout_batch_size > len(prompts):
        raise ConfigError(
            f"algorithm.rollout_batch_size={settings.algorithm.rollout_batch_size}: is above the {len(prompts)} prompts of "
            f"{prompts.source}; lower it or use more prompts"
        )
    if settings.algorithm.num_in_flight > len(prompts):
        raise ConfigError(
            f"algorithm.oversampling={settings.algorithm.oversampling:g}: {settings.algorithm.num_in_flight} prompts in flight are "
            f"above the {len(prompts)} of {prompts.source}; lower it or use more prompts"
        )
    store = open_store(settings.checkpoint, directory)
    return PreparedRun(
        settings=settings,
        identity=identity,
        directory=directory,
        data_fingerprint=prompts.fingerprint,
        schedule=Schedule.of(settings, len(prompts)),
        store=store,
        checkpoint=find_checkpoint(settings, identity, prompts.fingerprint, store),
        tokenizer=tokenizer,
        family=family,
        parser=ResponseParser(family, tokenizer),
        prompts=prompts,
        rendered=rendered,
        sampling=SamplingParameters(
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            max_response_tokens=rollout.max_response_tokens,
            stop_token_ids=tuple(family.stop_token_ids(tokenizer)),
        ),
        reflection_ids=reflection_token_ids(tokenizer),
        num_embeddings=num_embeddings,
    )


def resolved(settings: Settings) -> Settings:
    """A copy with absolute paths and stated tolerances; makes a `cache:` model that is not there yet."""

    def reward_model(name: str, model: RewardModelSettings) -> RewardModelSettings:
        if model.path is None:
            return model
        _make_if_cached(model.path)
        return replace(model, path=resolve(model.path, f"reward.models.{name}.path"))

    settings = with_paths(settings)
    models = {name: reward_model(name, model) for name, model in settings.reward.models.items()}
    exact = settings.model.dtype == "float32"
    invariant, probe = settings.run.invariant_tolerance, settings.rollout.probe_tolerance
    return replace(
        settings,
        run=replace(settings.run, invariant_tolerance=(1e-4 if exact else 0.4) if invariant is None else invariant),
        rollout=replace(settings.rollout, probe_tolerance=(1e-3 if exact else 0.4) if probe is None else probe),
        reward=replace(settings.reward, models=models),
    )


def with_paths(settings: SettingsOf) -> SettingsOf:
    """A copy whose model and data have absolute paths; makes a `cache:` model that is not there yet."""
    _make_if_cached(settings.model.path)
    data_path = settings.data.path
    return replace(
        settings,
        model=replace(settings.model, path=resolve(settings.model.path, "model.path")),
        data=replace(settings.data, path=None if data_path is None else resolve(data_path, "data.path", of="rows")),
    )


def check_policy(model: ModelSettings, trainer: TrainerSettings) -> int | None:
    """Number of tokens that the model's embedding has. Raises ModelError for a model folder that cannot be used, ConfigError for
    adapters that the model has no layers for, and for ranks that its rows cannot be split over."""
    config = check_causal_lm(model)
    if trainer.sequence_parallel_size > 1:
        # It looks at the model's class, which other runs need not import.
        from .modeling.load import check_sequence_parallel

        check_sequence_parallel(model, config, trainer.sequence_parallel_size)
    if trainer.lora.rank:
        target_layers(model, trainer.lora)
    return getattr(config.get_text_config(), "vocab_size", None)


def check_algorithm(algorithm: AlgorithmSettings) -> None:
    """Call baseline and correction once on made-up numbers: of one of the user's, what it raises or returns wrongly is told
    before any actor starts. Raises ConfigError."""
    made_up = torch.Generator().manual_seed(0)
    groups = torch.arange(2).repeat_interleave(algorithm.samples_per_prompt)
    subtract_baseline(
        torch.randn(len(groups), generator=made_up), groups, BASELINES.get(algorithm.baseline, "algorithm.baseline")
    )
    correction = CORRECTIONS.get(algorithm.correction, "algorithm.correction")
    correction.weigh(torch.randn(8, generator=made_up).exp(), algorithm.correction_cap)


def load_rows(data: DataSettings) -> PromptSet:
    """The rows that are trained on; `data.limit` cuts them."""
    prompts = load_prompts(
        data.path,
        None if data.path else data.hub_id,
        split=data.split,
        question_field=data.question_field,
        revision=data.revision,
    )
    return prompts if data.limit is None else replace(prompts, rows=prompts.rows[: data.limit])


def open_store(checkpoint: CheckpointSettings, directory: Path) -> CheckpointStore:
    """The checkpoints in a run's folder."""
    return CheckpointStore(
        directory / "checkpoints",
        keep_last=checkpoint.keep_last,
        best_mode=checkpoint.best_mode,
        best_metric=checkpoint.best_metric,
    )


def model_content(model: ModelSettings) -> dict[str, str]:
    """What `model.path` names, by content: a folder may be written over under the same name."""
    return {
        "weights of model.path": model_fingerprint(model.path, model.revision),
        "tokenizer of model.path": tokenizer_fingerprint(model.path, model.revision, template=False),
    }


def _reward_content(reward: RewardSettings) -> dict[str, str | None]:
    """What the reward models name, by content: weights, tokenizer and template of a model, the file of a function or kind."""
    content: dict[str, str | None] = {}
    for name, model in reward.models.items():
        key = f"reward.models.{name}"
        content |= reward_kind(model, key).content(model, key) | REWARDS.content(model.kind, f"{key}.kind")
    return content


def _digest_of_fields(prompts: PromptSet) -> str:
    """sha256 of every row with all its fields."""
    fields = ([row.id, row.question, row.categories, row.extra] for row in prompts.rows)
    return digest_of(json.dumps(one, sort_keys=True, default=str) + "\n" for one in fields)


def _digest_of_ids(rendered: Sequence[TokenIds]) -> str:
    """sha256 of what the policy reads."""
    return digest_of(len(ids).to_bytes(8, "little") + ids.tobytes() for ids in rendered)


def _make_if_cached(path: str) -> None:
    if path.startswith(CACHE_PREFIX) and not (cache_directory() / path.removeprefix(CACHE_PREFIX)).is_dir():
        ensure_cached(path.removeprefix(CACHE_PREFIX), logging.getLogger(__name__).warning)


def find_checkpoint(
    settings: Settings | SftSettings, identity: dict[str, Any], fingerprint: str, store: CheckpointStore
) -> Checkpoint | None:
    """The checkpoint that `checkpoint.resume` asks for; refuses one whose configuration or data differ. Keys that an
    earlier version did not know stood at their defaults."""
    wish = settings.checkpoint.resume
    store.recover()  # a crash may have left the newest checkpoint under another name
    if wish in ("auto", "never"):
        checkpoint = store.latest()
        if checkpoint is not None and wish == "never":
            raise ConfigError(
                f"checkpoint.resume=never: {checkpoint.path} exists; choose another run.name or run.directory"
            )
    else:
        checkpoint = store.verify(store.open(Path(wish)))
    if checkpoint is None:
        return None
    ignore = NOT_IDENTITY
    if "content" not in checkpoint.config:
        logging.getLogger(__name__).warning(
            "%s: does not say what its model and data held; only their names are compared", checkpoint.path
        )
        ignore = ignore | {"content"}
    known = replace(checkpoint, config=with_defaults(checkpoint.config, type(settings)))
    differences = known.differences(identity, fingerprint, ignore=ignore)
    if differences and not settings.checkpoint.allow_changes:
        raise known.refused(differences)
    for difference in differences:
        logging.getLogger(__name__).warning("%s: goes on with a change: %s", checkpoint.path, difference)
    return checkpoint
