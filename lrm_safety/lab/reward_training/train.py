"""Bradley-Terry training of a reward model in one process, on the CPU or on one GPU: from a base without weights to the export."""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...algorithm.schedules import lr_multiplier
from ...errors import ConfigError, InvariantError, ModelError
from ...files import give_usual_modes, put_in_place
from ...modeling.folder import check_model_folder
from ...modeling.load import DTYPES, _disable_dropout, attention_implementation
from ...modeling.loss import parameter_groups
from ...modeling.sequence_scores import padded_scores
from ...results import HeldOutPairs, RewardTraining
from ...rewards.check import check_head, is_language_model_head, refuse_unread
from ...rewards.classifier import ClassifierScorer, load_classifier, plan_padded
from ...rewards.rendering import Renderer, load_reward_tokenizer
from ...rewards.scorer import ScoreArray
from ...settings import RewardModelSettings
from ...settings.paths import resolve
from ...settings.reward_training import RewardBaseSettings, RewardTrainerSettings, RewardTrainingSettings
from .bradley_terry import bradley_terry_loss, measure
from .pairs import PairSplit, Reading, TokenPair, load_pairs, tokenise


@dataclass(frozen=True)
class Base:
    """Where the base is, and how it reads text; no weights yet."""

    settings: RewardBaseSettings
    """With `path` resolved."""
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer


def open_base(settings: RewardBaseSettings) -> Base:
    """Find the base and its tokenizer. Raises ConfigError or ModelError for what is absent or has no chat template."""
    settings = replace(settings, path=resolve(settings.path, "base.path"))
    source = f"base.path={settings.path}"
    check_model_folder(settings.path)
    if (folder := Path(settings.path)).is_dir():
        check_head(folder, source, may_be_new=True)
    tokenizer = load_reward_tokenizer(settings.path, settings.revision, source)
    return Base(settings, tokenizer, Renderer(tokenizer, source))


def load_for_training(base: Base, device: str, seed: int) -> tuple[PreTrainedModel, bool]:
    """Float32 weights on `device` without dropout, the padding token set; and whether the head is new.

    A new head depends on `seed` alone. Raises ModelError for an architecture without a sequence-classification head and
    for a checkpoint that lacks anything but the head, ConfigError when `max_tokens` exceeds the model's positions.
    """
    settings, source = base.settings, f"base.path={base.settings.path}"
    torch.manual_seed(seed)
    attention = attention_implementation(settings.attention, device)
    model, loading = load_classifier(settings.path, settings.revision, source, dtype=torch.float32, attention=attention)
    body = f"{model.base_model_prefix}."
    missing = sorted(loading["missing_keys"])
    unexpected = loading["unexpected_keys"]
    refuse_unread([name for name in unexpected if not (missing and is_language_model_head(name))], model, source)
    if lost := [name for name in missing if name.startswith(body)]:
        raise ModelError(f"{source}: its files lack {lost[0]} ({len(lost)} in all); the checkpoint is torn")
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and settings.max_tokens > positions:
        raise ConfigError(f"base.max_tokens={settings.max_tokens}: the model reads at most {positions} tokens")
    if config.pad_token_id is None:
        # Written into the export too, so that scoring pads, and so pools, as training did.
        config.pad_token_id = model.config.pad_token_id = _padding_id(base, source)
    _disable_dropout(model)
    return model.to(device).train(), bool(missing)


def _padding_id(base: Base, source: str) -> int:
    """The head pools at the last token that is not padding, so padding must not be what ends every conversation."""
    last = base.renderer.render("question", "answer").ids[-1]
    tokenizer = base.tokenizer
    candidates = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id)
    found = next((token for token in candidates if token is not None and token != last), None)
    if found is None:
        raise ModelError(f"{source}: no token to pad with; set pad_token_id in config.json")
    return int(found)


Report = Callable[[dict[str, float]], None]
"""Called with the metrics of each update."""

EXPORT_TOLERANCE = 1e-2
"""Largest difference between a float32 model's score in training and its export's."""


@dataclass
class Prepared:
    """Everything that can be found out before weights are loaded."""

    settings: RewardTrainingSettings
    device: str
    base: Base
    split: PairSplit
    train: Reading
    held_out: Reading

    @property
    def num_updates(self) -> int:
        trainer = self.settings.trainer
        num = trainer.epochs * math.ceil(len(self.train.pairs) / trainer.batch_size)
        return min(num, trainer.max_updates or num)


