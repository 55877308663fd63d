"""Responses on disk: resume after a kill, and folders that belong to something else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_evaluations import SAMPLING, Killed, MadeEngine, plan_of, question

from lrm_safety.conversation.families import PROTOCOLS
from lrm_safety.errors import DataError
from lrm_safety.evaluation.responses import Generated, ResponseStore, ask_key, identity_of
from lrm_safety.files import write_atomically
from lrm_safety.rollouts import GenerationRequest

QUESTIONS = [question(f"q{number}") for number in range(10)]
BATCH_SIZE = 4


def identity(**changed: Any) -> dict[str, Any]:
    usual = {
        "model": "tiny",
        "model_fingerprint": "aa11",
        "dtype": "float32",
        "device": "cpu",
        "protocol": PROTOCOLS["qwen3_thinking"],
        "seed": 0,
        "batch_size": BATCH_SIZE,
    }
    return identity_of(**(usual | changed))


def store_at(folder: Path, **changed: Any) -> ResponseStore:
    return ResponseStore(folder, identity(**changed), changed.get("batch_size", BATCH_SIZE))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def answers(planned: Any, engine: MadeEngine) -> dict[int, Any]:
    """What the engine says to each ask, in one batch."""
    requests = [GenerationRequest(i, i, ask.prompt_ids, ask.seed) for i, ask in enumerate(planned.asks)]
    return {
        one.request_id: Generated(one.response_ids, one.logprobs, one.finish_reason)
        for chunk in engine.generate(requests, SAMPLING)
        for one in chunk
    }


def complete(folder: Path, engine: MadeEngine) -> int:
    """Open, complete, and return how often progress was told."""
    store, planned = store_at(folder), plan_of(QUESTIONS)
    store.open([planned])
    steps: list[None] = []
    store.complete([planned], engine, SAMPLING, lambda *_: steps.append(None))
    return len(steps)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """An evaluation that nothing interrupted: 10 responses in batches of 4, 4 and 2."""
    assert complete(tmp_path / "whole", MadeEngine()) == 10
    return tmp_path / "whole"


def test_every_response_is_kept_as_it_left_the_engine(whole: Path) -> None:
    planned, engine = plan_of(QUESTIONS), MadeEngine()
    expected = answers(planned, engine)
    found = store_at(whole).read(planned)
    assert [request.request_id for request in engine.requests] == list(range(10))
    assert [request.seed for request in engine.requests] == [ask.seed for ask in planned.asks]
    assert len(found) == 10 and {one.finish_reason for one in found} == {"stop", "length"}
    for position, one in enumerate(found):
        assert one.ids.tolist() == expected[position].ids.tolist() and one.ids.dtype == np.int32
        assert one.logprobs.tolist() == expected[position].logprobs.tolist() and one.logprobs.dtype == np.float32
        assert one.finish_reason == expected[position].finish_reason
    assert sorted(files_of(whole / "made")) == ["batch-0000.npz", "batch-0001.npz", "batch-0002.npz", "identity.json"]


@pytest.mark.parametrize("dies_after", [0, 3, 4, 5, 8, 9])
def test_a_killed_evaluation_goes_on_byte_for_byte(whole: Path, tmp_path: Path, dies_after: int) -> None:
    folder, planned = tmp_path / "killed", plan_of(QUESTIONS)
    with pytest.raises(Killed):
        complete(folder, MadeEngine(dies_after=dies_after))
    num_saved = dies_after // 4 * 4  # whole batches alone
    assert store_at(folder).num_missing(planned) == 10 - num_saved
    again = MadeEngine()
    assert complete(folder, again) == 10 - num_saved
    assert [len(request.prompt_ids) for request in again.requests] == [9] * (10 - num_saved)
    assert files_of(folder) == files_of(whole)


def test_a_batch_that_was_torn_while_it_was_written_is_generated_again(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        complete(folder, MadeEngine(dies_after=4))
    torn = folder / "made" / ".batch-0001.npz"
    torn.write_bytes((whole / "made" / "batch-0001.npz").read_bytes()[:100])
    assert complete(folder, MadeEngine()) == 6
    assert files_of(folder) == files_of(whole) and not torn.exists()


def test_nothing_is_generated_twice(whole: Path) -> None:
    engine = MadeEngine()
    assert complete(whole, engine) == 0 and engine.num_batches == 0


@pytest.mark.parametrize("keep", [0, 3, 60, -40])
def test_a_saved_batch_that_was_damaged_since_is_named(whole: Path, keep: int) -> None:
    path = whole / "made" / "batch-0001.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"batch-0001\.npz: cannot be read .*generated again") as refused:
        store_at(whole).read(plan_of(QUESTIONS))
    assert "\n" not in str(refused.value)
    assert store_at(whole).num_missing(plan_of(QUESTIONS)) == 4
    assert complete(whole, MadeEngine()) == 4
    assert len(store_at(whole).read(plan_of(QUESTIONS))) == 10


def test_files_that_changed_places_answer_their_own_prompts(whole: Path) -> None:
    """A response is found by what was asked, wherever it lies."""
    planned, folder = plan_of(QUESTIONS), whole / "made"
    before = [one.ids.tolist() for one in store_at(whole).read(planned)]
    first, second = ((folder / f"batch-000{i}.npz").read_bytes() for i in (0, 1))
    (folder / "batch-0000.npz").write_bytes(second)
    (folder / "batch-0001.npz").write_bytes(first)
    assert [one.ids.tolist() for one in store_at(whole).read(planned)] == before


def test_a_flipped_bit_is_noticed(whole: Path) -> None:
    path = whole / "made" / "batch-0000.npz"
    content = bytearray(path.read_bytes())
    position = content.index(store_at(whole).read(plan_of(QUESTIONS))[0].ids.tobytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"batch-0000\.npz: cannot be read"):
        store_at(whole).read(plan_of(QUESTIONS))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": "other"}, 'model: "tiny" -> "other"'),
        ({"model_fingerprint": "bb22"}, 'model_fingerprint: "aa11" -> "bb22"'),
        ({"dtype": "bfloat16"}, 'dtype: "float32" -> "bfloat16"'),
        ({"device": "cuda"}, 'device: "cpu" -> "cuda"'),
        ({"seed": 7}, "seed: 0 -> 7"),
        ({"batch_size": 8}, "batch_size: 4 -> 8"),
        ({"protocol": PROTOCOLS["deepseek_r1"]}, 'protocol.name: "qwen3_thinking" -> "deepseek_r1"; protocol.source: '),
        (
            {"protocol": replace(PROTOCOLS["qwen3_thinking"], max_response_tokens=100)},
            "protocol.max_response_tokens: 32768 -> 100)",
        ),
    ],
)
def test_a_folder_of_another_evaluation_is_refused(whole: Path, changed: dict[str, Any], told: str) -> None:
    before = files_of(whole)
    with pytest.raises(DataError) as refused:
        store_at(whole, **changed).open([plan_of(QUESTIONS)])
    message = str(refused.value)
    assert message.startswith(f"{whole / 'made'} holds responses of another evaluation ({told}")
    assert message.endswith("choose another run.directory") and "\n" not in message and len(message) < 600
    assert files_of(whole) == before


def test_another_attack_or_benchmark_under_a_name_is_refused(whole: Path) -> None:
    with pytest.raises(DataError, match=r'another evaluation \(attack: null -> "empty_trace"\)'):
        store_at(whole).open([plan_of(QUESTIONS, attack="empty_trace")])


@pytest.mark.parametrize(
    ("planned", "new"),
    [
        (plan_of(QUESTIONS[:9]), 0),
        (plan_of([*QUESTIONS, question("q10"), question("q11")]), 2),
        (plan_of(QUESTIONS[::-1]), 0),
        (plan_of(QUESTIONS, samples=2), 10),
        (plan_of(QUESTIONS, seed=1), 10),
    ],
    ids=["fewer", "more", "another order", "more samples", "other seeds"],
)
def test_only_what_is_new_is_asked(whole: Path, planned: Any, new: int) -> None:
    """A smaller or larger limit of a finished evaluation: what is there is read, the rest is added."""
    before, store, engine = files_of(whole), store_at(whole), MadeEngine()
    store.open([planned])
    assert store.num_missing(planned) == new
    store.complete([planned], engine, SAMPLING, lambda *_: None)
    assert len(engine.requests) == new and store.num_missing(planned) == 0
    assert {name: content for name, content in files_of(whole).items() if name in before} == before
    expected = answers(planned, MadeEngine())
    for position, one in enumerate(store.read(planned)):
        assert one.ids.tolist() == expected[position].ids.tolist()


def test_another_model_is_refused_under_any_benchmarks_name(whole: Path) -> None:
    before = files_of(whole)
    new = plan_of(QUESTIONS, name="new")
    for planned in ([new], [new, plan_of(QUESTIONS)], [plan_of(QUESTIONS), new]):
        with pytest.raises(DataError) as refused:
            store_at(whole, model="other", seed=7).open(planned)
        message = str(refused.value)
        assert message.startswith(
            f"{whole / 'made'} holds responses of another evaluation " + '(model: "tiny" -> "other"; seed: 0 -> 7)'
        )
        assert files_of(whole) == before, "nothing is claimed when something is refused"


def test_what_only_the_earlier_evaluation_had_is_refused_under_any_name(whole: Path) -> None:
    """An adapter: the identity of the model without one has no such key."""
    path = whole / "made" / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"adapter_fingerprint": "cc33"}))
    with pytest.raises(DataError, match=r'another evaluation \(adapter_fingerprint: "cc33" -> \(absent\)\)'):
        store_at(whole).check([plan_of(QUESTIONS, name="new")])


def test_what_one_benchmark_refuses_leaves_the_others_unclaimed(whole: Path) -> None:
    before = files_of(whole)
    with pytest.raises(DataError, match=r"made holds responses of another evaluation \(attack: "):
        store_at(whole).open([plan_of(QUESTIONS, name="another"), plan_of(QUESTIONS, attack="empty_trace")])
    assert files_of(whole) == before and not (whole / "another").exists()


def test_another_benchmark_of_the_same_model_is_taken_in(whole: Path) -> None:
    store = store_at(whole)
    for planned in ([plan_of(QUESTIONS[:3], name="new")], [plan_of(QUESTIONS), plan_of(QUESTIONS[:3], name="new")]):
        store.check(planned)
        store.open(planned)
    assert store.num_missing(plan_of(QUESTIONS)) == 0 and store.num_missing(plan_of(QUESTIONS[:3], name="new")) == 3


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    store_at(tmp_path / "absent").check([plan_of(QUESTIONS)])
    assert not (tmp_path / "absent").exists()


def test_a_damaged_identity_is_named(whole: Path) -> None:
    (whole / "made" / "identity.json").write_text('{"model": ')
    with pytest.raises(DataError, match=r"identity\.json: cannot be read") as refused:
        store_at(whole).open([plan_of(QUESTIONS)])
    assert "\n" not in str(refused.value)


def test_the_identity_says_what_responses_depend_on(whole: Path) -> None:
    held = json.loads((whole / "made" / "identity.json").read_text())
    assert held["protocol"]["top_k"] == 20 and held["protocol"]["max_response_tokens"] == 32768
    assert held["benchmark"] == "made_task" and held["attack"] is None


def test_key_of_an_ask_by_hand() -> None:
    (ask,) = plan_of([question("a")]).asks
    ids = list(b"prompt a")
    expected = hashlib.sha256(
        (8).to_bytes(8, "little")
        + b"".join(one.to_bytes(4, "little") for one in ids)
        + ask.seed.to_bytes(8, "little")
        + bytes(8)
    ).hexdigest()
    assert ask_key(ask) == expected
    assert ask_key(replace(ask, prefill_ids=np.zeros(2, np.int32))) != expected


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, None)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and [one.name for one in tmp_path.iterdir()] == ["kept.json"]
