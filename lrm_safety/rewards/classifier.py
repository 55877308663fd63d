"""Reward models with a sequence-classification head (Bradley-Terry), over chats or over pairs of segments.

Such as Skywork-Reward-V2 and OpenAssistant's DeBERTa.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from ..batching import plan_micro_batches
from ..errors import ConfigError, ModelError, RewardError, first_line
from ..modeling.folder import check_model_folder
from ..modeling.load import attention_implementation, one_attention_kernel
from ..modeling.packed_attention import attend_by_sequence
from ..modeling.sequence_scores import can_pack, packed_scores, padded_scores
from ..progress import PROGRESS
from ..settings import RewardModelSettings
from .check import check_head, refuse_unread
from .conversation import Conversation, drop_trace_middle, shortened
from .rendering import Rendered, Renderer, load_reward_tokenizer
from .scorer import ScoreArray, checked_scores


class ClassifierScorer:
    """Scores texts by the model at `settings.path`, read through the model's own tokenizer and chat template.

    Scores are the head's logit at the last token that is not padding, as transformers pools it, and equal to those of one
    text at a time up to rounding, however texts are batched. Whatever `dtype` the model computes in, its head does in
    float32: a logit in bfloat16 has steps of 0.125 above 16, and different texts would tie.

    Raises ModelError when the folder is absent or torn, holds no classification head with one output, or no chat
    template; ConfigError when `max_tokens` exceeds the model's positions.
    """

    def __init__(self, name: str, settings: RewardModelSettings, device: str) -> None:
        self.counters: Counter[str] = Counter()
        self._key = f"reward.models.{name}"
        self._settings = settings
        self._device = torch.device(device)
        source = f"{self._key}.path={settings.path}"
        tokenizer = load_reward_tokenizer(str(settings.path), settings.revision, source)
        self._renderer = Renderer(tokenizer, source)
        _check_files(str(settings.path), source)
        model = _load_model(settings, source, attention_implementation(settings.attention, device))
        self._packs = self._device.type == "cuda" if settings.packing is None else settings.packing
        if self._packs and not can_pack(model):
            if settings.packing:
                raise ConfigError(
                    f"{self._key}.packing=true: a model of type {model.config.model_type} cannot read packed rows; leave it out"
                )
            self._packs = False
        if self._packs:
            attend_by_sequence(model)
        self._model = float32_head(model).to(self._device).eval()
        self._tokenizer = tokenizer
        self._num_embeddings = self._model.get_input_embeddings().weight.shape[0]
        self._pad_id = self._set_padding(tokenizer, source)
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and settings.max_tokens > positions:
            raise ConfigError(
                f"{self._key}.max_tokens={settings.max_tokens}: the model reads at most {positions} tokens"
            )

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Logits of one view, float32 [n]. Raises RewardError for an over-long text when overlong=error, for a logit
        that is not finite, and when the device runs out of memory."""
        scores = np.full(len(conversations), self._settings.overlong_score, dtype=np.float32)
        readable: list[int] = []
        sequences: list[list[int]] = []
        for position, conversation in enumerate(conversations):
            ids = self._read(conversation, view)
            if ids is None:
                self.counters["unread"] += 1
            else:
                readable.append(position)
                sequences.append(ids)
        logits = np.empty(len(sequences), dtype=np.float32)
        lengths, budget = [len(ids) for ids in sequences], self._settings.micro_batch_tokens
        if self._packs:
            (planned,) = plan_micro_batches(lengths, 1, budget, packing=True)
        else:
            planned = plan_padded(lengths, budget)
        for micro_batch in PROGRESS.pieces(planned, "texts", len):
            logits[micro_batch] = self._forward([sequences[i] for i in micro_batch])
        scores[readable] = logits
        return checked_scores(scores, len(conversations), f"{self._key} (view {view})")

    def _read(self, conversation: Conversation, view: str) -> list[int] | None:
        """Token ids of one view, within max_tokens; None when it gets `overlong_score`."""
        limit = self._settings.max_tokens
        rendered = self._renderer.render(conversation.prompt, conversation.view(view))
        if (highest := max(rendered.ids)) >= self._num_embeddings:
            raise RewardError(
                f"{self._key}: a conversation holds the token {self._tokenizer.convert_ids_to_tokens(highest)} with the id "
                f"{highest}, but the model's embedding has {self._num_embeddings} rows and its tokenizer {len(self._tokenizer)} "
                "tokens; use the model's own tokenizer"
            )
        if len(rendered.ids) > limit:
            self.counters["overlong"] += 1
            if self._settings.overlong == "error":
                raise RewardError(
                    f"{self._key}.max_tokens={limit}: view {view} of a conversation has {len(rendered.ids)} tokens; "
                    "raise max_tokens, lower rollout.max_response_tokens, or choose another rule in `overlong`"
                )
            shortened = self._shorten(conversation, view) if self._settings.overlong == "drop_trace_middle" else None
            if shortened is None:
                return None
            rendered = shortened
        self.counters["respelled"] += rendered.respelled
        return rendered.ids

    def _shorten(self, conversation: Conversation, view: str) -> Rendered | None:
        limit, prompt = self._settings.max_tokens, conversation.prompt
        text = drop_trace_middle(conversation, view, lambda text: len(self._renderer.render(prompt, text).ids) <= limit)
        if text is None:
            return None
        rendered = self._renderer.render(prompt, text)
        assert len(rendered.ids) <= limit
        return rendered

    @torch.inference_mode()
    def _forward(self, sequences: list[list[int]]) -> ScoreArray:
        read = packed_scores if self._packs else padded_scores
        try:
            logits = read(self._model, sequences, self._pad_id)
        except torch.OutOfMemoryError as error:
            raise RewardError(
                f"{self._key}.micro_batch_tokens={self._settings.micro_batch_tokens}: out of memory on {len(sequences)} "
                f"texts of up to {max(map(len, sequences))} tokens; lower it, or max_tokens"
            ) from error
        result: ScoreArray = logits.float().cpu().numpy()
        return result

    def _set_padding(self, tokenizer: PreTrainedTokenizerBase, source: str) -> int:
        """The id to pad with. The head pools at the last token that is not this one (transformers issue 35352), so a
        model whose configuration names none gets one that no conversation ends with."""
        config = self._model.config.get_text_config()
        if config.pad_token_id is None:
            last = self._renderer.render("question", "answer").ids[-1]
            candidates = (
                tokenizer.pad_token_id,
                tokenizer.bos_token_id,
                tokenizer.unk_token_id,
                tokenizer.eos_token_id,
            )
            config.pad_token_id = next((i for i in candidates if i is not None and i != last), None)
            if config.pad_token_id is None:
                raise ModelError(f"{source}: no token to pad with; set pad_token_id in config.json")
        return int(config.pad_token_id)


