"""Scores: what every source of them offers, the check that each batch passes, and several sources as one weighted sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, RewardError, calling, is_ours
from ..settings import RewardSettings
from ..settings.components import reward_kind
from .conversation import Conversation

ScoreArray = npt.NDArray[np.float32]


class Scorer(Protocol):
    """One source of scores: a classifier, a python function or an endpoint.

    `counters` grows with every call; whoever reads it clears it. Keys: `overlong` (texts over the token limit),
    `unread` (those of them that got `overlong_score`), `respelled` (texts in which a tag or control token was
    respelled), `retries` (repeated requests).
    """

    counters: Counter[str]

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Raw scores of one view, float32 [n], in the order given. Raises RewardError."""
        ...


def checked_scores(values: Any, num_expected: int, source: str) -> ScoreArray:
    """`values` as float32 [num_expected]; RewardError, opening with `source`, unless they are that many finite
    numbers."""
    try:
        scores = np.asarray(_as_numbers(values), dtype=np.float64)
    # Whatever an array is made of may raise anything when it is read; that is the scorer's to mend.
    except Exception as error:
        raise RewardError(f"{source}: scores must be numbers, one for each conversation ({error})") from error
    if scores.shape != (num_expected,):
        raise RewardError(f"{source}: gave scores of shape {list(scores.shape)} for {num_expected} conversations")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise RewardError(f"{source}: score of conversation {wrong[0]} is {scores[wrong[0]]}, {len(wrong)} such in all")
    with np.errstate(over="ignore"):
        narrowed = scores.astype(np.float32)
    if not np.isfinite(narrowed).all():
        raise RewardError(f"{source}: a score of {np.abs(scores).max():.3g} is too large for float32")
    return narrowed


def _as_numbers(values: Any) -> Any:
    """Tensors as float64 arrays, alone or in a list: numpy reads none that has a gradient, is in bfloat16 or on a GPU."""
    if isinstance(values, list | tuple):
        return [_as_numbers(value) for value in values]
    # Known by what it does, so that the controller's side needs no torch; a jax or numpy array has no `detach`.
    return values.detach().double().cpu().numpy() if hasattr(values, "detach") else values


@dataclass
class Scores:
    """Raw scores of n conversations, in their order, before any penalty or normalisation."""

    total: ScoreArray
    """float32 [n]: sum over models of weight times the sum over views of view weight times score."""
    by_model_and_view: dict[str, ScoreArray]
    """float32 [n] unweighted scores by "model/view"."""
    num_overlong: int
    """Texts over a classifier's max_tokens, counted once for each model and view."""
    num_unread: int
    """Those of them that got `overlong_score`: by the rule overlong=score, or because prompt and answer alone did not
    fit."""
    num_respelled: int
    """Texts in which a tag or a control token of the classifier was broken by a space."""
    num_retries: int
    """Requests to http endpoints that were repeated."""
    prefixes: PrefixScores | None = None
    """The prefixes' scores, where they were asked for."""


@dataclass
class PrefixScores:
    """Raw scores of the prefixes of n responses, for segment rewards, and what they cost."""

    by_response: list[ScoreArray]
    """float32 [num_prefixes] for each response, summed over models and views as `Scores.total`."""
    seconds: float
    """Spent on the prefixes."""
    response_seconds: float
    """Spent on the responses themselves."""


class RewardMixture:
    """Several sources of scores as one."""

    def __init__(self, scorers: Mapping[str, Scorer], settings: RewardSettings) -> None:
        assert list(scorers) == list(settings.models)
        self._scorers = dict(scorers)
        self._settings = settings

    def score(self, conversations: Sequence[Conversation]) -> Scores:
        """Raw scores of every model and view, and their weighted sum. Raises RewardError."""
        total = np.zeros(len(conversations), dtype=np.float64)
        by_model_and_view: dict[str, ScoreArray] = {}
        counters: Counter[str] = Counter()
        for name, model in self._settings.models.items():
            counted = getattr(self._scorers[name], "counters", Counter[str]())  # one of the user's may count nothing
            counted.clear()
            for view, view_weight in model.read_views().items():
                scores = self._score(name, conversations, view)
                by_model_and_view[f"{name}/{view}"] = scores
                total += model.weight * view_weight * scores.astype(np.float64)
            counters.update(counted)
        return Scores(
            total=checked_scores(total, len(conversations), "reward.models (weighted sum)"),
            by_model_and_view=by_model_and_view,
            num_overlong=counters["overlong"],
            num_unread=counters["unread"],
            num_respelled=counters["respelled"],
            num_retries=counters["retries"],
        )

    def score_prefixes(self, prefixes: Sequence[Sequence[Conversation]]) -> list[ScoreArray]:
        """Raw scores of the prefixes of n responses, in one batch: a float32 array for each response.

        A model that reads no prefixes adds 0, and so does the view `answer`, of which a prefix has nothing. What
        happens to a text here is not counted in any `Scores`. Raises RewardError.
        """
        flat = [conversation for of_response in prefixes for conversation in of_response]
        total = np.zeros(len(flat), dtype=np.float64)
        for name, model in self._settings.models.items():
            for view, view_weight in model.prefix_views().items() if flat else ():
                scores = self._score(name, flat, view, ", prefixes")
                total += model.weight * view_weight * scores.astype(np.float64)
        checked = checked_scores(total, len(flat), "reward.models (weighted sum over prefixes)")
        return np.split(checked, np.cumsum([len(of_response) for of_response in prefixes])[:-1])

    def _score(self, name: str, conversations: Sequence[Conversation], view: str, what: str = "") -> ScoreArray:
        """What one model gives; names it where it is somebody else's and raises, or gives anything but numbers."""
        scorer = self._scorers[name]
        source = f"reward.models.{name}.kind={self._settings.models[name].kind}{what}"
        with calling(source, RewardError, of=type(scorer)):
            scores = scorer.score_texts(conversations, view)
        return scores if is_ours(type(scorer)) else checked_scores(scores, len(conversations), source)


def build_scorer(settings: RewardSettings, device: str) -> RewardMixture:
    """Load every reward model onto `device` ("cpu", "cuda"). Raises ConfigError or ModelError for what cannot be
    loaded."""
    if not settings.models:
        raise ConfigError("reward.models: is empty; choose a reward, e.g. reward=skywork_v2_llama_8b")
    scorers = {
        name: reward_kind(model, f"reward.models.{name}").build(name, model, device)
        for name, model in settings.models.items()
    }
    return RewardMixture(scorers, settings)
