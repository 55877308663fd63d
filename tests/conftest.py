"""What every test shares: a quiet, offline, single-threaded environment, folder markers and two fixtures."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes on a machine that others use says nothing about its subject; speed is measured in benchmarks/.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]

# Set before any test module imports torch, ray or transformers; a value given on the command line wins.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_SILENT": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Two test files run at a time. Ray's workers are nice to others by 15: beside an evaluation, which is not Ray's, a training run
    # would get one part in thirty of a core, and reach no end within a test's time.
    "RAY_worker_niceness": "0",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

FOLDER_MARKERS = ("integration", "end_to_end")


BEGAN = time.monotonic()
MINUTES = "LRM_SAFETY_TEST_MINUTES"
"""Names the minutes after which no test that starts processes begins any more: where a whole run has a limit, as CI's has, a slow
machine is to end in a list of what it did not run instead of in nothing. Unit tests always run."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, before its fixtures are made, what `MINUTES` leaves no time for."""
    minutes = float(os.environ.get(MINUTES, "inf"))
    if any(item.get_closest_marker(name) for name in FOLDER_MARKERS) and time.monotonic() - BEGAN > minutes * 60:
        pytest.skip(f"{MINUTES}={minutes:g} are over on this machine; `make test` runs it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by the folder it lives in, so that `-m integration` needs no decorator."""
    tests = Path(__file__).resolve().parent
    for item in items:
        folder = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        if folder in FOLDER_MARKERS:
            item.add_marker(folder)


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout's folder: the one that holds pyproject.toml and conf/."""
    return REPOSITORY_ROOT


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets named by LRM_SAFETY_DATA; tests that need it skip where it is not set."""
    folder = os.environ.get("LRM_SAFETY_DATA")
    if not folder:
        pytest.skip("set LRM_SAFETY_DATA to the folder of data sets (docs/install.md)")
    path = Path(folder).resolve()
    if not path.is_dir():
        pytest.fail(f"LRM_SAFETY_DATA={folder} is not a folder")
    return path
