"""Reflection measures worked out by hand and by loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.lab.analysis.reflection import (
    ReadResponse,
    by_question,
    count_reflection,
    decile_figures,
    forking_threshold,
    reflection_figures,
)

WAIT, BUT, CLOSE = 7, 9, 3


def read(ids, entropies, num_trace, question="q"):
    return ReadResponse(question, np.array(ids, dtype=np.int32), np.array(entropies, dtype=np.float32), num_trace)


# Trace: 1 WAIT 1 BUT CLOSE; answer: BUT 1. The answer's BUT is no reflection.
FULL = read([1, WAIT, 1, BUT, CLOSE, BUT, 1], [0.5, 2.0, 0.25, 1.0, 0.125, 3.0, 4.0], 5, "full")
PLAIN = read([1, 1, 1, CLOSE, 1], [1.0, 0.5, 0.0, 0.5, 1.0], 4, "plain")
# Cut off right after a reflection token: the distribution after it was never read.
CUT = read([1, WAIT], [0.5, 1.5], 2, "cut")
EMPTY = read([BUT, 1], [1.0, 1.0], 0, "empty")


def test_counts_by_hand():
    one = count_reflection(FULL, {WAIT, BUT}, 0.5)
    assert (one.num_trace_tokens, one.num_answer_tokens, one.num_reflections, one.num_next) == (5, 2, 2, 2)
    assert (one.emit_sum, one.next_sum) == (3.0, 0.375)
    assert (one.trace_sum, one.answer_sum) == (3.875, 7.0)
    assert (one.num_forking, one.num_forking_reflections) == (2, 2), "0.5 is not above 0.5"
    assert count_reflection(FULL, {WAIT}, 1.0).num_reflections == 1
    cut = count_reflection(CUT, {WAIT, BUT}, 0.0)
    assert (cut.num_reflections, cut.emit_sum, cut.num_next, cut.next_sum) == (1, 1.5, 0, 0.0)
    empty = count_reflection(EMPTY, {WAIT, BUT}, 0.0)
    assert (empty.num_reflections, empty.num_trace_tokens) == (0, 0) and all(map(math.isnan, empty.decile_means))


def test_figures_by_hand():
    found = reflection_figures([count_reflection(one, {WAIT, BUT}, 0.5) for one in (FULL, PLAIN, CUT, EMPTY)], seed=0)
    expected = {
        "emit/token_mean": (2.0 + 1.0 + 1.5) / 3,
        "next/token_mean": (0.25 + 0.125) / 2,
        "trace/token_mean": (3.875 + 2.0 + 2.0) / 11,
        "other/token_mean": (0.875 + 2.0 + 0.5) / 8,
        "answer/token_mean": (7.0 + 1.0 + 2.0) / 5,
        "reflections/per_1000_trace_tokens": 3000 / 11,
        "forking/share_of_trace_tokens": (2 + 1 + 1) / 11,
        "forking/share_of_reflections": 1.0,
        "emit/response_mean": (1.5 + 1.5) / 2,
        "emit/response_mean_with_zero": 3.0 / 4,
        "emit/response_sum": 4.5 / 4,
        "next/response_mean": 0.1875,
        "trace/response_mean": (3.875 / 5 + 2.0 / 4 + 2.0 / 2) / 3,
        "reflections/per_response": 3 / 4,
        "reflections/share_of_responses": 2 / 4,
        "length/trace_tokens": 11 / 4,
    }
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(expected)
    assert found["emit/response_mean"].n == 2 and found["emit/response_mean_with_zero"].n == 4


def test_without_any_reflection_its_entropy_has_no_figure_and_its_number_is_zero():
    found = reflection_figures([count_reflection(PLAIN, {WAIT}, 0.5)], seed=0)
    assert not {"emit/token_mean", "next/token_mean", "emit/response_mean", "forking/share_of_reflections"} & set(found)
    assert found["emit/response_sum"].value == found["reflections/per_1000_trace_tokens"].value == 0.0


def test_questions_and_not_responses_are_the_unit():
    again = [read([WAIT, CLOSE], [value, 0.0], 2, "a") for value in (1.0, 3.0)]
    counts = [count_reflection(one, {WAIT}, 9.0) for one in (*again, read([WAIT, CLOSE], [5.0, 0.0], 2, "b"))]
    assert by_question(counts, lambda one: one.emit_sum) == {"a": 2.0, "b": 5.0}
    found = reflection_figures(counts, seed=0)["emit/response_mean"]
    assert (found.value, found.n) == (3.5, 2)


@given(st.integers(1, 47), st.integers(0, 5))
def test_deciles_of_any_length_agree_with_a_loop(num_trace, num_answer):
    entropies = np.random.default_rng(num_trace).random(num_trace + num_answer).astype(np.float32)
    tenths = [[] for _ in range(10)]
    for t in range(num_trace):
        tenths[int(10 * t / num_trace + 1e-9)].append(float(entropies[t]))
    one = count_reflection(read([1] * len(entropies), entropies, num_trace), {WAIT}, 0.0)
    for mine, theirs in zip(one.decile_means, tenths, strict=True):
        assert mine == pytest.approx(sum(theirs) / len(theirs)) if theirs else math.isnan(mine)


def test_decile_figures_leave_out_tenths_that_a_short_trace_lacks():
    long = read(range(20), np.arange(20.0), 20, "long")
    short = read([1, 1], [100.0, 200.0], 2, "short")
    found = decile_figures([count_reflection(one, {WAIT}, 0.0) for one in (long, short)], seed=0)
    assert [figure.value for figure in found] == pytest.approx(
        [50.25, 2.5, 4.5, 6.5, 8.5, 105.25, 12.5, 14.5, 16.5, 18.5]
    )
    assert [figure.n for figure in found] == [2, 1, 1, 1, 1, 2, 1, 1, 1, 1]


def test_forking_threshold_pools_trace_tokens():
    one = read([1] * 11, np.arange(11.0), 10)
    other = read([1] * 12, [*np.arange(10.0, 21.0), 99.0], 11)
    assert forking_threshold([one, other], 80.0) == pytest.approx(16.0)  # of 0..20, answers left out
    share = [count_reflection(each, {WAIT}, 16.0).num_forking for each in (one, other)]
    assert share == [0, 4]
    assert math.isnan(forking_threshold([], 80.0)) and math.isnan(forking_threshold([EMPTY], 80.0))
    assert count_reflection(EMPTY, {WAIT}, math.nan).num_forking == 0
