"""Curves of a study of splits: how far a probability can be trusted, and what is gained by asking only when sure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.evaluation.quality_study import ScoredCase
from ai.evaluation.statistics import (
    Estimate,
    RiskCoverage,
    brier_score,
    expected_calibration_error,
    over_patients,
    risk_coverage,
)
from ai.quality.commissioning import platt_curve
from ai.quality.grades import Grade, grade, grade_table

BINS = 10
RESAMPLES = 500


@dataclass(frozen=True)
class Bin:
    """Series whose probability falls between two tenths: the mean of it, and the share that is non-diagnostic."""

    predicted: float
    observed: Estimate
    series: int


@dataclass(frozen=True)
class Reliability:
    """Probability of being non-diagnostic against what is; each patient by a curve fitted to the other patients."""

    bins: tuple[Bin, ...]
    calibration_error: float | None
    brier: float | None


def reliability(cases: Sequence[ScoredCase]) -> Reliability | None:
    """Reliability of one model's score after the logistic calibration of ``ai.quality.commissioning``.

    None where some patient's others do not have both classes.
    """
    patients = np.array([case.patient for case in cases])
    score = np.array([case.score for case in cases])
    bad = np.array([grade(case.truth, case.family) is Grade.NON_DIAGNOSTIC for case in cases], bool)
    probability = _of_other_patients(patients, score, bad)
    if probability is None:
        return None
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = [_bin(patients[number == one], probability[number == one], bad[number == one]) for one in np.unique(number)]
    error = expected_calibration_error(bad, probability, bins=BINS)
    return Reliability(tuple(bins), error, brier_score(bad, probability))


def _of_other_patients(
    patients: NDArray[np.str_], score: NDArray[np.float64], bad: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Probability by a curve of the other patients, per case."""
    probability = np.zeros(len(score))
    for patient in np.unique(patients):
        own = patients == patient
        if len(set(bad[~own])) < 2:
            return None
        curve = platt_curve(score[~own], bad[~own], np.ones(int((~own).sum())))
        scores, probabilities = zip(*curve, strict=True)
        probability[own] = np.interp(score[own], scores, probabilities)
    return probability if len(score) else None


def _bin(patients: NDArray[np.str_], probability: NDArray[np.float64], bad: NDArray[np.bool_]) -> Bin:
    observed = over_patients(lambda column: float(np.mean(column)), patients.tolist(), bad, resamples=RESAMPLES)
    return Bin(float(probability.mean()), observed, len(bad))


def grade_coverage(cases: Sequence[ScoredCase]) -> RiskCoverage:
    """Share of wrong grades among the series a model is surest of, as ever more are accepted.

    The score is graded as HaarPSI is; a model is the surer the farther its score lies from a cut point. No detector is
    involved. Raises ValueError for no case.
    """
    wrong = [grade(case.score, case.family) is not grade(case.truth, case.family) for case in cases]
    return risk_coverage(wrong, [_distance_to_cut(case) for case in cases])


def _distance_to_cut(case: ScoredCase) -> float:
    cut = grade_table().families[case.family]
    return min(abs(case.score - cut.non_diagnostic_below), abs(case.score - cut.diagnostic_from))
