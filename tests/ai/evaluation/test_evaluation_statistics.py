"""Statistics in closed form: Wilson's interval, the bootstrap over patients, overlap, rises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.evaluation.statistics import (
    dice,
    intersection_over_union,
    mean_over_patients,
    proportion,
    ratio_over_patients,
    rises,
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
