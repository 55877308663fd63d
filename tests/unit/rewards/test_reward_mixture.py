"""Weighted sums over models and views, worked out by hand, and the checks before a run starts."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_rewards import TinyModel, conversation

from lrm_safety.errors import ConfigError, ModelError, RewardError
from lrm_safety.rewards.check import check_reward
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.scorer import RewardMixture, ScoreArray, build_scorer
from lrm_safety.settings import RewardModelSettings, RewardSettings

CONVERSATIONS = [conversation("p", "tt", "a"), conversation("p", "t", "aaaa"), conversation("p", "", "aa")]


class LengthScorer:
    """Scores a view by its length times a factor, and counts one event of each kind per call."""

    def __init__(self, factor: float) -> None:
        self.counters: Counter[str] = Counter()
        self._factor = factor

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        self.counters.update(overlong=1, unread=1, respelled=1, retries=1)
        return np.array([self._factor * len(c.view(view)) for c in conversations], dtype=np.float32)


def settings_of(**models: RewardModelSettings) -> RewardSettings:
    return RewardSettings(models=models)


def test_sum_over_models_and_views_by_hand() -> None:
    settings = settings_of(
        one=RewardModelSettings(weight=2.0, views={"trace": 0.5, "answer": -1.0}),
        two=RewardModelSettings(weight=-0.25, views={"answer": 4.0}),
    )
    mixture = RewardMixture({"one": LengthScorer(1.0), "two": LengthScorer(10.0)}, settings)
    scores = mixture.score(CONVERSATIONS)
    # 2 * (0.5 * trace - answer) - 0.25 * (4 * 10 * answer) = trace - 12 * answer
    assert scores.total.tolist() == [2 - 12, 1 - 48, 0 - 24]
    assert scores.total.dtype == np.float32
    assert {name: values.tolist() for name, values in scores.by_model_and_view.items()} == {
        "one/trace": [2, 1, 0],
        "one/answer": [1, 4, 2],
        "two/answer": [10, 40, 20],
    }
    assert (scores.num_overlong, scores.num_unread, scores.num_respelled, scores.num_retries) == (3, 3, 3, 3)
    again = mixture.score(CONVERSATIONS[:1])
    assert again.num_overlong == 3, "counts are of this call alone"
    assert again.total.tolist() == [-10]


def test_view_of_weight_zero_is_not_read() -> None:
    settings = settings_of(one=RewardModelSettings(views={"full": 0.0, "answer": 1.0}))
    scores = RewardMixture({"one": LengthScorer(1.0)}, settings).score(CONVERSATIONS)
    assert scores.total.tolist() == [1, 4, 2]
    assert list(scores.by_model_and_view) == ["one/answer"] and scores.num_overlong == 1
    with pytest.raises(ConfigError, match="every weight is 0"):
        check_reward(settings_of(one=RewardModelSettings(views={"full": 0.0})))


def test_prefixes_are_scored_by_classifiers_in_the_views_that_they_have() -> None:
    settings = settings_of(
        one=RewardModelSettings(weight=2.0, views={"trace": 0.5, "answer": -1.0}),
        rule=RewardModelSettings(kind="python", function="a:b"),
        steps=RewardModelSettings(kind="python", function="a:b", prefixes=True, weight=3.0),
        silent=RewardModelSettings(prefixes=False),
    )
    mixture = RewardMixture({name: LengthScorer(10.0**i) for i, name in enumerate(settings.models)}, settings)
    first, second = (Conversation("p", text, "", f"<think>\n{text}", "unfinished_trace") for text in ("t", "ttt"))
    scores = mixture.score_prefixes([[first, second], [], [first]])
    # 2 * 0.5 * trace + 3 * 100 * full, which is 8 longer than the trace
    assert [one.tolist() for one in scores] == [[1 + 2700, 3 + 3300], [], [2701]]
    assert all(one.dtype == np.float32 for one in scores)
    assert [one.tolist() for one in mixture.score_prefixes([[], []])] == [[], []]
    mixture.score_prefixes([[first]])
    assert mixture.score(CONVERSATIONS).num_overlong == 5, "what happens to a prefix is counted nowhere"


def test_a_prefix_score_that_is_no_number() -> None:
    mixture = RewardMixture({"one": LengthScorer(float("nan"))}, settings_of(one=RewardModelSettings()))
    with pytest.raises(RewardError, match=r"prefixes.* score of conversation 0 is nan"):
        mixture.score_prefixes([CONVERSATIONS])


def test_default_is_the_score_itself() -> None:
    mixture = RewardMixture({"one": LengthScorer(1.0)}, settings_of(one=RewardModelSettings()))
    assert mixture.score(CONVERSATIONS).total.tolist() == [len(c.full) for c in CONVERSATIONS]
    assert mixture.score([]).total.shape == (0,)


def test_sum_too_large_for_float32() -> None:
    mixture = RewardMixture({"one": LengthScorer(1e37)}, settings_of(one=RewardModelSettings(weight=100.0)))
    with pytest.raises(RewardError, match="weighted sum"):
        mixture.score(CONVERSATIONS)


def test_built_from_configuration(llama: TinyModel) -> None:
    classifier = RewardModelSettings(
        path=str(llama.folder), dtype="float32", max_tokens=512, weight=0.5, views={"answer": 2.0, "trace": 1.0}
    )
    function = RewardModelSettings(kind="python", function="lrm_safety.rewards.examples:complete_and_brief")
    settings = settings_of(tiny=classifier, rule=function)
    check_reward(settings)
    scores = build_scorer(settings, "cpu").score(CONVERSATIONS)
    expected = [
        llama.plain_score(c.prompt, c.answer) + 0.5 * llama.plain_score(c.prompt, c.trace) for c in CONVERSATIONS
    ]
    brief = [0.999, 0.999, 1.0]
    np.testing.assert_allclose(scores.total, np.add(expected, brief), atol=2e-4, rtol=0)
    assert list(scores.by_model_and_view) == ["tiny/answer", "tiny/trace", "rule/full"]


def test_no_models() -> None:
    with pytest.raises(ConfigError, match=r"reward\.models: is empty"):
        build_scorer(RewardSettings(), "cpu")


def check(model: RewardModelSettings) -> None:
    check_reward(settings_of(m=model))


def test_check_of_classifier_folders(llama: TinyModel, language_model_folder: Path, tmp_path: Path) -> None:
    check(RewardModelSettings(path=str(llama.folder)))
    check(RewardModelSettings(path="Skywork/Skywork-Reward-V2-Qwen3-0.6B"))
    with pytest.raises(ConfigError, match=r"reward\.models\.m\.path.*no such"):
        check(RewardModelSettings(path=str(tmp_path / "nowhere")))
    with pytest.raises(ModelError, match="LlamaForCausalLM"):
        check(RewardModelSettings(path=str(language_model_folder)))
    folder = shutil.copytree(llama.folder, tmp_path / "model")
    model = RewardModelSettings(path=str(folder))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    with pytest.raises(ModelError, match=r"reward\.models\.m\.path: .*has no model\.safetensors"):
        check(model)
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lacks 1 weight file.*b\.safetensors"):
        check(model)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "a.safetensors").rename(folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        check(model)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        check(model)


def test_check_of_functions_and_urls() -> None:
    function = RewardModelSettings(kind="python", function="lrm_safety.rewards.examples:complete_and_brief")
    check(function)
    with pytest.raises(ConfigError, match=r"reward\.models\.m\.views"):
        check(replace(function, views={"full": 1.0, "trace": 1.0}))
    with pytest.raises(ConfigError, match=r"reward\.models\.m\.function"):
        check(replace(function, function="lrm_safety.rewards.examples:nobody"))
    check(RewardModelSettings(kind="http", url="http://127.0.0.1:8000/score"))
    with pytest.raises(ConfigError, match=r"reward\.models\.m\.url"):
        check(RewardModelSettings(kind="http", url="127.0.0.1"))
