"""Why an engine did not start: a mistake of the user's, or something that another attempt may get past."""

from __future__ import annotations

import pytest

from lrm_safety.errors import ConfigError, LrmSafetyError, WorkerError
from lrm_safety.settings import RolloutSettings
from lrm_safety.workers.engine_start import start_failure

FREE = (
    "Free memory on device cuda:0 (11.2/79.25 GiB) on startup is less than desired GPU memory utilization "
    "(0.85, 67.36 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ValueError(FREE), WorkerError, "rollout.gpu_memory_utilization=0.85: lower it"),
        (RuntimeError("Engine core initialization failed. See root cause above."), WorkerError, "tracking.worker_logs"),
        (RuntimeError("CUDA error: out of memory"), WorkerError, "CUDA error: out of memory"),
        (ValueError("max_model_len\n is too large"), ConfigError, "vLLM refuses these settings: max_model_len is too"),
    ],
)
def test_what_a_restart_may_cure_is_told_from_what_it_cannot(
    error: Exception, kind: type[LrmSafetyError], says: str
) -> None:
    failure = start_failure(error, RolloutSettings())
    assert type(failure) is kind and says in str(failure) and "\n" not in str(failure)
