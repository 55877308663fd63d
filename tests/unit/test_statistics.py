import itertools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.statistics import (
    Estimate,
    bootstrap_interval,
    effective_size,
    estimate,
    mcnemar_p_value,
    mean_of_independent,
    over_differences,
    over_runs,
    paired_difference,
    pass_at_k,
    question_means,
    unpaired_interval,
    wilson_interval,
)

shares = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=30)


def test_questions_weigh_equally_whatever_their_samples():
    assert question_means([[1, 0, 0, 0], [True, True]]).tolist() == [0.25, 1.0]
    assert estimate(question_means([[1, 0, 0, 0], [True, True]]), seed=0).value == pytest.approx((0.25 + 1.0) / 2)
    assert math.isnan(estimate(question_means([]), seed=0).value)
    with pytest.raises(AssertionError):
        question_means([[1], []])


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_mean_best_of_every_draw(scores, data):
    k = data.draw(st.integers(1, len(scores)))
    best = [max(drawn) for drawn in itertools.combinations(scores, k)]
    assert pass_at_k(scores, k) == pytest.approx(sum(best) / len(best), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 4), (10, 0, 3), (10, 10, 3), (64, 5, 32), (64, 33, 32), (64, 64, 32)])
def test_pass_at_k_is_what_is_published(n, c, k):
    """Chen et al. 2021: 1 - C(n - c, k) / C(n, k), in fractions."""
    published = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k([1] * c + [0] * (n - c), k) == float(published) <= 1.0


def test_no_more_are_drawn_than_there_are():
    for k in (0, 3):
        with pytest.raises(AssertionError, match="cannot be drawn from 2"):
            pass_at_k([1, 0], k)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=9), st.randoms())
def test_question_means_against_a_loop_and_in_any_order(correct, draw):
    expected = [float(Fraction(sum(question), len(question))) for question in correct]
    assert question_means(correct).tolist() == pytest.approx(expected, abs=1e-12)
    order = draw.sample(range(len(correct)), len(correct))
    mixed = [draw.sample(correct[i], len(correct[i])) for i in order]
    assert question_means(mixed).tolist() == pytest.approx([expected[i] for i in order], abs=1e-12)


def test_bootstrap_interval_is_close_to_the_normal_one_on_many_questions():
    values = np.random.default_rng(0).random(2000)
    low, high = bootstrap_interval(values, seed=1)
    half = 1.959964 * values.std() / math.sqrt(values.size)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_interval_against_all_resamples():
    # Three questions have 27 resamples: the quantiles of their means, drawn often enough, are those of all of them.
    values = [0.0, 0.5, 1.0]
    means = sorted(sum(resample) / 3 for resample in itertools.product(values, repeat=3))
    low, high = bootstrap_interval(values, level=0.6, resamples=200_000, seed=0)
    assert low == pytest.approx(means[math.floor(0.2 * 27)], abs=1e-9)
    assert high == pytest.approx(means[math.floor(0.8 * 27)], abs=1e-9)


def test_bootstrap_interval_is_a_function_of_its_seed():
    values = np.random.default_rng(3).random(40)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values.tolist(), seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


def test_bootstrap_memory_is_bounded():
    values = np.random.default_rng(0).random(50_000)
    tracemalloc.start()
    bootstrap_interval(values, resamples=400, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120 * 2**20  # all at once would be 400 x 50,000 x 8 bytes twice over: 305 MiB


@settings(max_examples=50, deadline=None)
@given(shares, st.integers(0, 5))
def test_intervals_stay_in_bounds_and_hold_the_value(values, seed):
    low, high = bootstrap_interval(values, seed=seed, resamples=200)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    figure = estimate(values, seed=seed, resamples=200)
    assert 0 <= figure.low <= figure.high <= 1 and figure.n == len(values)
    assert figure.value == pytest.approx(sum(values) / len(values))
    narrow, wide = (bootstrap_interval(values, seed=seed, resamples=200, level=level) for level in (0.5, 0.99))
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_bootstrap_coverage():
    draw = np.random.default_rng(7)
    truth, covered, num_runs = 0.7, 0, 300
    for seed in range(num_runs):
        low, high = bootstrap_interval(draw.binomial(4, truth, size=100) / 4, resamples=500, seed=seed)
        covered += low <= truth <= high
    # Four standard deviations of 300 draws around 0.95, and a little for what the bootstrap is known to lack.
    assert 0.89 < covered / num_runs <= 1.0


def test_degenerate_intervals():
    assert all(math.isnan(bound) for bound in bootstrap_interval([], seed=0))
    assert bootstrap_interval([0.3], seed=0) == (0.3, 0.3)
    assert bootstrap_interval([1.0] * 10, seed=0) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in wilson_interval(0, 0))
    empty = estimate([], seed=0)
    assert math.isnan(empty.value) and math.isnan(empty.low) and empty.n == 0