def plan_padded(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Positions in micro-batches of at most `budget_tokens` padded tokens, the longest first (what does not fit the
    memory fails at once). A sequence above the budget goes alone. Depends on `lengths` only."""
    micro_batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if micro_batches and (len(micro_batches[-1]) + 1) * lengths[micro_batches[-1][0]] <= budget_tokens:
            micro_batches[-1].append(position)
        else:
            micro_batches.append([position])
    return micro_batches


def float32_head(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, its last linear layer (of one output) in float32 on hidden states that are widened for it."""
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if heads:
        head = heads[-1].float()
        head.register_forward_pre_hook(lambda _, arguments: (arguments[0].float(), *arguments[1:]))
    return model


def _check_files(path: str, source: str) -> None:
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{source}: the folder holds no config.json")
    if folder.is_dir():
        try:
            check_model_folder(path, needs_tokenizer=False)
        except ModelError as error:
            raise ModelError(f"{source}: cannot load the reward model ({error})") from error
        check_head(folder, source)


def _load_model(settings: RewardModelSettings, source: str, attention: str | None) -> PreTrainedModel:
    dtype = getattr(torch, settings.dtype)
    model, loading = load_classifier(str(settings.path), settings.revision, source, dtype=dtype, attention=attention)
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"{source}: is no reward model, or torn: its files lack {', '.join(missing[:3])} ({len(missing)} in all); "
            "choose a checkpoint with a sequence-classification head"
        )
    refuse_unread(loading["unexpected_keys"], model, source)
    return model


