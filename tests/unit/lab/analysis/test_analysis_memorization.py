"""Memorization measures against brute force and cases worked by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.lab.analysis.memorization import (
    exact_memorization,
    extraction_strength,
    longest_common_subsequence,
    rouge_l,
    rouge_words,
)

words = st.lists(st.sampled_from("abc"), max_size=8)
STOP = 0  # a token that the model never writes here


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_strength_tries_every_prefix(matches):
    smallest = next(k for k in range(len(matches) + 1) if all(matches[k:]))
    assert extraction_strength(matches) == pytest.approx(1 - smallest / len(matches))
    assert extraction_strength(matches) <= exact_memorization(matches) + 1e-12
    assert exact_memorization(matches) == pytest.approx(sum(matches) / len(matches))


def test_strength_by_hand():
    assert extraction_strength([True] * 4) == 1.0
    assert extraction_strength([True, False, True, True]) == 0.5
    assert extraction_strength([True, True, True, False]) == 0.0


def test_strength_is_that_of_real_greedy_decoding(tiny_qwen, reader_of):
    """One teacher-forced pass against decoding from every prefix."""
    reader = reader_of(tiny_qwen)
    prompt = np.array([5, 17, 40], dtype=np.int32)
    (text,) = reader.continue_greedily([prompt], 12, [STOP])
    assert len(text) == 12
    text = text.copy()
    text[[2, 6]] = (text[[2, 6]] + 1) % 90 + 2
    # After a changed token greedy decoding goes elsewhere; from the last change on the text is rewritten as it goes.
    (tail,) = reader.continue_greedily([np.concatenate((prompt, text[:7]))], 5, [STOP])
    text[7:] = tail
    by_decoding = [
        k
        for k in range(len(text))
        if np.array_equal(
            reader.continue_greedily([np.concatenate((prompt, text[:k]))], len(text) - k, [STOP])[0], text[k:]
        )
    ]
    ((_, matches),) = reader.matches([(prompt, text)])
    assert extraction_strength(matches) == pytest.approx(1 - min(by_decoding) / len(text)) == pytest.approx(5 / 12)


@given(words, words)
def test_subsequence_is_that_of_brute_force(first, second):
    shared = {0}
    for size in range(1, len(first) + 1):
        theirs = set(combinations(second, size))
        if any(one in theirs for one in combinations(first, size)):
            shared.add(size)
    assert longest_common_subsequence(first, second) == max(shared)


@given(st.lists(st.integers(0, 9), max_size=150), st.lists(st.integers(0, 9), max_size=150))
def test_subsequence_is_that_of_the_usual_table(first, second):
    row = [0] * (len(second) + 1)
    for item in first:
        previous = row[:]
        for j, other in enumerate(second, start=1):
            row[j] = previous[j - 1] + 1 if item == other else max(previous[j], row[j - 1])
    assert longest_common_subsequence(first, second) == row[-1]


def test_rouge_by_hand():
    # Lin 2004, section 3: "police killed the gunman" against "police kill the gunman" shares three words of four.
    found = rouge_l(["police", "killed", "the", "gunman"], ["police", "kill", "the", "gunman"])
    assert (found.precision, found.recall, found.f_measure) == (0.75, 0.75, 0.75)
    found = rouge_l(["a", "b", "c", "d"], ["x", "a", "y", "c", "z", "q"])
    assert (found.precision, found.recall) == (pytest.approx(2 / 6), 0.5)
    assert found.f_measure == pytest.approx(2 * 2 / (4 + 6))
    for reference, candidate in (([], []), (["a"], []), ([], ["a"]), (["a"], ["b"])):
        assert rouge_l(reference, candidate).f_measure == 0.0


def test_words_are_lower_case_runs_of_letters_and_digits():
    assert rouge_words("Don't stop: x_1 = 3.5!") == ["don", "t", "stop", "x", "1", "3", "5"]
    assert rouge_words("Größe 20 \u6f22\u5b57") == ["größe", "20", "\u6f22\u5b57"]
