"""What a Ray of a run's own is made of."""

from __future__ import annotations

import psutil
import pytest
import ray

from lrm_safety.settings import ClusterSettings
from lrm_safety.workers.groups import join_ray


def test_it_keeps_no_process_ready_for_tasks_of_which_a_run_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    join_ray(ClusterSettings(local_num_cpus=2))

    @ray.remote(num_cpus=0, runtime_env={"env_vars": {"OF_THIS_ACTOR": "1"}})
    class Actor:
        def ready(self) -> bool:
            return True

    try:
        actor = Actor.remote()
        assert ray.get(actor.ready.remote(), timeout=120)  # by when what is kept ready has come too
        found = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
    finally:
        ray.shutdown()
    assert any("raylet" in one for one in found)
    assert not [one for one in found if "ray::IDLE" in one], found