def test_all_right_is_not_certainty():
    figure = estimate([1.0] * 10, seed=0)
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert figure.low == pytest.approx(0.7225, abs=1e-4)  # 10 / (10 + 1.96^2)
    assert estimate([0.0], seed=0).high == pytest.approx(1.959964**2 / (1 + 1.959964**2), abs=1e-6)
    assert estimate([0.5] * 10, seed=0).low == pytest.approx(wilson_interval(5, 10)[0])
    for length in (300.0, 1.0, 0.0):  # no share: nothing better than the bootstrap is known
        lengths = estimate([length] * 10, share=False, seed=0)
        assert (lengths.value, lengths.low, lengths.high) == (length, length, length)


# The bounds are the roots p of (share - p)^2 = z^2 p (1 - p) / n, found here by bisection.
@pytest.mark.parametrize(("successes", "n"), [(8, 10), (0, 20), (20, 20), (1, 1000), (2.5, 7)])
def test_wilson_interval_solves_its_equation(successes, n):
    z, share = 1.959963984540054, successes / n

    def beyond(p: float) -> bool:
        return (share - p) ** 2 > z * z * p * (1 - p) / n

    def bisect(outside: float) -> float:
        inside = share
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
        return inside

    low, high = wilson_interval(successes, n)
    assert low == pytest.approx(bisect(0.0), abs=1e-9)
    assert high == pytest.approx(bisect(1.0), abs=1e-9)


def test_wilson_coverage():
    draw = np.random.default_rng(1)
    bounds = [wilson_interval(successes, 20) for successes in range(21)]
    successes = draw.binomial(20, 0.97, size=4000)
    covered = sum(bounds[k][0] <= 0.97 <= bounds[k][1] for k in successes) / 4000
    assert covered > 0.93


def rewrites(draw, num_prompts, size, share, agreement):
    """0 or 1 of each rewrite: of a prompt's rewrites this share copies the prompt's own value, the others are drawn anew."""
    own = draw.random((num_prompts, 1)) < share
    copies = draw.random((num_prompts, size)) < agreement
    values = np.where(copies, own, draw.random((num_prompts, size)) < share).astype(float)
    return values.ravel(), np.repeat(np.arange(num_prompts), size).tolist()


def coverage(truth, figures):
    found = [figure.low <= truth <= figure.high for figure in figures]
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("num_prompts", "size", "share", "agreement"), [(100, 3, 0.7, 0.9), (72, 4, 0.6, 0.8), (300, 3, 0.97, 0.8)]
)
def test_coverage_with_rewrites_of_one_prompt(num_prompts, size, share, agreement):
    """Nominal 95 %. Rows taken for independent cover far less; standard error of a coverage of 0.95 in 500 runs: 0.01."""
    draw = np.random.default_rng(4)
    made = [rewrites(draw, num_prompts, size, share, agreement) for _ in range(500)]
    clustered = coverage(share, [estimate(values, clusters=names, seed=0) for values, names in made])
    as_rows = coverage(share, [estimate(values, seed=0) for values, _ in made])
    assert clustered > 0.92 and as_rows < clustered - 0.06


def test_bootstrap_coverage_with_rewrites_of_one_prompt():
    draw = np.random.default_rng(5)
    made = [rewrites(draw, 60, 3, 0.6, 0.9) for _ in range(200)]
    kept = [bootstrap_interval(values, clusters=names, resamples=300, seed=0) for values, names in made]
    rows = [bootstrap_interval(values, resamples=300, seed=0) for values, _ in made]
    covered, as_rows = (sum(low <= 0.6 <= high for low, high in each) / 200 for each in (kept, rows))
    assert covered > 0.89 and as_rows < covered - 0.06


