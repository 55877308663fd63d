"""The four groups on the miniature, started once for the tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from started_groups import Started

from benchmarks.isolated import Isolated
from lrm_safety.preparation import prepare
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import Groups, join_ray

Isolated.limit_seconds = 240.0  # before pytest's own limit ends the whole process, which says less


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Sampling at another temperature than 1, so that a forgotten one shows; CPUs to spare for further workers."""
    overrides = [
        "experiment=miniature",
        "rollout.temperature=0.8",
        "rollout.stream_chunk_size=8",
        "rollout.max_restarts=10",
        "cluster.local_num_cpus=8",
    ]
    run = prepare(compose_settings(overrides)[0], Path(tmp_path_factory.mktemp("run")))
    with pytest.MonkeyPatch.context() as environment:
        # Actors import classes and reward functions of the tests beside this file.
        environment.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        join_ray(run.settings.cluster, worker_logs=run.settings.tracking.worker_logs)
    with Groups(run.settings) as groups:
        waited_for: list[list[str]] = []
        groups.start(on_start=waited_for.append)
        groups.policy.publish_weights(groups.rollout)
        yield Started(run, groups, waited_for)