def prepare(settings: RewardTrainingSettings, device: str) -> Prepared:
    """Read base and pairs. Raises ConfigError, DataError or ModelError."""
    base = open_base(settings.base)
    split = load_pairs(settings.pairs, settings.seed)
    reading = [
        tokenise(
            pairs,
            base.renderer,
            view=settings.pairs.view,
            max_tokens=settings.base.max_tokens,
            overlong=settings.base.overlong,
        )
        for pairs in (split.train, split.held_out)
    ]
    for side, one in zip(("train on", "hold out"), reading, strict=True):
        if not one.pairs:
            if one.num_equal:
                raise ConfigError(
                    f"pairs.view={settings.pairs.view}: leaves no pair to {side}; {one.num_equal} of {one.num_dropped} read "
                    "the same on both sides; choose another view, or rows that differ in it"
                )
            raise ConfigError(f"base.max_tokens={settings.base.max_tokens}: leaves no pair to {side}; raise it")
    return Prepared(settings, device, base, split, *reading)


def train(prepared: Prepared, directory: Path, report: Report) -> RewardTraining:
    """Train, write DIRECTORY/metrics.jsonl, export/ and results.json; returns what results.json holds.

    Figures of the held-out pairs are those of the export, loaded and read by the scorer that training and evaluation
    use. Raises InvariantError for a loss that is not finite, and where export and training disagree.
    """
    settings = prepared.settings
    model, head_is_new = load_for_training(prepared.base, prepared.device, settings.seed)
    trainer = RewardTrainer(model, settings.trainer, settings.base.dtype, prepared.num_updates)
    start = time.monotonic()
    with (directory / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for update, (epoch, pairs) in enumerate(_batches(prepared), start=1):
            metrics = {"update": update, "epoch": epoch, **trainer.update(pairs)}
            every = settings.trainer.evaluate_every_updates
            if every and update % every == 0 and update < prepared.num_updates:
                metrics |= _held_out_metrics(trainer, prepared)
            metrics["seconds"] = time.monotonic() - start
            file.write(json.dumps(metrics, allow_nan=False) + "\n")
            file.flush()
            report(metrics)
    last = _held_out_scores(trainer, prepared)
    _export(model, prepared, directory / "export")
    del model, trainer
    if prepared.device == "cuda":
        torch.cuda.empty_cache()
    held_out, difference = _measure_export(prepared, directory / "export", last)
    results = RewardTraining(
        base=settings.base.path,
        head_is_new=head_is_new,
        num_updates=prepared.num_updates,
        data_fingerprint=prepared.split.fingerprint,
        pairs_left_out=prepared.split.num_left_out,
        train=prepared.train.counts(),
        held_out_reading=prepared.held_out.counts(),
        held_out=held_out,
        largest_difference_of_export=difference,
        seconds=time.monotonic() - start,
    )
    results.write(directory)
    return results


class RewardTrainer:
    """A model with its optimiser: updates on batches of pairs, scores of sequences."""

    def __init__(self, model: PreTrainedModel, settings: RewardTrainerSettings, dtype: str, num_updates: int) -> None:
        self._model, self._settings, self._num_updates = model, settings, num_updates
        self._dtype = DTYPES[dtype]
        self._num_done = 0
        self._pad_id = int(model.config.get_text_config().pad_token_id)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
        )

    def update(self, pairs: Sequence[TokenPair]) -> dict[str, float]:
        """One optimiser step on the mean loss over `pairs`, however they are cut into micro-batches."""
        settings = self._settings
        lr = settings.lr * lr_multiplier(
            self._num_done,
            self._num_updates,
            kind=settings.lr_schedule,
            warmup_fraction=settings.warmup_fraction,
            min_ratio=settings.min_lr_ratio,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        loss, margins = self.accumulate(pairs)
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), settings.gradient_clip or math.inf)
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            raise InvariantError(
                f"update {self._num_done + 1}: loss {loss}, gradient norm {float(norm)}; lower trainer.lr, or look at the pairs"
            )
        self._optimizer.step()
        self._num_done += 1
        return {
            "loss": loss,
            "accuracy": float(np.where(margins == 0, 0.5, margins > 0).mean()),
            "margin": float(margins.mean()),
            "gradient_norm": float(norm),
            "lr": lr,
            "pairs": len(pairs),
            "tokens": sum(len(pair.chosen) + len(pair.rejected) for pair in pairs),
        }

    def accumulate(self, pairs: Sequence[TokenPair]) -> tuple[float, np.ndarray]:
        """Gradients of the mean loss over `pairs`; the loss, and the differences of scores, float32 `[num_pairs]`."""
        self._optimizer.zero_grad(set_to_none=True)
        total, margins = 0.0, np.empty(len(pairs), dtype=np.float32)
        for places in self._micro_batches(pairs):
            micro_batch = [pairs[place] for place in places]
            scores = self._forward([pair.chosen for pair in micro_batch] + [pair.rejected for pair in micro_batch])
            chosen, rejected = scores.chunk(2)
            losses = bradley_terry_loss(
                chosen,
                rejected,
                margin=torch.tensor([pair.margin for pair in micro_batch], device=scores.device),
                label_smoothing=self._settings.label_smoothing,
            )
            share = losses.sum() / len(pairs)
            share.backward()
            total += share.item()
            margins[places] = (chosen - rejected).detach().float().cpu().numpy()
        return total, margins

    @torch.no_grad()
    def scores(self, sequences: Sequence[list[int]]) -> ScoreArray:
        """Scores in the order given, float32 `[num_sequences]`."""
        scores = np.empty(len(sequences), dtype=np.float32)
        for places in plan_padded([len(ids) for ids in sequences], self._settings.micro_batch_tokens):
            scores[places] = self._forward([sequences[place] for place in places]).cpu().numpy()
        return scores

    def _micro_batches(self, pairs: Sequence[TokenPair]) -> list[list[int]]:
        # A pair costs two rows of its longer response.
        return plan_padded([2 * pair.longest for pair in pairs], self._settings.micro_batch_tokens)

    def _forward(self, sequences: Sequence[list[int]]) -> torch.Tensor:
        """Scores with their graph, float32 `[num_sequences]`; padded on the right."""
        with torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            return padded_scores(self._model, sequences, self._pad_id).float()