@pytest.mark.parametrize(("n", "share"), [(198, 0.98), (198, 0.02), (1000, 0.995), (30, 0.9)])
def test_coverage_near_zero_and_one(n, share):
    """The percentile bootstrap covers 0.91 of n = 198, share = 0.98: it is at most as wide as the values that were drawn."""
    draw = np.random.default_rng(6)
    runs = [(draw.random(n) < share).astype(float) for _ in range(1000)]
    assert coverage(share, [estimate(run, seed=0) for run in runs]) > 0.92
    successes = float(runs[0].sum())
    figure = estimate(runs[0], seed=0)
    assert (figure.low, figure.high) == wilson_interval(successes, n)


def test_coverage_of_many_samples_of_few_questions():
    draw = np.random.default_rng(8)
    runs = [draw.binomial(64, draw.beta(0.6, 0.6, size=30)) / 64 for _ in range(500)]
    assert 0.92 < coverage(0.5, [estimate(run, seed=0) for run in runs]) < 0.985


def test_effective_size_by_hand():
    assert effective_size([1.0, 0.0, 0.0, 1.0]) == 4
    # Two clusters of two that agree within: residuals +1 and -1 of p = 1/2; variance (1 + 1) / 4^2 x 2 / 1 = 1/4.
    assert effective_size([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"]) == pytest.approx(0.25 / 0.25)
    assert effective_size([1.0] * 6, list("aabbcc")) == 3, "what never varies is no surer than its clusters are many"
    assert effective_size([0.4, 0.6]) == pytest.approx(0.25 / ((0.01 + 0.01) / 4 * 2))
    assert effective_size([0.3]) == 1


def test_clusters_of_one_are_questions():
    values = np.random.default_rng(3).random(40)
    assert bootstrap_interval(values, clusters=range(40), seed=5) == bootstrap_interval(values, seed=5)
    assert estimate(values, clusters=range(40), seed=5) == estimate(values, seed=5)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 29, 30, 79, 197])
def test_interval_over_runs_is_students_by_its_density(freedom):
    values = [0.0, 1.0] * ((freedom + 1) // 2) + [0.5] * ((freedom + 1) % 2)
    mean, low, high = over_runs(values)
    error = math.sqrt(sum((value - 0.5) ** 2 for value in values) / freedom / (freedom + 1))
    assert mean == pytest.approx(0.5) and mean - low == pytest.approx(high - mean)
    # Simpson's rule over the density from 0 to the quantile: half of 95%.
    width = (high - mean) / error / 20_000
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    density = [scale * (1 + (i * width) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(20_001)]
    area = width / 3 * (density[0] + density[-1] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2]))
    assert area == pytest.approx(0.475, abs=1e-9)


def test_interval_over_runs_by_hand():
    # 97.5 % points of published tables: 2.776 for 4 degrees of freedom.
    values = [0.7, 0.8, 0.9, 0.6, 0.75]
    half = 2.7764451 * math.sqrt(sum((value - 0.75) ** 2 for value in values) / 4) / math.sqrt(5)
    assert over_runs(values) == pytest.approx((0.75, 0.75 - half, 0.75 + half))
    assert over_runs([0.5]) == (0.5, None, None)


def test_interval_of_shares_over_runs_by_hand():
    # mean 0.9, standard error sqrt(0.02 / 2 / 3), t of 2 degrees 4.3026527, by the delta method on the logit scale
    values = [0.8, 0.9, 1.0]
    mean, low, high = over_runs(values, share=True)
    step = 4.3026527 * math.sqrt(0.02 / 2 / 3) / (0.9 * 0.1)
    assert mean == pytest.approx(0.9)
    assert [math.log(end / (1 - end)) for end in (low, high)] == pytest.approx(
        [math.log(9) - step, math.log(9) + step], rel=1e-6
    )
    assert over_runs(values)[2] > 1.0, "Student's own leaves the range here"
    assert over_runs([1.0, 1.0], share=True) == (1.0, 1.0, 1.0) and over_runs([0.5], share=True) == (0.5, None, None)
    assert over_runs([0.25, 0.25], share=True) == (0.25, 0.25, 0.25)
    assert over_runs([0.5, 1.5], share=True) == over_runs([0.5, 1.5]), "what lies outside 0..1 is no share"


