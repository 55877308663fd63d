"""The reward worker without Ray: loads, scores, and tells its memory."""

from __future__ import annotations

import pytest

from lrm_safety.errors import RewardError
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.settings import ClusterSettings, RewardModelSettings, RewardSettings
from lrm_safety.workers.reward import RewardWorker
from lrm_safety.workers.specs import RewardSpec

FUNCTION = RewardModelSettings(kind="python", function="lrm_safety.rewards.examples:complete_and_brief", weight=3.0)
PREFIX = Conversation("p", "one", "", "<think>\none", "unfinished_trace")
WHOLE = Conversation("p", "one two", "yes", "<think>\none two\n</think>\n\nyes", "complete")


def test_start_score_and_memory() -> None:
    worker = RewardWorker(RewardSpec(RewardSettings(models={"rule": FUNCTION}), ClusterSettings()))
    with pytest.raises(RewardError, match="before start"):
        worker.score([WHOLE])
    worker.start()
    scores = worker.score([WHOLE, WHOLE])
    assert scores.total.tolist() == pytest.approx([3 * 0.998] * 2)
    assert scores.by_model_and_view["rule/full"].tolist() == pytest.approx([0.998] * 2)
    assert scores.prefixes is None
    memory = worker.memory()
    assert 0.01 < memory["rss_gib"] <= memory["rss_peak_gib"] < 100


def test_prefixes_change_no_score_and_tell_their_cost() -> None:
    judge = RewardModelSettings(kind="python", function="lrm_safety.rewards.examples:complete_and_brief", prefixes=True)
    worker = RewardWorker(RewardSpec(RewardSettings(models={"rule": judge}), ClusterSettings()))
    worker.start()
    plain, cut = worker.score([WHOLE, WHOLE]), worker.score([WHOLE, WHOLE], [[PREFIX], []])
    assert cut.total.tolist() == plain.total.tolist()
    assert cut.prefixes is not None
    assert [scores.tolist() for scores in cut.prefixes.by_response] == [worker.score([PREFIX]).total.tolist(), []]
    assert cut.prefixes.by_response[0] != plain.total[0]
    assert 0 < cut.prefixes.seconds < 5 and 0 < cut.prefixes.response_seconds < 5