def load_classifier(
    path: str, revision: str | None, source: str, *, dtype: torch.dtype, attention: str | None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A sequence-classification model of one output, and the `missing_keys` and `unexpected_keys` of its files. `attention`:
    None leaves it to transformers. Raises ModelError, which opens with `source`."""
    one_attention_kernel()
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            path,
            revision=revision,
            num_labels=1,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    # Loaders of other libraries raise what they like for files that they cannot read.
    except Exception as error:
        raise ModelError(
            f"{source}: cannot load the reward model ({type(error).__name__}: {first_line(error)})"
        ) from error
    assert isinstance(model, PreTrainedModel)
    return model, loading


class PairScorer:
    """Scores by `tokenizer(request, text)`, as cross-encoder reward models are trained; the counterpart of
    ClassifierScorer, which reads chats. Logits are float32 and equal those of one text at a time up to rounding.

    Raises ModelError when the model cannot be loaded, lacks its head, or its tokenizer has no padding token.
    """

    def __init__(
        self, name: str, settings: RewardModelSettings, tokenizer: PreTrainedTokenizerBase, device: str
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._key = f"reward.models.{name}"
        self._settings, self._tokenizer, self._device = settings, tokenizer, device
        source = f"{self._key}.path={settings.path}"
        if tokenizer.pad_token_id is None:
            raise ModelError(f"{source}: the tokenizer has no padding token, which pairs need")
        self._model = _load_model(settings, source, None).to(device).eval()

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Logits of one view, float32 [n]; `overlong_score` where the prompt alone is over max_tokens. Raises RewardError
        for a logit that is not finite."""
        scores = np.full(len(conversations), self._settings.overlong_score, dtype=np.float32)
        readable: list[int] = []
        pairs: list[tuple[str, str]] = []
        for position, conversation in enumerate(conversations):
            prompt, text = conversation.prompt, conversation.view(view)
            kept = shortened(prompt, text, lambda text, prompt=prompt: self._fits(prompt, text))  # type: ignore[misc]
            self.counters["overlong"] += kept != text
            if kept is None:
                self.counters["unread"] += 1
            else:
                readable.append(position)
                pairs.append((prompt, kept))
        logits = np.empty(len(pairs), dtype=np.float32)
        lengths = [self._num_tokens(*pair) for pair in pairs]
        for micro_batch in PROGRESS.pieces(plan_padded(lengths, self._settings.micro_batch_tokens), "texts", len):
            logits[micro_batch] = self._forward([pairs[i] for i in micro_batch])
        scores[readable] = logits
        return checked_scores(scores, len(conversations), f"{self._key} (view {view})")

    def _num_tokens(self, prompt: str, text: str) -> int:
        return len(self._tokenizer(prompt, text, verbose=False)["input_ids"])

    def _fits(self, prompt: str, text: str) -> bool:
        return self._num_tokens(prompt, text) <= self._settings.max_tokens

    @torch.inference_mode()
    def _forward(self, pairs: list[tuple[str, str]]) -> ScoreArray:
        encoded = self._tokenizer(
            [prompt for prompt, _ in pairs],
            [text for _, text in pairs],
            padding=True,
            return_tensors="pt",
            verbose=False,
        )
        logits = self._model(**encoded.to(self._device)).logits
        result: ScoreArray = logits[:, 0].float().cpu().numpy()
        return result