def test_interval_of_amounts_over_runs_ends_at_nothing():
    # mean 4, standard error sqrt(8 / 2) = 2, t of 1 degree 12.7062047
    assert over_runs([2.0, 6.0], positive=True) == pytest.approx((4.0, 0.0, 4 + 2 * 12.7062047))
    assert over_runs([2.0, 6.0])[1] < 0, "Student's own leaves the range here"
    assert over_runs([3.0, 3.1], positive=True) == over_runs([3.0, 3.1])
    assert over_runs([3.0], positive=True) == (3.0, None, None)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_interval_of_shares_over_runs_stays_in_their_range(values):
    mean, low, high = over_runs(values, share=True)
    assert 0 <= low <= mean <= high <= 1


@pytest.mark.parametrize("share", [0.9, 0.97, 0.99])
def test_interval_of_shares_over_runs_covers_the_truth(share):
    draw = np.random.default_rng(1)
    runs = [draw.binomial(100, draw.beta(60 * share, 60 * (1 - share), size=5)) / 100 for _ in range(1500)]
    held = sum(low <= share <= high for _, low, high in (over_runs(run, share=True) for run in runs))
    assert 0.925 < held / len(runs) < 0.98


@pytest.mark.parametrize(("num_clusters", "quantile"), [(5, 2.776), (10, 2.262), (30, 2.045), (198, 1.972)])
def test_a_size_that_is_estimated_has_students_quantile(num_clusters, quantile):
    """Half of the clusters 0.4, half 0.6 about: the roots of Wilson's equation with the table's 97.5 % points."""
    values = [0.4, 0.6] * (num_clusters // 2) + [0.5] * (num_clusters % 2)
    size = 0.25 / (sum((value - 0.5) ** 2 for value in values) / num_clusters / (num_clusters - 1))
    root = 0.5 * quantile / math.sqrt(size + quantile**2)  # share 1/2: (1/2 - p)^2 = q^2 p (1 - p) / size
    found = estimate(values, seed=0)
    assert (found.low, found.high) == (pytest.approx(0.5 - root, rel=1e-3), pytest.approx(0.5 + root, rel=1e-3))


def test_mean_of_independent_values_by_hand():
    # half-widths 0.3 and 0.4 below, 0.03 and 0.04 above: roots of 0.25 and of 0.0025, over two
    found = mean_of_independent([(0.5, 0.2, 0.53), (0.7, 0.3, 0.74)])
    assert found == pytest.approx((0.6, 0.6 - 0.5 / 2, 0.6 + 0.05 / 2))


def test_unpaired_interval_by_hand():
    half = 1.959963984540054 * math.sqrt(0.4 * 0.6 / 50 + 0.6 * 0.4 / 40)
    assert unpaired_interval(0.4, 50, 0.6, 40) == pytest.approx((-0.2 - half, -0.2 + half))
    assert unpaired_interval(1.0, 5, 0.0, 5) == (1.0, 1.0)
    assert unpaired_interval(0.8, 4, 0.2, 4) == pytest.approx((0.6 - 1.959963984540054 * math.sqrt(0.08), 1.0))


def test_differences_of_shares_over_runs_stay_within_one():
    half = 12.7062047 * 0.1  # 0.2 and 0.4: mean 0.3, standard error 0.1, t of one degree 12.706
    assert over_differences([-0.2, -0.4], share=True) == pytest.approx((-0.3, -1.0, half - 0.3))
    assert over_differences([0.2, 0.4], share=False) == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_p_values_count_clusters():
    """Six prompts of four rewrites, all better: 2 / 2^6 of the patterns are as extreme, and not 2 / 2^24."""
    ids = [f"{prompt}-{rewrite}" for prompt in range(6) for rewrite in range(4)]
    a, b = dict.fromkeys(ids, 1.0), dict.fromkeys(ids, 0.0)
    clusters = {key: key.partition("-")[0] for key in ids}
    result = paired_difference(a, b, clusters=clusters, seed=0)
    assert (result.test, result.p_value) == ("sign_flip_exact", pytest.approx(2 / 64))
    assert result.num_clusters == 6
    assert paired_difference(a, b, seed=0).p_value == pytest.approx(2 / 2**24)
    assert result.estimate.n == 24


def test_p_values_of_clusters_under_the_null_are_no_smaller_than_they_say():
    draw = np.random.default_rng(2)
    p_values, as_rows = [], []
    for seed in range(200):
        own = draw.integers(2, size=(2, 30, 1)) * np.ones((1, 1, 4))
        a, b = (dict(zip(map(str, range(120)), side.ravel(), strict=True)) for side in own)
        clusters = {str(i): str(i // 4) for i in range(120)}
        p_values.append(paired_difference(a, b, clusters=clusters, seed=seed, resamples=50).p_value)
        as_rows.append(paired_difference(a, b, seed=seed, resamples=50).p_value)
    assert sum(p <= 0.1 for p in p_values) / 200 < 0.1 + 4 * (0.09 / 200) ** 0.5
    assert sum(p <= 0.1 for p in as_rows) / 200 > 0.25


def test_paired_difference_by_hand():
    a = {"1": 1.0, "2": 1.0, "3": 0.0, "4": 1.0, "5": 1.0, "only a": 1.0}
    b = {"5": 1.0, "4": 0.0, "3": 1.0, "2": 0.0, "1": 0.0, "only b": 0.0, "also": 1.0}
    result = paired_difference(a, b, seed=0)
    assert result.estimate.value == pytest.approx((1 + 1 - 1 + 1 + 0) / 5) and result.estimate.n == 5
    assert (result.num_a_higher, result.num_b_higher, result.num_unmatched) == (3, 1, 3)
    # Of 4 fair coins, 3 or more heads or 1 or fewer: 2 x (1 + 4) / 16.
    assert result.test == "mcnemar_exact" and result.p_value == pytest.approx(10 / 16)
    assert -1 <= result.estimate.low <= result.estimate.value <= result.estimate.high <= 1
    turned = paired_difference(b, a, seed=0)
    assert turned.estimate.value == pytest.approx(-result.estimate.value) and turned.p_value == result.p_value


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (0, 1), (3, 9), (20, 20), (700, 500), (900, 900)])
def test_mcnemar_against_the_binomial(only_a, only_b):
    n = only_a + only_b
    fewer = min(only_a, only_b)
    exact = min(Fraction(1), 2 * Fraction(sum(math.comb(n, k) for k in range(fewer + 1)), 2**n))
    assert mcnemar_p_value(only_a, only_b) == pytest.approx(float(exact), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0])] * 2), min_size=1, max_size=8))
