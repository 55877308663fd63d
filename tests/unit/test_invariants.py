from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from batches import batch, floats, rollout, token_scores

from lrm_safety.errors import InvariantError
from lrm_safety.invariants import SelfChecks
from lrm_safety.rollouts import TrainingSequence, Update
from lrm_safety.settings import RunSettings

TOLERANCE = 1e-2


def reference(checks: SelfChecks, gap: float) -> None:
    checks.starts_at_reference(
        0, batch([0.0, 0.0], [2, 1], policy=[[-1.0, -1.0], [-2.0]], reference=[[-1.0, -1.0], [-2.0 + gap]])
    )


def ratio(checks: SelfChecks, gap: float) -> None:
    # rho - 1 = gap at the last token of the second response.
    old = [[-1.0], [-1.0, -2.0]]
    sequences = [
        TrainingSequence(one.request_id, one.prompt_ids, one.response_ids, None, floats(old[one.request_id]))
        for one in (rollout(0, 1), rollout(1, 2))
    ]
    scores = token_scores([[-1.0], [-1.0, -2.0 + math.log1p(gap)]])
    checks.ratio_is_one(Update(0.0, 1.0, 1e-6, scores), sequences)


def probe(checks: SelfChecks, gap: float) -> None:
    trainer = [floats([-1.0, -2.0]), floats([-3.0])]
    checks.probe_agrees([trainer, [trainer[0], floats([-3.0 + gap])]], trainer, TOLERANCE)


def checks(mode: str) -> tuple[SelfChecks, list[str]]:
    notes: list[str] = []
    return SelfChecks(RunSettings(invariants=mode, invariant_tolerance=TOLERANCE), notes.append), notes


CHECKS = pytest.mark.parametrize("check", [reference, ratio, probe])


@CHECKS
@pytest.mark.parametrize("gap", [0.0, 0.0099, -0.0099])
def test_within_the_tolerance(check: Callable[[SelfChecks, float], None], gap: float) -> None:
    strict, notes = checks("strict")
    check(strict, gap)
    assert not notes


@CHECKS
@pytest.mark.parametrize("gap", [0.0101, -0.0101, math.nan])
def test_beyond_it(check: Callable[[SelfChecks, float], None], gap: float) -> None:
    strict, _ = checks("strict")
    with pytest.raises(
        InvariantError, match=r"largest difference (0\.0101|nan), tolerance 0\.01; run\.invariants=warn"
    ):
        check(strict, gap)
    lenient, notes = checks("warn")
    check(lenient, gap)
    assert len(notes) == 1 and notes[0].startswith("self-check failed: ")


def test_what_cannot_be_compared_is_not_judged() -> None:
    strict, _ = checks("strict")
    strict.starts_at_reference(0, batch([0.0], [1], policy=[[-1.0]]))
    strict.starts_at_reference(0, batch([0.0], [1], reference=[[-1.0]]))
    strict.starts_at_reference(1, batch([0.0], [1], policy=[[-1.0]], reference=[[-5.0]]))
    one = rollout(0, 1)
    skipped = TrainingSequence(0, one.prompt_ids, one.response_ids)  # no recompute pass: rho is 1 by construction
    strict.ratio_is_one(Update(0.0, 1.0, 1e-6, token_scores([[-5.0]])), [skipped])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("of", ["loss", "gradient"])
@pytest.mark.parametrize("mode", ["strict", "warn"])
def test_a_step_that_is_not_finite_stops_the_run_in_any_case(mode: str, of: str, value: float) -> None:
    well = Update(0.5, 1.0, 1e-6, token_scores([[-1.0]]))
    ill = Update(*((value, 1.0) if of == "loss" else (0.5, value)), 1e-6, token_scores([[-1.0]]))
    SelfChecks.finite(6, [well, well])
    with pytest.raises(InvariantError, match="update 8: loss or gradient is NaN or infinite"):
        checks(mode)[0].finite(6, [well, ill])


def test_the_largest_gap_of_all_engines_is_reported() -> None:
    strict, _ = checks("strict")
    trainer = [floats([-1.0, -2.0]), floats([-3.0])]
    near, far = [floats([-1.0, -2.001]), floats([-3.0])], [floats([-1.004, -2.0]), floats([-3.0])]
    assert strict.probe_agrees([near, far], trainer, TOLERANCE) == pytest.approx(0.004, abs=1e-6)


@pytest.mark.parametrize(("engines", "agrees"), [([4, 4], True), ([4, 3], False), ([5], False)])
def test_versions(engines: list[int], agrees: bool) -> None:
    strict, _ = checks("strict")
    lenient, notes = checks("warn")
    lenient.versions_agree(engines, 4)
    if agrees:
        strict.versions_agree(engines, 4)
        assert not notes
    else:
        with pytest.raises(
            InvariantError, match=rf"versions \[{', '.join(map(str, sorted(set(engines))))}\].*published 4"
        ):
            strict.versions_agree(engines, 4)
        assert len(notes) == 1
