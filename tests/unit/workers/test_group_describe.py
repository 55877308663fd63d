"""A failure inside an actor, as the driver reports it. The exceptions are Ray's own, made by hand."""

from __future__ import annotations

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnschedulableError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from lrm_safety.errors import ConfigError, DataError, ModelError, RewardError, WorkerError
from lrm_safety.workers.group import DEATHS, MESSAGE_LENGTH, describe


def failed(cause: Exception) -> Exception:
    """What ray.get raises when a method of an actor raised `cause`."""
    error = RayTaskError("score", "Traceback (most recent call last):\n  line 1\n", cause, proctitle="p", pid=1, ip="1")
    return error.as_instanceof_cause()


def test_a_death_on_one_of_several_nodes_names_the_node() -> None:
    found = str(describe("policy", 1, "update", ActorDiedError(), "gpu3 (10.0.0.3)"))
    assert found.startswith("policy worker 1 on node gpu3 (10.0.0.3) died during `update`: ")


@pytest.mark.parametrize("kind", [ConfigError, DataError, ModelError, RewardError])
def test_our_own_errors_pass_through(kind: type[Exception]) -> None:
    found = describe("reward", 2, "score", failed(kind("reward.models.x.url: is down")))
    assert type(found) is kind and str(found) == "reward.models.x.url: is down"


def test_another_error_becomes_one_line_that_names_the_worker() -> None:
    found = describe("policy", 1, "update", failed(ValueError("first line\n\n  second line\n")))
    assert type(found) is WorkerError
    assert str(found) == "policy worker 1 failed in `update`: ValueError: first line; second line"


def test_a_long_error_is_cut() -> None:
    found = str(describe("policy", 1, "update", failed(ValueError("CUDA out of memory. " * 100))))
    assert "\n" not in found and found.endswith(" ...") and len(found) < MESSAGE_LENGTH + 80


def test_an_error_without_a_message() -> None:
    found = describe("policy", 0, "load", failed(NotImplementedError()))
    assert str(found) == "policy worker 0 failed in `load`: NotImplementedError"


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        RayActorError(),
        OutOfMemoryError("the node ran low on memory"),
        RuntimeEnvSetupError("pip failed"),
        ActorUnschedulableError("the placement group was removed"),
    ],
)
def test_a_death_is_called_one(error: Exception) -> None:
    found = describe("rollout", 3, "generate", error)
    assert type(found) is WorkerError
    assert str(found).startswith("rollout worker 3 died during `generate`: ") and "\n" not in str(found)
    assert len(str(found)) < 500 and isinstance(error, DEATHS)
