"""The score function: monotone in every concept, fitted to what it is shown, stored and read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.quality.concepts import CONCEPTS
from ai.quality.score import ScoreFunction, averaged, series_score

damages = st.lists(st.floats(0, 1), min_size=1 + len(CONCEPTS), max_size=1 + len(CONCEPTS))
weights = st.lists(st.floats(0, 5), min_size=len(CONCEPTS), max_size=len(CONCEPTS))


@given(damages, weights, st.integers(0, len(CONCEPTS)), st.floats(0, 1))
def test_no_concept_gets_worse_and_the_score_better(
    before: list[float], concept_weights: list[float], which: int, more: float
) -> None:
    score = ScoreFunction(-0.5, 1.0, tuple(concept_weights))
    after = list(before)
    after[which] = max(before[which], more)
    first, second = score(np.array([before, after], np.float32))
    assert second <= first
    assert 0 <= second <= 1


def test_a_fit_finds_what_made_the_damage() -> None:
    rng = np.random.default_rng(0)
    given_damages = rng.random((500, 1 + len(CONCEPTS))).astype(np.float32)
    truth = ScoreFunction(0.3, 0.8, (0.5, *[0.0] * (len(CONCEPTS) - 1)))
    similarity = truth(given_damages).astype(np.float32)
    fitted = ScoreFunction.fit(given_damages, similarity, np.ones(500, np.float32))
    assert np.abs(fitted(given_damages) - similarity).max() < 0.03
    assert min(fitted.concept_weights) >= 0
    assert ScoreFunction.of(fitted.document()) == fitted


def test_the_mean_of_logits_lies_between() -> None:
    one, other = np.array([[0.2]], np.float32), np.array([[0.6]], np.float32)
    assert 0.2 < averaged(one, other)[0, 0] < 0.6
    assert averaged(one, one)[0, 0] == pytest.approx(0.2, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(0, 8), st.floats(0, 1))
def test_no_slice_gets_worse_and_the_series_better(scores: list[float], which: int, lower: float) -> None:
    index = which % len(scores)
    worse = [*scores]
    worse[index] = min(scores[index], lower)
    assert series_score(np.array(worse)) <= series_score(np.array(scores)) + 1e-12


def test_one_ruined_slice_shows() -> None:
    assert series_score(np.array([1, 1, 1, 0.0])) < 0.5 < series_score(np.ones(4))


def test_a_series_without_slices_is_refused() -> None:
    with pytest.raises(ValueError, match="without slices"):
        series_score(np.array([]))
