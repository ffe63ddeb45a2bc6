"""Curves and pooling: bounded, monotone, independent of the order of slices."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.quality.definitions import DEFINITIONS
from ai.quality.scoring import CRITERIA, DEFECTS, Criterion, pooled
from ai.volumes.types import Role

EVERY = sorted({one for criteria in (*CRITERIA.values(), *DEFECTS.values()) for one in criteria}, key=repr)
SCORES = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=40)


@pytest.mark.parametrize("criterion", EVERY, ids=lambda criterion: f"{criterion.metric}-{criterion.curve[0][0]}")
def test_curves_are_monotone_from_best_to_worst(criterion: Criterion) -> None:
    positions, scores = zip(*criterion.curve, strict=True)
    assert all(a < b for a, b in pairwise(positions))
    assert list(scores) in (sorted(scores), sorted(scores, reverse=True))
    assert max(scores) == 1.0
    assert 0.0 <= min(scores) < 0.7
    assert not criterion.per_slice or criterion.metric in DEFINITIONS


def test_every_role_of_a_prostate_study_is_judged_but_scouts() -> None:
    assert set(Role) - set(CRITERIA) == {Role.LOCALIZER, Role.OTHER}


@given(SCORES)
def test_pool_is_bounded_and_blind_to_order(scores: list[float | None]) -> None:
    value = pooled(scores)
    known = [score for score in scores if score is not None]
    if not known:
        assert value is None
        return
    assert value is not None
    assert min(known) - 1e-9 <= value <= max(known) + 1e-9
    assert pooled(scores[::-1]) == value


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.data())
def test_a_worse_slice_never_raises_the_pool(scores: list[float], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(scores) - 1))
    worse = [*scores]
    worse[index] = data.draw(st.floats(0, scores[index]))
    before, after = pooled(scores), pooled(worse)
    assert before is not None
    assert after is not None
    assert after <= before + 1e-12


def test_the_worst_slices_count_as_much_as_the_median() -> None:
    assert pooled([1.0] * 15 + [0.0] * 5) == pytest.approx(0.5)
    assert pooled([0.8] * 20) == pytest.approx(0.8)


def test_a_metric_that_could_not_be_computed_has_no_score() -> None:
    assert EVERY[0].score(None) is None
    assert EVERY[0].score(np.inf) in (0.0, EVERY[0].curve[-1][1])
