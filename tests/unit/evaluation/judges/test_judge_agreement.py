import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.evaluation.judges.agreement import accuracy, confusion, pairwise_agreement
from lrm_safety.evaluation.judges.judge import Verdict, as_label
from lrm_safety.statistics import cohen_kappa


def kappa_of(reference: list[str], judged: list[str]) -> float | None:
    return cohen_kappa(confusion(reference, judged).counts)


def test_kappa_by_hand():
    # 50 items: both yes 20, both no 15, first alone 5, second alone 10. p_o = .7, p_e = .5*.6 + .5*.4 = .5
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert accuracy(first, second) == pytest.approx(0.7)
    assert kappa_of(first, second) == pytest.approx((0.7 - 0.5) / 0.5)


def test_kappa_of_three_classes_by_hand():
    # Rows of the table: (2,1,0), (0,3,1), (1,0,2). n = 10, p_o = .7; rows 3,4,3, columns 3,4,3: p_e = .34
    table = {("a", "a"): 2, ("a", "b"): 1, ("b", "b"): 3, ("b", "c"): 1, ("c", "a"): 1, ("c", "c"): 2}
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    assert kappa_of(first, second) == pytest.approx((0.7 - 0.34) / 0.66)
    result = confusion(first, second)
    assert result.labels == ("a", "b", "c")
    assert result.counts == ((2, 1, 0), (0, 3, 1), (1, 0, 2)) and result.n == 10
    assert confusion(first, second, ("c", "b", "a")).counts == ((2, 0, 1), (1, 3, 0), (0, 1, 2))


def test_where_nothing_is_defined():
    assert accuracy([], []) is None and kappa_of([], []) is None
    assert accuracy(["a", "a"], ["a", "a"]) == 1.0 and kappa_of(["a", "a"], ["a", "a"]) is None
    assert kappa_of(["a", "b"], ["a", "b"]) == 1.0
    assert kappa_of(["a", "b"], ["b", "a"]) == -1.0
    assert kappa_of(["a", "a"], ["a", "b"]) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=60))
def test_kappa_against_a_plain_calculation(pairs):
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    ours, theirs = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    expected = sum(ours[x] / n * theirs[x] / n for x in "abc")
    kappa = kappa_of([a for a, _ in pairs], [b for _, b in pairs])
    if math.isclose(expected, 1.0):
        assert kappa is None
    else:
        assert kappa == pytest.approx((observed - expected) / (1 - expected))
        assert kappa == pytest.approx(kappa_of([b for _, b in pairs], [a for a, _ in pairs]))


def test_pairs_of_judges_leave_missing_verdicts_out():
    def verdicts(*values):
        return [Verdict(value, "") for value in values]

    results = pairwise_agreement(
        {
            "a": verdicts(1.0, 0.5, 0.0, 0.49, None),
            "b": verdicts(0.9, 0.1, 0.2, None, 1.0),
            "c": verdicts(None, None, None, None, None),
        }
    )
    assert [(r.first, r.second) for r in results] == [("a", "b"), ("a", "c"), ("b", "c")]
    # safe/safe, safe/unsafe, unsafe/unsafe: p_o = 2/3, p_e = (2*1 + 1*2) / 9
    assert results[0].n == 3 and results[0].n_without_verdict == 2
    assert results[0].accuracy == pytest.approx(2 / 3)
    assert results[0].kappa == pytest.approx((2 / 3 - 4 / 9) / (5 / 9))
    assert results[1].n == 0 and results[1].n_without_verdict == 5
    assert results[1].accuracy is None and results[1].kappa is None


def test_half_is_safe():
    assert [as_label(x) for x in (0.0, 0.49999, 0.5, 1.0)] == ["unsafe", "unsafe", "safe", "safe"]