def test_exact_sign_flips_against_a_loop(pairs):
    a = {str(i): pair[0] for i, pair in enumerate(pairs)}
    b = {str(i): pair[1] for i, pair in enumerate(pairs)}
    result = paired_difference(a, b, seed=0, resamples=50)
    differences = [Fraction(str(x)) - Fraction(str(y)) for x, y in pairs]
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= abs(sum(differences)) for signs in patterns
    ]
    # On values 0 and 1 the sign-flip test is McNemar's.
    assert result.p_value == pytest.approx(sum(extreme) / len(patterns), abs=1e-12)


def test_sampled_sign_flips_are_near_the_exact_value():
    # Twenty questions of the same size of difference: a fair coin again.
    sizes = [0.5] * 15 + [-0.5] * 5
    a = {str(i): 0.5 + size / 2 for i, size in enumerate(sizes)}
    b = {str(i): 0.5 - size / 2 for i, size in enumerate(sizes)}
    result = paired_difference(a, b, seed=0)
    assert result.test == "sign_flip_sampled"
    assert result.p_value == pytest.approx(mcnemar_p_value(15, 5), abs=0.01)
    assert result == paired_difference(dict(reversed(a.items())), b, seed=0)


def test_p_values_under_the_null_are_no_smaller_than_they_say():
    draw = np.random.default_rng(2)
    p_values = []
    for seed in range(200):
        a, b = (dict(zip(map(str, range(40)), draw.binomial(4, 0.5, 40) / 4, strict=True)) for _ in range(2))
        p_values.append(paired_difference(a, b, seed=seed, resamples=50).p_value)
    assert sum(p <= 0.1 for p in p_values) / 200 < 0.1 + 4 * (0.09 / 200) ** 0.5


def test_paired_difference_without_common_questions_or_differences():
    nothing = paired_difference({"1": 1.0}, {"2": 1.0}, seed=0)
    assert math.isnan(nothing.estimate.value) and math.isnan(nothing.p_value) and nothing.estimate.n == 0
    same = paired_difference({"1": 0.5, "2": 1.0}, {"1": 0.5, "2": 1.0}, seed=0)
    assert same.p_value == 1.0 and same.estimate == Estimate(0.0, 0.0, 0.0, 2)
