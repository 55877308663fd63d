from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from batches import batch, floats, rollout, token_scores

from lrm_safety.errors import InvariantError
from lrm_safety.invariants import SelfChecks, SkippedSteps
from lrm_safety.preparation import resolved
from lrm_safety.rollouts import TrainingSequence, Update
from lrm_safety.settings import RunSettings
from lrm_safety.settings.compose import compose_settings

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
@pytest.mark.parametrize("gap", [0.0, 0.0074, -0.0074])
def test_within_the_tolerance(check: Callable[[SelfChecks, float], None], gap: float) -> None:
    # The mean over three tokens, of which one is off, may be a quarter of the tolerance: 0.0025.
    strict, notes = checks("strict")
    check(strict, gap)
    assert not notes


@CHECKS
@pytest.mark.parametrize("gap", [0.0076, -0.0076, 0.5, math.nan])
def test_beyond_it(check: Callable[[SelfChecks, float], None], gap: float) -> None:
    strict, _ = checks("strict")
    with pytest.raises(
        InvariantError,
        match=r"mean difference (0\.\d+|nan), 99 % .* largest (0\.0076|0\.5|nan); tolerance 0\.01 for the 99 %, 0\.0025 for the "
        r"mean; run\.invariants=warn",
    ):
        check(strict, gap)
    lenient, notes = checks("warn")
    check(lenient, gap)
    assert len(notes) == 1 and notes[0].startswith("self-check failed: ")


@pytest.mark.parametrize(
    ("share", "size", "fails"),
    [
        (0.005, 0.1, False),  # one token of 200 far off: a note
        (0.02, 0.0101, True),  # two of a hundred beyond the tolerance, though the mean is small
        (0.02, 0.0099, False),
        (1.0, 0.0026, True),  # all of them a little
        (1.0, 0.0024, False),
    ],
)
def test_mean_and_quantile_decide_and_a_single_token_does_not(share: float, size: float, fails: bool) -> None:
    trainer = [np.full(500, -2.0, dtype=np.float32) for _ in range(4)]
    moved = np.concatenate(trainer)
    moved[: int(share * 2000)] += np.float32(size)
    strict, notes = checks("strict")
    if fails:
        with pytest.raises(InvariantError, match="mean difference"):
            strict.probe_agrees([np.split(moved, 4)], trainer, TOLERANCE)
    else:
        for _ in range(2):
            strict.probe_agrees([np.split(moved, 4)], trainer, TOLERANCE)
        assert len(notes) == (size > 4 * TOLERANCE), "said once, not at every sync"
        assert all("single tokens are far off" in note for note in notes)


def test_two_bfloat16_computations_of_the_same_weights_pass_strict_checks() -> None:
    """Differences as measured between bfloat16 and float32 on a real model (mean 0.032, 99 % 0.15, 0.28 the largest of 980
    tokens), 1.4 times as large between two bfloat16 computations, over a rollout batch of 280,000 tokens: the largest is
    far above what any limit on the largest would allow. A weight that is really wrong does not pass."""
    random = np.random.default_rng(0)
    gaps = (1.4 * 0.032 * random.exponential(1.0, 280_000)).astype(np.float32)
    assert gaps.max() > 0.5
    settings = resolved(
        compose_settings(
            [
                "experiment=star1",
                "model=miniature",
                "data=miniature",
                "reward=miniature",
                "model.dtype=bfloat16",
            ]
        )[0]
    )
    notes: list[str] = []
    strict = SelfChecks(settings.run, notes.append)
    limit = settings.rollout.probe_tolerance
    assert settings.run.invariants == "strict" and limit is not None
    zeros = np.zeros(280_000, dtype=np.float32)
    strict.probe_agrees([[gaps]], [zeros], limit)
    with pytest.raises(InvariantError):
        strict.probe_agrees([[4 * gaps]], [zeros], limit)


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
def test_steps_that_are_not_finite_are_skipped_and_so_many_in_a_row_end_the_run(of: str, value: float) -> None:
    well = Update(0.5, 1.0, 1e-6, token_scores([[-1.0]]))
    ill = Update(*((value, 1.0) if of == "loss" else (0.5, value)), 1e-6, token_scores([[-1.0]]))
    notes: list[str] = []
    steps = SkippedSteps(2, notes.append)
    steps.count(0, [well, ill, ill, well, ill])  # a good one between them begins the count anew
    assert [note.partition(":")[0] for note in notes] == ["update 2", "update 3", "update 5"]
    with pytest.raises(InvariantError, match=r"^update 7: loss .* 3 in a row \(trainer\.max_skipped_steps=2\)"):
        steps.count(5, [ill, ill])
    with pytest.raises(InvariantError, match=r"^update 1: .* 1 in a row"):
        SkippedSteps(0, notes.append).count(0, [ill])


def test_the_worst_engine_is_reported() -> None:
    strict, _ = checks("strict")
    trainer = [floats([-1.0, -2.0]), floats([-3.0])]
    near, far = [floats([-1.0, -2.001]), floats([-3.0])], [floats([-1.004, -2.0]), floats([-3.0])]
    gap = strict.probe_agrees([near, far, near], trainer, TOLERANCE)
    assert gap.largest == pytest.approx(0.004, abs=1e-6) and gap.mean == pytest.approx(0.004 / 3, abs=1e-6)


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


@pytest.mark.parametrize(("learns", "ages"), [(2, "-1 to -1"), (5, "2 to 2"), (9, "6 to 6")])
def test_tokens_that_are_too_old_or_too_new(learns: int, ages: str) -> None:
    """Version 3 samples the made batch."""
    of = batch([0.0], [2])
    strict, _ = checks("strict")
    for allowed in (3, 4):
        of.weights_version = allowed
        strict.not_too_old(of, 1)
    of.weights_version = learns
    with pytest.raises(InvariantError, match=f"weights {ages} syncs older .*max_staleness=1"):
        strict.not_too_old(of, 1)
