"""Imports do without the garbage collector, and whoever imports gets it back."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from child_environment import child_environment

from lrm_safety.quick_imports import HELD_VARIABLE, uncollected


def python(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=child_environment() | variables
    )
    return done.stdout.strip()


def test_a_section_that_imports_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_controller_imports_no_class_of_a_model() -> None:
    """Nor what they bring along: a second of every start, in which nothing else runs."""
    code = "import sys, lrm_safety.commands.train; print([n for n in ('transformers.modeling_utils', 'peft') if n in sys.modules])"
    assert python(code) == "[]"


def test_a_workers_process_collects_nothing_before_it_is_released() -> None:
    code = (
        f"import gc, os, lrm_safety.workers as w; print(gc.isenabled(), {HELD_VARIABLE!r} in os.environ); "
        "from lrm_safety.quick_imports import release; release(); print(gc.isenabled(), gc.get_freeze_count() > 1000)"
    )
    # What it starts must not inherit the variable: nothing would release the collector there.
    assert python(code, **{HELD_VARIABLE: "1"}).split() == ["False", "False", "True", "True"]
    # Anywhere else the collector is nobody's business of ours.
    assert python(code).split() == ["True", "False", "True", "False"]
