"""The groups with real models in real actors: what they answer, and what becomes of it when an actor dies."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import ray
import torch
from ray.util import placement_group_table
from started_groups import Started
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from lrm_safety.conversation.response import compose_response
from lrm_safety.errors import ClusterError, RewardError, WorkerError
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rollouts import Rollout
from lrm_safety.scoring import training_sequence
from lrm_safety.settings import RewardModelSettings, RewardSettings
from lrm_safety.workers.group import WorkerGroup
from lrm_safety.workers.placement import Placement, granted, release, reserve
from lrm_safety.workers.policy_group import PolicyGroup
from lrm_safety.workers.prometheus import PrometheusView
from lrm_safety.workers.rollout_group import RolloutGroup
from lrm_safety.workers.scoring_group import RewardGroup
from lrm_safety.workers.specs import RewardSpec

FREE = 8.0 - 2 * 0.5 - 0.4 - 0.3 - 0.3
"""CPUs that the run leaves."""

pytestmark = pytest.mark.timeout(600)


def generate(started: Started, count: int, first_seed: int = 0) -> list[list[Rollout]]:
    return list(started.groups.rollout.generate(started.requests(count, first_seed), started.run.sampling))


def flat(chunks: list[list[Rollout]]) -> list[Rollout]:
    return sorted((rollout for chunk in chunks for rollout in chunk), key=lambda rollout: rollout.request_id)


def kill(worker_class: str) -> None:
    """SIGKILL to the process of the only actor of this class."""
    titles = {
        child.pid: (child.cmdline() or [""])[0]
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
    }
    (pid,) = [pid for pid, title in titles.items() if title.startswith(f"ray::{worker_class}")]
    os.kill(pid, signal.SIGKILL)


def conversations(started: Started, count: int, offset: int = 0) -> list[Conversation]:
    """Prompts of the set with made-up responses of different lengths."""
    made = []
    for i in range(offset, offset + count):
        row = started.run.prompts.rows[i % len(started.run.prompts)]
        trace, answer = f"the user asks: {row.question} . " * (1 + i % 3), "i cannot help with that ."
        made.append(Conversation(row.question, trace, answer, compose_response(trace, answer), status="complete"))
    return made


def test_the_start_says_which_groups_it_still_waits_for(started: Started) -> None:
    first, *later = map(set, started.waited_for)
    assert first == {"policy", "rollout", "reward", "reference"}
    assert [len(left) for left in later] == [3, 2, 1]
    assert all(left < before for before, left in zip((first, *later), later, strict=False))


def test_engines_begin_before_all_others(started: Started) -> None:
    """They take longest to start, and Ray begins no more processes at once than the node has CPUs."""

    def began(_: object) -> float:
        return psutil.Process().create_time()

    times = {name: group.ask(began).values() for name, group in started.groups._groups.items()}
    engines = times.pop("rollout")
    assert max(engines) <= min(chain.from_iterable(times.values()))


def test_every_request_is_answered_once_in_chunks(started: Started) -> None:
    chunks = generate(started, 48)
    assert sorted(rollout.request_id for chunk in chunks for rollout in chunk) == list(range(48))
    assert [len(chunk) for chunk in chunks] == [8] * 6
    version = started.groups.policy.weights_version
    limit = started.run.settings.rollout.max_response_tokens
    for rollout in flat(chunks):
        assert rollout.weights_version == version
        np.testing.assert_array_equal(rollout.prompt_ids, started.run.rendered[rollout.prompt_index])
        assert len(rollout.logprobs) == len(rollout.response_ids) <= limit
        ended = rollout.response_ids[-1] in started.run.sampling.stop_token_ids
        assert ended == (rollout.finish_reason == "stop")
        assert ended or len(rollout.response_ids) == limit
    again, other = flat(generate(started, 48)), flat(generate(started, 48, first_seed=1000))
    assert all(np.array_equal(a.response_ids, b.response_ids) for a, b in zip(flat(chunks), again, strict=True))
    assert any(not np.array_equal(a.response_ids, b.response_ids) for a, b in zip(again, other, strict=True))


def test_trainer_and_engine_agree_on_sampled_tokens(started: Started) -> None:
    rollouts = flat(generate(started, 24))
    scores = started.groups.policy.logprobs([training_sequence(rollout) for rollout in rollouts])
    assert sorted(scores) == list(range(24))
    for rollout in rollouts:
        np.testing.assert_allclose(scores[rollout.request_id].logprobs, rollout.logprobs, atol=1e-3, rtol=0)


def test_the_reference_gives_the_base_models_logprobs(started: Started) -> None:
    rollouts = flat(generate(started, 12))
    assert started.groups.reference is not None
    ticket = started.groups.reference.submit([training_sequence(rollout) for rollout in rollouts])
    scores = {one.index: one for one in started.groups.reference.result(ticket)}
    model = AutoModelForCausalLM.from_pretrained(started.run.settings.model.path, dtype=torch.float32).eval()
    for rollout in rollouts:
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.response_ids])).long()
        with torch.no_grad():
            logits = model(ids[None]).logits[0, len(rollout.prompt_ids) - 1 : -1].double() / 0.8
        expected = torch.log_softmax(logits, -1).gather(1, ids[len(rollout.prompt_ids) :, None])[:, 0]
        np.testing.assert_allclose(scores[rollout.request_id].logprobs, expected.numpy(), atol=1e-4, rtol=0)


def test_engines_hold_what_the_trainer_has_learned(started: Started) -> None:
    policy, rollout = started.groups.policy, started.groups.rollout
    sampled = flat(generate(started, 16))
    probe = [np.concatenate([one.prompt_ids, one.response_ids]) for one in sampled[:6]]
    before = rollout.probe(probe)[0]
    sequences = [
        replace(training_sequence(one), advantages=np.ones(len(one.response_ids), dtype=np.float32)) for one in sampled
    ]
    (update,) = policy.update([sequences], [1e-3], 0.0)
    assert update.gradient_norm > 0
    assert max(abs(a - b).max() for a, b in zip(rollout.probe(probe)[0], before, strict=True)) == 0, "published early"
    version = policy.weights_version
    assert policy.publish_weights(rollout) == version + 1
    assert rollout.weights_versions() == [version + 1]
    after = rollout.probe(probe)[0]
    assert max(abs(a - b).max() for a, b in zip(after, before, strict=True)) > 1e-2
    for engine, trainer in zip(after, policy.probe_scores(probe), strict=True):
        np.testing.assert_allclose(engine, trainer, atol=1e-4, rtol=0)
    assert {one.weights_version for one in flat(generate(started, 4))} == {version + 1}


def test_rewards_equal_the_plain_reward_model(started: Started) -> None:
    asked = conversations(started, 12)
    scores = started.groups.reward.result(started.groups.reward.submit(asked))
    path = started.run.settings.reward.models["miniature"].path
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    for position, one in enumerate(asked):
        turns = [{"role": "user", "content": one.prompt}, {"role": "assistant", "content": one.full}]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=False)
        with torch.no_grad():
            expected = model(ids).logits[0, 0].item()
        assert scores.total[position] == pytest.approx(expected, abs=1e-4)
    np.testing.assert_array_equal(scores.by_model_and_view["miniature/full"], scores.total)
    assert np.ptp(scores.total) > 0.01


@pytest.mark.parametrize("answer", [RolloutGroup.generate, RolloutGroup.generate_from_queue])
def test_a_killed_engine_is_replaced_and_every_prompt_answered_once(started: Started, answer: Any) -> None:
    group, policy = started.groups.rollout, started.groups.policy
    assert policy.weights_version > 0
    replaced = group.replacements.spent
    requests = started.requests(200)
    chunks = []
    for chunk in answer(group, requests, started.run.sampling):
        if not chunks:
            kill("RolloutWorker")
        chunks.append(chunk)
    assert group.replacements.spent == replaced + 1
    assert sorted(rollout.request_id for chunk in chunks for rollout in chunk) == list(range(200))
    assert {rollout.weights_version for chunk in chunks for rollout in chunk} == {policy.weights_version}
    assert group.weights_versions() == [policy.weights_version]
    probe = [np.concatenate([one.prompt_ids, one.response_ids]) for one in flat(chunks)[:4]]
    for engine, trainer in zip(group.probe(probe)[0], policy.probe_scores(probe), strict=True):
        np.testing.assert_allclose(engine, trainer, atol=1e-4, rtol=0)


def test_an_engine_that_died_between_batches_is_replaced_at_the_sync(started: Started) -> None:
    group, policy = started.groups.rollout, started.groups.policy
    replaced = group.replacements.spent
    kill("RolloutWorker")
    version = policy.publish_weights(group)
    assert group.replacements.spent == replaced + 1
    assert group.weights_versions() == [version]
    assert {rollout.weights_version for rollout in flat(generate(started, 8))} == {version}


def test_an_engine_that_dies_at_the_probe_is_replaced_and_probed(started: Started) -> None:
    """It holds the weights that were published last, and so the same log-probs."""
    group = started.groups.rollout
    probe = [np.concatenate([one.prompt_ids, one.response_ids]) for one in flat(generate(started, 4))]
    (before,), replaced = group.probe(probe), group.replacements.spent
    kill("RolloutWorker")
    (after,) = group.probe(probe)
    assert group.replacements.spent == replaced + 1
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_killed_reward_worker_is_replaced_and_the_scores_are_the_same(started: Started) -> None:
    group = started.groups.reward
    parts = [conversations(started, 64, offset) for offset in range(0, 384, 64)]
    expected = [group.result(ticket).total for ticket in [group.submit(part) for part in parts]]
    replaced = group.replacements.spent
    tickets = [group.submit(part) for part in parts]
    kill("RewardWorker")
    for ticket, scores in zip(tickets, expected, strict=True):
        np.testing.assert_array_equal(group.result(ticket).total, scores)
    assert group.replacements.spent == replaced + 1


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        ("divides_by_zero", "raised ZeroDivisionError: division by zero (tests/integration/broken_rewards.py:9)"),
        ("scores_too_few", "gave scores of shape [2] for 3 conversations"),
    ],
)
def test_a_failing_reward_function_is_named_with_its_cause(started: Started, function: str, cause: str) -> None:
    model = RewardModelSettings(kind="python", function=f"broken_rewards:{function}")
    settings = replace(started.run.settings, reward=RewardSettings(models={"mine": model}))
    placement = reserve(["reward"], settings.cluster)["reward"]
    group = RewardGroup(RewardSpec.of(settings), placement, lambda: None)
    try:
        group.start()
        with pytest.raises(RewardError) as error:
            group.result(group.submit(conversations(started, 3)))
    finally:
        group.end()
        release([placement.placement_group])
    assert str(error.value) == f"reward.models.mine.function=broken_rewards:{function}: {cause}"


class Pair:
    """Two workers that need each other, like trainer ranks, without any model."""

    def __init__(self, index: int) -> None:
        self.index = index

    def succeed(self, value: int) -> int:
        return value * 10 + self.index

    def lose_a_peer(self) -> None:
        """Worker 1 dies; worker 0 notices at once, and reports what it sees."""
        if self.index == 1:
            time.sleep(0.3)
            os._exit(3)
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1234\nmore of the story")

    def fail(self) -> None:
        if self.index == 1:
            raise ValueError("first line\nsecond line")
        time.sleep(3600)

    def sleep(self) -> None:
        if self.index == 0:
            time.sleep(3600)

    def pid(self) -> int:
        return os.getpid()

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)


@pytest.fixture
def pair(started: Started) -> Iterator[WorkerGroup]:
    placement: Placement = reserve(["policy"], started.run.settings.cluster)["policy"]
    group = WorkerGroup("pair", Pair, 2, placement, {"PAIR_VARIABLE": "set"}, lambda index: (index,))
    yield group
    group.end()
    release([placement.placement_group])


def test_results_come_in_order_of_rank(pair: WorkerGroup) -> None:
    assert pair.call_each("succeed", [(7,), (8,)], timeout_seconds=60) == [70, 81]
    assert pair.call("variable", "PAIR_VARIABLE", timeout_seconds=60) == ["set", "set"]


def test_a_death_outranks_the_errors_it_causes(pair: WorkerGroup) -> None:
    pair.call("succeed", 1, timeout_seconds=60)  # both are there: what one that still starts will do is not waited for
    with pytest.raises(WorkerError, match=r"^pair worker 1 died during `lose_a_peer`: ") as error:
        pair.call("lose_a_peer", timeout_seconds=60)
    assert "\n" not in str(error.value) and "Connection closed" not in str(error.value)


def test_a_rank_that_fails_at_what_nobody_waits_for_yet_is_told_of(pair: WorkerGroup) -> None:
    """Worker 0 is at work for an hour: only a look at both tells why."""
    policy = object.__new__(PolicyGroup)
    policy._group = pair
    done = [pair.submit(rank, "succeed", 1) for rank in range(2)]
    ray.get(done)
    policy._begun = [done]
    policy.look()
    assert policy._begun == []
    policy._begun = [[pair.submit(rank, "fail") for rank in range(2)]]
    deadline = time.monotonic() + 300
    with pytest.raises(WorkerError, match=r"^pair worker 1 failed in `logprobs`: ValueError: first line; second line$"):
        while time.monotonic() < deadline:
            policy.look()


def test_a_failure_does_not_wait_for_the_others(pair: WorkerGroup) -> None:
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"^pair worker 1 failed in `fail`: ValueError: first line; second line$"):
        pair.call("fail", timeout_seconds=3000)
    assert time.monotonic() - began < 60


def test_a_dead_worker_has_no_memory_and_hinders_nobody(pair: WorkerGroup) -> None:
    pair.call("succeed", 1, timeout_seconds=60)
    ray.kill(pair.workers[0])
    while pair.is_alive(0, timeout_seconds=5.0):  # Ray kills in the background
        time.sleep(0.1)
    assert pair.call_living("pid").keys() == {1}


def test_workers_of_one_node_meet_on_loopback(pair: WorkerGroup) -> None:
    host, port = pair.meeting_point()
    assert host == "127.0.0.1" and 1024 <= port < 65536
    assert pair.meeting_point({"another node"})[0] == ray.util.get_node_ip_address()


def test_a_reward_worker_that_dies_while_the_policy_trains_costs_nothing(started: Started) -> None:
    groups = started.groups
    replaced = groups.reward.replacements.spent
    kill("RewardWorker")
    assert not any(name.startswith("memory/reward") for name in groups.usage().memory)
    part = conversations(started, 4)
    assert len(groups.reward.result(groups.reward.submit(part)).total) == 4
    assert groups.reward.replacements.spent == replaced + 1


def test_a_silent_worker_is_named_after_the_limit(pair: WorkerGroup) -> None:
    pair.call("succeed", 1, timeout_seconds=60)
    with pytest.raises(WorkerError, match=r"^pair worker \[0\] did not finish `sleep` within 2 seconds$"):
        pair.call("sleep", timeout_seconds=2)


def test_prometheus_reads_the_records_of_a_run_from_rays_agent(started: Started) -> None:
    """The agent asks the processes of its node every ten seconds."""
    PrometheusView("seven").record({"train/loss": 0.625, "reward/score/skywork/answer": -3.5, "kl/k1": math.nan})
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline, ours = time.monotonic() + 60, dict[str, str]()
    while not ours and time.monotonic() < deadline:
        time.sleep(1)
        page = httpx.get(address).text
        ours = dict(re.findall(r'^ray_(lrm_safety_\w+)\{.*run="seven".*\} (\S+)$', page, flags=re.MULTILINE))
        labels = re.search(r'^ray_lrm_safety_reward_score\{.*member="skywork/answer".*\}', page, flags=re.MULTILINE)
    assert {name: float(value) for name, value in ours.items()} == {
        "lrm_safety_train_loss": 0.625,
        "lrm_safety_reward_score": -3.5,
    }
    assert labels


def wait_until_free() -> None:
    """What the run leaves is free: Ray says so a moment after it was given back."""
    deadline = time.monotonic() + 30
    while (now := ray.available_resources().get("CPU", 0.0)) != pytest.approx(FREE) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert now == pytest.approx(FREE)


def test_fewer_workers_start_where_not_all_have_a_place(started: Started, caplog: pytest.LogCaptureFixture) -> None:
    """Of 8 CPUs 6 are free, which three ranks would fill; two engines at least are wanted, so that one rank makes room."""
    ask = {"policy": (3, 1, 2.0), "rollout": (3, 2, 1.0)}
    groups = {
        name: replace(
            getattr(started.run.settings.cluster, name), num_workers=n, min_workers=least, cpus_per_worker=cpus
        )
        for name, (n, least, cpus) in ask.items()
    }
    cluster = replace(started.run.settings.cluster, placement_timeout_seconds=2.0, **groups)
    place = reserve(["policy", "rollout"], cluster)
    try:
        few = granted(cluster, place)
        assert (few.policy.num_workers, few.rollout.num_workers) == (2, 2)
        assert "2 of 3 of policy start (cluster.policy.min_workers), 2 of 3 of rollout" in caplog.text
    finally:
        release([one.placement_group for one in place.values()])


def test_resources_that_no_node_has_are_refused_at_once(started: Started) -> None:
    settings = started.run.settings
    began = time.monotonic()
    for policy, line in (
        ({"cpus_per_worker": 64.0}, r"a worker of policy reserves \{'CPU': 64.0\}, which no node has \(.*: 8 CPU\)"),
        (
            {"num_workers": 9, "cpus_per_worker": 1.0},
            r"there is room for 8 \(.*this would fit: cluster.policy.num_workers=7",
        ),
        ({"node_labels": {"role": "train"}}, r"no node has policy's node_labels role=train \(.*: none\)"),
    ):
        cluster = replace(settings.cluster, policy=replace(settings.cluster.policy, **policy))
        with pytest.raises(ClusterError, match=line):
            reserve(["reward", "policy"], cluster)
    assert time.monotonic() - began < 10 < settings.cluster.placement_timeout_seconds


def test_who_waits_for_resources_can_be_stopped_and_holds_none(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    """One more rank would fit the machine, but not beside the run."""
    policy = replace(started.run.settings.cluster.policy, num_workers=1, cpus_per_worker=7.0)
    wait_until_free()
    began = time.monotonic()

    def stop() -> None:
        assert ray.available_resources()["CPU"] == pytest.approx(FREE)
        if time.monotonic() > began + 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        reserve(["policy"], replace(started.run.settings.cluster, policy=policy), on_wait=stop)
    assert time.monotonic() - began < 8
    assert re.search(
        r"waiting for resources, \d of at most 45 seconds .*: policy 1 x \{'CPU': 7.0\} \(PACK\); the cluster has .*'CPU': 8.0",
        caplog.text,
    )


def test_who_waited_says_when_it_has_its_place(started: Started, caplog: pytest.LogCaptureFixture) -> None:
    settings = started.run.settings.cluster
    cluster = replace(settings, policy=replace(settings.policy, num_workers=1, cpus_per_worker=4.0))
    wait_until_free()
    held, began = [reserve(["policy"], cluster)["policy"].placement_group], time.monotonic()

    def let_go() -> None:
        if held and time.monotonic() > began + 4:
            release([held.pop()])

    place = reserve(["policy"], cluster, on_wait=let_go)
    release([place["policy"].placement_group])
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("waiting for resources, ") and re.fullmatch(
        r"resources granted after \d+ seconds", lines[-1]
    )


def test_resources_that_are_not_free_are_named_and_nothing_stays_reserved(started: Started) -> None:
    settings = started.run.settings
    cluster = replace(
        settings.cluster, placement_timeout_seconds=2.0, policy=replace(settings.cluster.policy, cpus_per_worker=3.5)
    )
    began = time.monotonic()
    with pytest.raises(ClusterError) as error:
        reserve(["reward", "policy"], cluster)
    assert time.monotonic() - began < 20
    line = str(error.value)
    assert "policy 2 x {'CPU': 3.5}" in line and "'CPU': 8.0" in line and re.search(r"free \{'CPU': [\d.]+", line)
    assert "placement_timeout_seconds=2" in line
    assert "; raise cluster.placement_timeout_seconds to wait longer" in line
    states: dict[str, Any] = placement_group_table()
    left = [one["state"] for one in states.values() if one["bundles"] and one["state"] not in ("REMOVED",)]
    assert left == ["CREATED"], "that of the run, and no other"
    wait_until_free()
