"""Reward models that read a request and a text as a pair of segments, such as OpenAssistant's DeBERTa."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from lrm_safety.errors import ModelError
from lrm_safety.modeling.load import one_attention_kernel
from lrm_safety.rewards.check import refuse_unread
from lrm_safety.rewards.classifier import plan_padded
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.scorer import ScoreArray, checked_scores
from lrm_safety.rewards.shortening import shortened
from lrm_safety.settings import RewardModelSettings


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
        one_attention_kernel()
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                settings.path,
                revision=settings.revision,
                num_labels=1,
                dtype=getattr(torch, settings.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except torch.OutOfMemoryError:
            raise
        # Loaders of other libraries raise what they like for files that they cannot read.
        except Exception as error:
            raise ModelError(f"{source}: cannot load the reward model ({type(error).__name__}: {error})") from error
        if missing := sorted(report["missing_keys"]):
            raise ModelError(f"{source}: is no reward model, or torn: its files lack {', '.join(missing[:3])}")
        refuse_unread(report["unexpected_keys"], model, source)
        self._model = model.to(device).eval()

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
        for micro_batch in plan_padded(lengths, self._settings.micro_batch_tokens):
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