def epoch_order(num_pairs: int, seed: int, epoch: int) -> list[int]:
    """Positions of one pass, shuffled by seed and pass alone."""
    order = list(range(num_pairs))
    random.Random(f"pairs {seed} {epoch}").shuffle(order)
    return order


def _batches(prepared: Prepared) -> Iterator[tuple[int, list[TokenPair]]]:
    """Pass and pairs of each update; the last update of a pass may be smaller."""
    pairs, size, num_left = prepared.train.pairs, prepared.settings.trainer.batch_size, prepared.num_updates
    for epoch in range(prepared.settings.trainer.epochs):
        order = epoch_order(len(pairs), prepared.settings.seed, epoch)
        for start in range(0, len(order), size):
            if num_left == 0:
                return
            num_left -= 1
            yield epoch, [pairs[place] for place in order[start : start + size]]


def _held_out_scores(trainer: RewardTrainer, prepared: Prepared) -> tuple[ScoreArray, ScoreArray]:
    """Of the chosen and of the rejected responses, by the model as it is now."""
    pairs = prepared.held_out.pairs
    return trainer.scores([pair.chosen for pair in pairs]), trainer.scores([pair.rejected for pair in pairs])


def _held_out_metrics(trainer: RewardTrainer, prepared: Prepared) -> dict[str, float]:
    figures = _figures(prepared, *_held_out_scores(trainer, prepared))
    assert figures.accuracy.value is not None, "there are pairs"
    return {
        "held_out/accuracy": figures.accuracy.value,
        "held_out/loss": figures.loss,
        "held_out/margin": figures.mean_margin,
        "held_out/expected_calibration_error": figures.expected_calibration_error,
    }


def _figures(prepared: Prepared, chosen: ScoreArray, rejected: ScoreArray) -> HeldOutPairs:
    pairs = [prepared.split.held_out[pair.index] for pair in prepared.held_out.pairs]
    return measure(
        chosen,
        rejected,
        [pair.prompt_key for pair in pairs],
        [pair.categories for pair in pairs],
        seed=prepared.settings.seed,
    )


def _export(model: PreTrainedModel, prepared: Prepared, folder: Path) -> None:
    """A Hugging Face folder in the compute type, written beside its place and renamed."""
    partial = folder.with_name(".export.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.to(DTYPES[prepared.settings.base.dtype]).save_pretrained(partial)
        prepared.base.tokenizer.save_pretrained(partial)
        give_usual_modes(partial)
        put_in_place(partial, folder)
    except OSError as error:
        raise ModelError(f"{folder}: the export cannot be written ({error})") from error


def _measure_export(prepared: Prepared, folder: Path, in_training: Sequence[ScoreArray]) -> tuple[HeldOutPairs, float]:
    """Figures of the export on the held-out pairs, and by how much its scores differ from those in training."""
    base, view = prepared.settings.base, prepared.settings.pairs.view
    scorer = ClassifierScorer(
        "export",
        RewardModelSettings(
            kind="classifier",
            path=str(folder),
            dtype=base.dtype,
            attention=base.attention,
            max_tokens=base.max_tokens,
            # Pairs that stay over the limit under their own rule were dropped on reading.
            overlong="drop_trace_middle" if base.overlong == "drop_trace_middle" else "error",
            micro_batch_tokens=prepared.settings.trainer.micro_batch_tokens,
        ),
        prepared.device,
    )
    pairs = [prepared.split.held_out[pair.index] for pair in prepared.held_out.pairs]
    scores = [scorer.score_texts([getattr(pair, side) for pair in pairs], view) for side in ("chosen", "rejected")]
    difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(in_training, scores, strict=True))
    if base.dtype == "float32" and difference > EXPORT_TOLERANCE:
        raise InvariantError(f"{folder}: scores differ by {difference:.3g} from those of the model in training")
    return _figures(prepared, *scores), difference
