"""The queue and the leases of a shared group, without Ray."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.shared_reward import FairQueue, Leases, identity, refusal
from lrm_safety.workers.specs import RewardSpec


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_every_item_is_taken_once_and_nobody_waits_for_more_than_one_of_each_other(users: list[str]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, user in enumerate(users):
        queue.put(user, (user, number))
    taken = [queue.take() for _ in users]
    assert queue.take() is None
    order = [item for item in taken if item is not None]
    assert sorted(order, key=lambda item: item[1]) == list(zip(users, range(len(users)), strict=True))
    for user in set(users):
        numbers = [number for who, number in order if who == user]
        assert numbers == sorted(numbers)
        positions = [position for position, (who, _) in enumerate(order) if who == user]
        gaps = [after - before for before, after in zip([-1, *positions], positions, strict=False)]
        assert max(gaps) <= len(set(users))


def test_who_comes_late_does_not_wait_for_a_large_batch() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put("large", f"large {number}")
    assert queue.take() == "large 0"
    queue.put("small", "small 0")
    assert [queue.take(), queue.take()] == ["large 1", "small 0"]
    assert len(queue.forget("large")) == 98
    assert queue.take() is None


def test_a_lease_runs_out_without_beats() -> None:
    now = 0.0
    leases = Leases(10.0, lambda: now)
    leases.beat("killed")
    leases.beat("alive")
    now = 8.0
    leases.beat("alive")
    assert leases.expire() == []
    now = 10.5
    assert leases.expire() == ["killed"]
    assert len(leases) == 1
    leases.end("alive")
    assert len(leases) == 0


def test_what_comes_with_the_code_is_the_same_in_every_copy_of_the_checkout() -> None:
    told = identity(RewardSpec.of(compose_settings(["experiment=miniature"])[0]))
    assert told["reward.models.miniature.path"] == "package:lrm_safety/miniature/assets/reward"
    assert told["cluster.device"] == "cpu" and len(told["the code of lrm_safety"]) == 12


def test_another_configuration_is_refused_by_its_key() -> None:
    mine, theirs = {"reward.models.rm.path": "a", "cluster.device": "cpu"}, {"reward.models.rm.path": "b"}
    assert refusal("one", mine, mine) is None
    assert refusal("one", mine, theirs) == (
        "reward.shared=one: the group that runs under this name differs: reward.models.rm.path is b there, a here; "
        "cluster.device is absent there, cpu here; choose another name"
    )
