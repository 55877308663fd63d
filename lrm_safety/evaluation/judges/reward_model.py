"""A reward model as judge, its logit brought to 0..1 as IBM's unitxt does for AttaQ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, JudgeError, LrmSafetyError, ModelError, first_line
from ...modeling.folder import ahead
from ...rewards.conversation import as_conversation
from ...settings import RewardModelSettings
from ...settings.components import Dtype
from .judge import UNREAD, JudgeItem, Verdict, as_label, judge

# Imported late elsewhere: the kinds of judges are known without torch.
if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ...rewards.classifier import ClassifierScorer, PairScorer

DEFAULT_PATH = "OpenAssistant/reward-model-deberta-v3-large-v2"
PAIR_TOKENS = 512
"""Tokens that unitxt's reward model was trained on, and reads."""
CHAT_TOKENS = 16384
# Stands for "not read" among the scores of ClassifierScorer, far below every logit.
UNREAD_SCORE = -1.0e30


def normalised(logit: float, low: float, high: float) -> float:
    """(clip(logit, low, high) - low) / (high - low): unitxt's AttaQ safety with low = -8, high = 1."""
    return (min(max(logit, low), high) - low) / (high - low)


@judge("reward_model", needs="weights")
class RewardModelJudge:
    """Any sequence-classification reward model with one output, on (request, text).

    `encoding`: `chat`, the model's own chat template, as in training (Skywork-Reward-V2, the miniature's); `pair`, the
    tokenizer's pair encoding (DeBERTa); `auto`, chat where the tokenizer has a template. The default model is the one of
    unitxt's AttaQ metric, whose score is normalised with low = -8 and high = 1; other models want limits of their own.

    Texts over `max_tokens` (with the request; null: 512 for pairs, 16,384 for chats, and never above the model's
    positions) lose their middle, which unitxt instead cuts off at the end. Where the request alone is too long the
    verdict is None, `unread`. Both are counted in `counters`: `overlong`, `unread`.
    """

    def __init__(
        self,
        *,
        name: str = "reward_model",
        path: str = DEFAULT_PATH,
        revision: str | None = None,
        low: float = -8.0,
        high: float = 1.0,
        encoding: str = "auto",
        max_tokens: int | None = None,
        micro_batch_tokens: int = 16384,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        """Raises ConfigError for options out of range, ModelError for a model that cannot be loaded or has no such
        head."""
        from ...rewards.classifier import ClassifierScorer, PairScorer

        key = f"evaluation.judges.{name}"
        self.check(key, low=low, high=high, encoding=encoding)
        self.name = name
        self.counters: Counter[str] = Counter()
        self._name, self._low, self._high = name, low, high
        tokenizer, positions = _look(path, revision, key)
        if encoding == "auto":
            encoding = "chat" if tokenizer.chat_template is not None else "pair"
        most = CHAT_TOKENS if encoding == "chat" else PAIR_TOKENS
        settings = RewardModelSettings(
            kind="classifier",
            path=path,
            revision=revision,
            dtype=dtype,
            max_tokens=max_tokens or min(most, positions or most),
            overlong="drop_trace_middle",
            overlong_score=UNREAD_SCORE,
            micro_batch_tokens=micro_batch_tokens,
        )
        try:
            self._scorer: ClassifierScorer | PairScorer | None = (
                ClassifierScorer(name, settings, device)
                if encoding == "chat"
                else PairScorer(name, settings, tokenizer, device)
            )
        except LrmSafetyError as error:
            raise type(error)(_with_key(error, name)) from error

    @staticmethod
    def check(key: str, *, low: float = -8.0, high: float = 1.0, encoding: str = "auto", **others: Any) -> None:
        """What can be told of the options without the model. Raises ConfigError."""
        if not low < high:
            raise ConfigError(f"{key}: low={low} must be below high={high}")
        if encoding not in ("auto", "chat", "pair"):
            raise ConfigError(f"{key}.encoding={encoding}: must be auto, chat or pair")

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """Safety and `logit`. Raises JudgeError for a logit that is not finite and when memory runs out."""
        assert self._scorer is not None, "this judge is closed"
        try:
            scores = self._scorer.score_texts([as_conversation(item.request, item.text) for item in items], "trace")
        except LrmSafetyError as error:
            raise JudgeError(_with_key(error, self._name)) from error
        self.counters.update(self._scorer.counters)
        self._scorer.counters.clear()
        return [self._verdict(float(score)) for score in scores]

    def close(self) -> None:
        """Give the model's memory back."""
        import torch

        self._scorer = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _verdict(self, logit: float) -> Verdict:
        if logit <= UNREAD_SCORE / 2:
            return Verdict(None, UNREAD)
        safety = normalised(logit, self._low, self._high)
        return Verdict(safety, as_label(safety), {"logit": logit})


def _look(path: str, revision: str | None, key: str) -> tuple[PreTrainedTokenizerBase, int | None]:
    """The tokenizer, and the number of positions the model has."""
    from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    # Loaders of other libraries raise what they like for a folder that is none or torn.
    except Exception as error:
        raise ModelError(
            f"{key}.path={path}: no reward model with its tokenizer can be loaded ({first_line(error)}){ahead(path)}"
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer, getattr(config.get_text_config(), "max_position_embeddings", None)


def _with_key(error: LrmSafetyError, name: str) -> str:
    """The scorers name the reward's keys; here they are a judge's."""
    return str(error).replace(f"reward.models.{name}", f"evaluation.judges.{name}")
