"""The part of the CUDA path that needs no GPU: what each engine is told."""

from __future__ import annotations

from typing import Any

from lrm_safety.weight_sync.cuda import EngineClient


class Recorder:
    """An EngineCall that notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[tuple[Any, ...]]]] = []

    def __call__(self, method: str, arguments: list[tuple[Any, ...]]) -> None:
        self.calls.append((method, arguments))


def test_engines_never_claim_the_same_nccl_ranks() -> None:
    recorder = Recorder()
    info = {"rank_offset": 1, "world_size": 7, "master_port": 5}
    EngineClient(recorder, num_engines=3, tensor_parallel_size=2).init_weight_transfer_engine(info)
    ((method, arguments),) = recorder.calls
    assert method == "init_weight_transfer"
    offsets = [argument["rank_offset"] for (argument,) in arguments]
    claimed = [offset + rank for offset in offsets for rank in range(2)]
    assert claimed == [1, 2, 3, 4, 5, 6]  # rank 0 is the sender
    assert all(argument["world_size"] == 7 and argument["master_port"] == 5 for (argument,) in arguments)
    assert info["rank_offset"] == 1


def test_ipc_has_no_ranks() -> None:
    recorder = Recorder()
    EngineClient(recorder, 2, 1).init_weight_transfer_engine({"packed": True})
    assert recorder.calls == [("init_weight_transfer", [({"packed": True},), ({"packed": True},)])]


def test_a_session_reaches_every_engine_and_ends_with_the_version() -> None:
    recorder = Recorder()
    client = EngineClient(recorder, 2, 1)
    client.version = 17
    client.start_weight_update()
    client.update_weights({"names": ["a"]})
    client.finish_weight_update()
    assert recorder.calls == [
        ("start_weight_update", [(), ()]),
        ("update_weights", [({"names": ["a"]},), ({"names": ["a"]},)]),
        ("finish_weight_update", [(17,), (17,)]),
    ]
