"""Statistics in closed form: intervals, bootstrap over patients, discrimination, calibration, agreement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ai.evaluation.statistics import (
    Estimate,
    area_under_roc,
    brier_score,
    dice,
    expected_calibration_error,
    intersection_over_union,
    mean_over_patients,
    over_patients,
    proportion,
    quadratic_kappa,
    rank_correlation,
    ranked_probability_score,
    ratio_over_patients,
    rises,
    risk_coverage,
    sensitivity_at_review_rate,
)

Z = 1.959963984540054


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_limits_solve_the_score_equation(counts: tuple[int, int]) -> None:
    successes, studies = counts
    estimate = proportion(successes, studies)
    for limit in (estimate.low, estimate.high):
        # Where the observed share lies exactly z standard errors of the limit away from the limit; clipped at 0 and 1.
        distance = (estimate.value - limit) ** 2
        assert distance == pytest.approx(Z**2 * limit * (1 - limit) / studies, abs=1e-9)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_ten_of_ten_is_not_certain() -> None:
    assert proportion(10, 10).low == pytest.approx(10 / (10 + Z**2))
    assert proportion(0, 10).high == pytest.approx(Z**2 / (10 + Z**2))


def test_no_study_gives_no_figure_and_impossible_counts_are_refused() -> None:
    assert proportion(0, 0).value is None
    assert mean_over_patients([]).value is None
    assert ratio_over_patients([0, 0], [0, 0]).value is None
    for successes, studies in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no proportion"):
            proportion(successes, studies)


def test_bootstrap_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 200)
    estimate = mean_over_patients(values.tolist())
    error = values.std() / np.sqrt(values.size)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - Z * error, abs=0.2 * error)
    assert estimate.high == pytest.approx(values.mean() + Z * error, abs=0.2 * error)


def test_ratio_weighs_lesions_not_patients() -> None:
    estimate = ratio_over_patients([3, 0], [3, 1])
    assert estimate.value == 0.75
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    assert estimate == ratio_over_patients([3, 0], [3, 1])


def test_patients_who_all_agree_get_no_interval() -> None:
    assert ratio_over_patients([1, 1, 1], [1, 1, 1]).low is None
    assert mean_over_patients([0.8]).low is None
    assert str(mean_over_patients([0.8])) == "0.80, n = 1"


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_overlap_of_intervals(one: int, other: int, start: int) -> None:
    line = np.arange(40)
    first, second = line < one, (line >= start) & (line < start + other)
    shared = max(0, min(one, start + other) - start)
    assert intersection_over_union(first, second) == pytest.approx(shared / max(1, one + other - shared))
    assert dice(first, second) == pytest.approx(2 * shared / (one + other) if one + other else 1.0)


def test_rises_are_counted_against_the_one_before() -> None:
    assert rises([1.0, 0.5, 0.51, 0.9, None, 0.2], 0.02) == pytest.approx([0.39])
    assert rises([0.9, 0.4, 0.1], 0.0) == []
    assert rises([None, None], 0.0) == []


CASES = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40)


@given(CASES)
def test_area_under_roc_is_scikit_learns(cases: list[tuple[bool, int]]) -> None:
    bad, risk = zip(*cases, strict=True)
    if len(set(bad)) < 2:
        assert area_under_roc(bad, risk) is None
        return
    area = area_under_roc(bad, risk)
    assert area == pytest.approx(roc_auc_score(bad, risk))
    assert area_under_roc(bad, [-value for value in risk]) == pytest.approx(1 - area)


@given(CASES)
def test_reviewing_everything_finds_all_and_more_review_never_finds_less(cases: list[tuple[bool, int]]) -> None:
    bad, risk = zip(*cases, strict=True)
    if not any(bad):
        assert sensitivity_at_review_rate(bad, risk, 0.1) is None
        return
    found = [sensitivity_at_review_rate(bad, risk, rate) for rate in (0.0, 0.1, 0.5, 1.0)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0.0, 1.0)


def test_sensitivity_at_a_review_rate_by_hand() -> None:
    bad = [True, False, True, False, False, False, False, False, False, False]
    assert sensitivity_at_review_rate(bad, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], 0.1) == 0.5
    assert sensitivity_at_review_rate(bad, [1] * 10, 0.1) == pytest.approx(0.1)
    # Ten ordinary cases for each one graded: the bad ones fit into a tenth of the clinic.
    assert sensitivity_at_review_rate(bad, [9, 7, 8, 6, 5, 4, 3, 2, 1, 0], 0.1, [1, 10, 1] + [10] * 7) == 1.0


def test_bootstrap_over_patients_is_as_wide_as_there_are_patients() -> None:
    """Ten copies of each series add no knowledge: the interval stays, where counting series would shrink it."""
    rng = np.random.default_rng(5)
    bad = rng.random(60) < 0.4
    risk = bad + rng.normal(0, 1, 60)
    once = over_patients(area_under_roc, range(60), bad, risk, resamples=400)
    copied = over_patients(area_under_roc, np.repeat(range(60), 10).tolist(), np.repeat(bad, 10), np.repeat(risk, 10))
    assert once.studies == copied.studies == 60
    assert copied.value == pytest.approx(once.value)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.15)
    assert once.low < once.value < once.high


def test_bootstrap_gives_no_interval_where_it_would_show_no_spread() -> None:
    assert over_patients(area_under_roc, [], [], []).value is None
    assert over_patients(area_under_roc, [1, 1], [True, False], [2, 1]) == Estimate(1.0, 1)
    assert over_patients(area_under_roc, [1, 2, 3, 4], [1, 1, 0, 0], [4, 3, 2, 1]) == Estimate(1.0, 4)


def test_brier_and_calibration_error_in_closed_form() -> None:
    bad, p = [1, 0, 1, 0], [0.5, 0.5, 0.9, 0.1]
    assert brier_score(bad, p) == pytest.approx((0.25 + 0.25 + 0.01 + 0.01) / 4)
    assert expected_calibration_error(bad, p) == pytest.approx((0.0 + 0.1 + 0.1) / 4)
    assert brier_score(bad, p, [0, 0, 1, 1]) == pytest.approx(0.01)
    assert expected_calibration_error([1, 1], [0.0, 1.0], [3, 1]) == pytest.approx(0.75)
    assert brier_score([], []) is None
    assert expected_calibration_error([], []) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=30))
def test_two_grades_make_the_ranked_probability_score_the_brier_score(cases: list[tuple[bool, float]]) -> None:
    bad, p = zip(*cases, strict=True)
    ranked = ranked_probability_score(bad, [[1 - value, value] for value in p])
    assert ranked == pytest.approx(brier_score(bad, p), abs=1e-12)


def test_a_far_miss_ranks_worse_than_a_near_one() -> None:
    certain = [[0, 1, 0], [0, 0, 1]]
    assert ranked_probability_score([0, 0], certain[:1] * 2) == 0.5
    assert ranked_probability_score([0, 0], certain[1:] * 2) == 1.0
    assert ranked_probability_score([1, 2], certain) == 0.0
    assert ranked_probability_score([], np.zeros((0, 3))) is None


def test_kappa_and_rank_correlation() -> None:
    assert quadratic_kappa([1, 2, 3], [1, 2, 3]) == 1.0
    assert quadratic_kappa([1, 3, 1, 3], [3, 1, 3, 1]) == -1.0
    assert quadratic_kappa([2, 2], [2, 2]) is None
    assert rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1.0)
    assert rank_correlation([1, 1], [1, 2]) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_risk_at_full_coverage_is_the_mean_loss_in_any_order(cases: list[tuple[float, int]]) -> None:
    losses, confidence = zip(*cases, strict=True)
    curve = risk_coverage(losses, confidence)
    assert curve.risk[-1] == pytest.approx(np.mean(losses))
    assert curve.coverage[-1] == 1.0
    assert curve.area == pytest.approx(risk_coverage(losses[::-1], confidence[::-1]).area)


def test_confidence_that_knows_the_losses_has_the_least_area() -> None:
    losses = [0.0, 0.0, 1.0, 1.0]
    assert risk_coverage(losses, [4, 3, 2, 1]).area == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert risk_coverage(losses, [1, 2, 3, 4]).area == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    with pytest.raises(ValueError, match="at least one case"):
        risk_coverage([], [])
