"""Colocated groups take turns on a GPU: who leaves and who comes back in what order, without a GPU.

The groups, the workers and the order are the real ones; in the place of Ray, DeepSpeed's ranks and vLLM's engine stand
objects that note what is asked of them. It shows nothing of memory.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from real_interface import Interface

from lrm_safety.errors import InvariantError
from lrm_safety.settings import LoraSettings, Settings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import Groups
from lrm_safety.workers.policy import PolicyWorker
from lrm_safety.workers.policy_group import PolicyGroup
from lrm_safety.workers.rollout import RolloutWorker
from lrm_safety.workers.rollout_group import RolloutGroup
from lrm_safety.workers.specs import EngineSpec, PolicySpec


@pytest.fixture(scope="module")
def settings() -> Settings:
    return compose_settings(["experiment=star1", "cluster=node_8gpu_colocated", "rollout=vllm_colocated"])[0]


def engine_of(settings: Settings) -> tuple[RolloutWorker, Interface]:
    from vllm import LLM
    from vllm.v1.engine.llm_engine import LLMEngine

    engine = Interface(LLMEngine, has_unfinished_requests=False, step=[])
    llm = Interface(LLM, llm_engine=engine, reset_prefix_cache=True)
    worker = RolloutWorker(EngineSpec.of(settings), 0)
    worker._llm = llm
    return worker, llm


def test_weights_are_dropped_and_sent_anew_before_the_kv_cache_wakes(settings: Settings) -> None:
    """sleep(2) - trainer back - update - trainer out - memory for weights - sync - KV cache, twice."""
    worker, llm = engine_of(settings)
    turns: list[str] = []

    def ask_engine(method: str, *arguments: Any, timeout_seconds: float) -> None:
        getattr(worker, method)(*arguments)
        turns.append(" ".join((method, *(str(tag) for tags in arguments for tag in tags))))

    def ask_ranks(method: str, *arguments: Any, timeout_seconds: float) -> None:
        turns.append(method)
        if method == "send_weights":  # as vLLM's sender does it, through EngineCalls
            worker.start_weight_update()
            worker.update_weights({"names": []})
            worker.finish_weight_update(*arguments)

    groups = object.__new__(Groups)
    groups._takes_turns = True
    groups.policy, groups.rollout = object.__new__(PolicyGroup), object.__new__(RolloutGroup)
    groups.policy._group, groups.policy._limit = SimpleNamespace(call=ask_ranks), 1.0
    groups.policy.weights_version = 0
    groups.rollout._group, groups.rollout._limit = SimpleNamespace(call=ask_engine), 1.0
    groups.rollout._spec = EngineSpec.of(settings)
    groups.rollout._takes_turns, groups.rollout.backend, groups.rollout.connected = True, "ipc", True
    for version in (1, 2):
        groups.begin_training()
        groups.end_training()
        assert groups.publish_weights() == version
    assert turns == 2 * ["sleep", "reload", "offload", "wake weights", "send_weights", "wake kv_cache"]
    one_turn = ["sleep", "wake_up", "start_weight_update", "update_weights", "finish_weight_update"]
    assert llm.calls == 2 * [*one_turn, "reset_prefix_cache", "wake_up"]
    assert [told["level"] for call, told in llm.told if call == "sleep"] == [2, 2]
    assert [told["tags"] for call, told in llm.told if call == "wake_up"] == 2 * [["weights"], ["kv_cache"]]


def test_an_engine_without_weights_does_not_wake_to_generate(settings: Settings) -> None:
    worker, llm = engine_of(settings)
    worker.wake(["weights"])  # one that never slept may be woken
    worker.wake(["kv_cache"])
    worker.sleep()
    worker.wake(["weights"])
    worker.start_weight_update()
    with pytest.raises(InvariantError, match="rollout engine 0 was to generate with weights that its sleep dropped"):
        worker.wake(["kv_cache"])
    assert llm.calls[-1] == "start_weight_update"
    worker.finish_weight_update(1)
    worker.wake(["kv_cache"])
    assert llm.calls[-1] == "wake_up"


def test_weights_that_no_sync_brings_wait_in_host_memory(settings: Settings) -> None:
    """Where syncs bring adapters alone the base's weights come from nowhere else; merged syncs bring them."""
    lora = LoraSettings(rank=8)
    for sync, level in (("auto", 1), ("adapters", 1), ("merged", 2)):
        trainer = replace(settings.trainer, lora=replace(lora, sync=sync))
        worker, llm = engine_of(replace(settings, trainer=trainer))
        worker.sleep()
        assert llm.told[-1] == ("sleep", {**llm.told[-1][1], "level": level})
        worker.wake(["weights"])
        if level == 1:
            worker.wake(["kv_cache"])
            assert [told["tags"] for call, told in llm.told if call == "wake_up"] == [["weights"], ["kv_cache"]]


def test_the_optimiser_waits_in_pinned_buffers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One buffer for each master and each moment, made once; the cache is emptied after the copies have ended."""
    master = torch.nn.Parameter(torch.linspace(-1, 1, 6))
    adam = torch.optim.AdamW([master], lr=0.1, fused=True)
    worker = PolicyWorker(PolicySpec.of(settings), 0, 1)
    worker.optimizer = SimpleNamespace(fp32_partitioned_groups_flat=[master], optimizer=adam)
    asked: list[str] = []
    real_empty = torch.empty

    def empty(*sizes: Any, pin_memory: bool = False, **named: Any) -> torch.Tensor:
        if pin_memory:
            asked.append("pinned")
        return real_empty(*sizes, **named)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("empty_cache"))
    for _ in range(2):
        master.grad = torch.ones(6)
        adam.step()
        before = [master.clone(), *(value.clone() for value in adam.state[master].values())]
        worker.device = torch.device("cuda")
        worker.offload()
        worker.offload()  # which is out already
        worker.device = torch.device("cpu")  # where the copies come back to, here
        worker.reload()
        after = [master, *adam.state[master].values()]
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    buffers = 4 * ["pinned"]  # the master, its step, two moments
    assert asked == [*buffers, "synchronize", "empty_cache", "synchronize", "empty_cache"]
