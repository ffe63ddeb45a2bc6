"""Curves and tables of a study of splits, of hand-made series with a known answer."""

import math

import numpy as np

from ai.evaluation.quality_curves import grade_coverage, reliability
from ai.evaluation.quality_models import ENSEMBLE
from ai.evaluation.quality_study import ScoredCase
from ai.evaluation.quality_tables import overviews, rows


def case(
    truth: float, score: float, patient: str = "a", split: str = "new patients, fold 1", family: str = "t2w"
) -> ScoredCase:
    return ScoredCase(
        split,
        "patient",
        "One",
        ENSEMBLE,
        f"{patient}/t2",
        patient,
        "One",
        family,
        "noise",
        1.0,
        "pacsgate",
        truth,
        score,
    )


def test_families_have_rows_of_their_own_and_folds_are_averaged() -> None:
    good = [case(0.9, 0.9), case(0.3, 0.3)]
    bad = [case(0.9, 0.3, split="new patients, fold 2"), case(0.3, 0.9, split="new patients, fold 2")]
    one_class = [case(0.9, 0.9, family="dwi")]
    table = rows([*good, *bad, *one_class])
    assert [(row.split, row.family, row.area_under_roc.value) for row in table] == [
        ("new patients, fold 1", "t2w", 1.0),
        ("new patients, fold 2", "t2w", 0.0),
        ("new patients, fold 1", "dwi", None),
    ]
    (overview,) = overviews(table)
    assert (overview.tests, overview.mean_area, overview.worst_area) == (2, 0.5, 0.0)


def test_a_score_that_is_the_truth_has_no_wrong_grade() -> None:
    truths = np.linspace(0.01, 0.99, 50).tolist()
    assert grade_coverage([case(truth, truth) for truth in truths]).area == 0
    reversed_scores = grade_coverage([case(truth, 1 - truth) for truth in truths])
    assert reversed_scores.risk[-1] > 0.5


def test_probabilities_come_from_the_other_patients() -> None:
    rng = np.random.default_rng(0)
    told = [case(truth, truth, f"p{n % 5}") for n, truth in enumerate(rng.random(200).tolist())]
    agreeing = reliability(told)
    upside_down = reliability(
        [*told, *(case(1 - truth, truth, "odd") for truth in np.linspace(0.05, 0.95, 30).tolist())]
    )
    assert agreeing is not None
    assert upside_down is not None
    assert agreeing.brier is not None
    assert upside_down.brier is not None
    assert agreeing.brier < 0.05
    assert upside_down.brier > agreeing.brier + 0.05, "the odd patient cannot have been calibrated on itself"
    assert sum(one.series for one in agreeing.bins) == 200
    assert all(math.isfinite(one.observed.value or 0.0) for one in agreeing.bins)


def test_without_both_classes_among_the_others_there_is_no_probability() -> None:
    assert reliability([case(0.9, 0.9, "a"), case(0.3, 0.3, "b")]) is None
    assert reliability([]) is None
