"""Kinds of rewards, each declared by the function that builds its scorer.

    @reward("python", reads=("function",), check=..., content=...)
    def python(name, settings, device): return FunctionScorer(name, settings)

A kind from elsewhere is the same, named by its import path: `reward.models.NAME.kind: package.module:name`. Scorers are
imported when they are built: the controller knows the kinds without transformers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, RewardError, calling
from ..http_client import check_url
from ..modeling.folder import model_fingerprint, tokenizer_fingerprint
from ..registry import check_named, fingerprint_of, import_function
from ..settings.components import REWARDS, RewardKind, RewardModelSettings, Source
from ..settings.paths import resolve
from .conversation import Conversation
from .scorer import ScoreArray, Scorer, checked_scores


class FunctionScorer:
    """Scores conversations by a python function.

    The function gets a list of conversations and returns one finite number for each, as a list, array or tensor. It
    sees the whole conversation, so the view is only the name under which its scores are logged.
    """

    def __init__(self, name: str, settings: RewardModelSettings) -> None:
        self.counters: Counter[str] = Counter()
        key = f"reward.models.{name}.function"
        self._source = f"{key}={settings.function}"
        self._function = import_function(settings.function or "", key)

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Scores, float32 [n]. Raises RewardError when the function raises, or returns anything but n finite
        numbers."""
        with calling(self._source, RewardError):
            values = self._function(list(conversations))
        return checked_scores(values, len(conversations), self._source)


Build = Callable[[str, RewardModelSettings, str], Scorer]
Check = Callable[[RewardModelSettings, str], None]
Content = Callable[[RewardModelSettings, str], "dict[str, str | None]"]


def reward(
    name: str,
    *,
    reads: tuple[Source, ...] = (),
    check: Check = lambda model, key: None,
    content: Content = lambda model, key: {},
    reads_prefixes: bool = False,
) -> Callable[[Build], RewardKind]:
    """Declare a kind of reward (see `RewardKind`); options of its own stand in `settings.arguments`."""
    check_named(name, "reward")

    def declare(build: Build) -> RewardKind:
        made = RewardKind(name, build, check, content, reads, reads_prefixes)
        return REWARDS.add(name, made) if build.__module__ == __name__ else made

    return declare


def _check_classifier(model: RewardModelSettings, key: str) -> None:
    """Models on the hub are judged when they are loaded."""
    from .check import check_folder

    folder = Path(resolve(model.path or "", f"{key}.path"))
    if folder.exists():
        check_folder(folder, f"{key}.path")


def _classifiers_content(model: RewardModelSettings, key: str) -> dict[str, str | None]:
    path = model.path or ""
    return {
        f"weights of {key}.path": model_fingerprint(path, model.revision, key=f"{key}.path"),
        f"tokenizer of {key}.path": tokenizer_fingerprint(path, model.revision, template=True, key=f"{key}.path"),
    }


@reward("classifier", reads=("path",), check=_check_classifier, content=_classifiers_content, reads_prefixes=True)
def classifier(name: str, settings: RewardModelSettings, device: str) -> Scorer:
    """A sequence-classification model."""
    from .classifier import ClassifierScorer

    return ClassifierScorer(
        name, replace(settings, path=resolve(settings.path or "", f"reward.models.{name}.path")), device
    )


def _check_function(model: RewardModelSettings, key: str) -> None:
    import_function(model.function or "", f"{key}.function")
    if len(model.read_views()) > 1:
        raise ConfigError(f"{key}.views: a python function sees the whole conversation; keep one view")


def _functions_content(model: RewardModelSettings, key: str) -> dict[str, str | None]:
    return {f"file of {key}.function": fingerprint_of(import_function(model.function or "", f"{key}.function"))}


@reward("python", reads=("function",), check=_check_function, content=_functions_content)
def python(name: str, settings: RewardModelSettings, device: str) -> Scorer:
    """A function of the user's."""
    return FunctionScorer(name, settings)


def _check_endpoint(model: RewardModelSettings, key: str) -> None:
    from .http import read_key

    check_url(model.url or "", f"{key}.url")
    read_key(model, key)


@reward("http", reads=("url",), check=_check_endpoint)
def http(name: str, settings: RewardModelSettings, device: str) -> Scorer:
    """A scoring endpoint."""
    from .http import HttpScorer

    return HttpScorer(name, settings)
