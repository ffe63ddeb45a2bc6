"""Figures with their uncertainty: proportions, means over patients, discrimination, calibration, agreement, overlap.

Proportions of independent studies: Wilson score interval (J Am Stat Assoc 1927;22:209), which stays honest for few
studies and for 0 or all of them. Everything else: percentile bootstrap over whole patients, because lesions, slices or
series of one patient are not independent (Efron and Tibshirani 1993, chapter 13).

Throughout, ``bad`` is the class that must not be missed and ``risk`` is higher for what is more likely bad; a quality
score is a risk with its sign turned. A figure that a set of cases cannot give (one class only) is None.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, rankdata, spearmanr

CONFIDENCE = 0.95
RESAMPLES = 2000
"""Enough for the second digit of a 95 % limit."""


@dataclass(frozen=True)
class Estimate:
    """A figure, the number of independent studies behind it, and its 95 % interval; None where there was no study."""

    value: float | None
    studies: int
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "no study"
        interval = "" if self.low is None else f" (95 % {self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{interval}, n = {self.studies}"


def proportion(successes: int, studies: int) -> Estimate:
    """Share of independent studies with its Wilson interval.

    Raises:
        ValueError: fewer studies than successes, or a negative count.
    """
    if not 0 <= successes <= studies:
        raise ValueError(f"{successes} of {studies} is no proportion")
    if studies == 0:
        return Estimate(None, 0)
    interval = binomtest(successes, studies).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / studies, studies, float(interval.low), float(interval.high))


def ratio_over_patients(counts: Sequence[float], per: Sequence[float]) -> Estimate:
    """Sum of ``counts`` over sum of ``per``, one entry each per patient, with its bootstrap interval over patients.

    The interval is absent for fewer than two patients and where all patients agree: resampling then shows no spread,
    and an interval of width 0 would claim a certainty nobody has. Resamples without any ``per`` are left out.
    """
    numerators, denominators = np.asarray(counts, float), np.asarray(per, float)
    if denominators.sum() == 0:
        return Estimate(None, 0)
    value = float(numerators.sum() / denominators.sum())
    counted = int((denominators > 0).sum())
    drawn = np.random.default_rng(0).integers(0, len(numerators), (RESAMPLES, len(numerators)))
    below = denominators[drawn].sum(axis=1)
    ratios = numerators[drawn].sum(axis=1)[below > 0] / below[below > 0]
    if counted < 2 or np.ptp(ratios) == 0:
        return Estimate(value, counted)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Estimate(value, counted, float(low), float(high))


def mean_over_patients(values: Sequence[float]) -> Estimate:
    """Mean of one value per patient with its bootstrap interval."""
    return ratio_over_patients(values, np.ones(len(values)).tolist())


def over_patients(
    statistic: Callable[..., float | None],
    patients: Sequence[Any],
    *columns: ArrayLike,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A statistic of several columns, one row per case, with its bootstrap interval over whole patients.

    Args:
        statistic: takes the columns; None where it cannot be computed, and such resamples are left out.
        patients: whose case each row is.
        columns: arrays of one row per case.
        resamples: how many; fewer for a slow statistic.

    Returns:
        The estimate; ``studies`` counts patients. Without interval for one patient, for a resample without spread, and
        where fewer than half of the resamples allow the statistic.
    """
    arrays = [np.asarray(column) for column in columns]
    rows = _rows_by_patient(patients)
    value = statistic(*arrays) if rows else None
    if value is None:
        return Estimate(None, len(rows))
    rng = np.random.default_rng(0)
    values = []
    for _ in range(resamples if len(rows) > 1 else 0):
        drawn = np.concatenate([rows[index] for index in rng.integers(0, len(rows), len(rows))])
        again = statistic(*(array[drawn] for array in arrays))
        if again is not None:
            values.append(again)
    if len(values) * 2 < max(resamples, 1) or np.ptp(values) == 0:
        return Estimate(value, len(rows))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Estimate(value, len(rows), float(low), float(high))


def _rows_by_patient(patients: Sequence[Any]) -> list[NDArray[np.intp]]:
    rows: dict[Any, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    return [np.asarray(own) for own in rows.values()]


def area_under_roc(bad: ArrayLike, risk: ArrayLike) -> float | None:
    """Chance that a bad case has a higher risk than another, ties counted half (Hanley and McNeil, Radiology 1982).

    By ranks: the same figure as scikit-learn's, fast enough for the bootstrap.
    """
    labels = np.asarray(bad, bool)
    positives = int(labels.sum())
    negatives = labels.size - positives
    if positives == 0 or negatives == 0:
        return None
    ranks = rankdata(np.asarray(risk, float))
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float | None:
    """Spearman's rank correlation (SROCC); None where one of the two does not vary."""
    first, second = np.asarray(one, float), np.asarray(other, float)
    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def brier_score(bad: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Mean squared difference of probability and outcome (Brier, Mon Weather Rev 1950); 0 is best."""
    labels, predicted = np.asarray(bad, float), np.asarray(probability, float)
    weight = np.ones(labels.size) if weights is None else np.asarray(weights, float)
    return float(np.average((predicted - labels) ** 2, weights=weight)) if labels.size else None


def expected_calibration_error(
    bad: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None, bins: int = 10
) -> float | None:
    """Mean gap of predicted and observed share over bins of equal width (Naeini et al., AAAI 2015).

    Biased upwards for few cases: a perfectly calibrated probability gives a few hundredths for a hundred cases.
    """
    labels, predicted = np.asarray(bad, float), np.asarray(probability, float)
    if labels.size == 0:
        return None
    weight = np.ones(labels.size) if weights is None else np.asarray(weights, float)
    bin_of = np.minimum((predicted * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weight * (predicted - labels), bins)
    return float(np.abs(gaps).sum() / weight.sum())


def ranked_probability_score(grades: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Mean squared gap of the cumulative probabilities of ordered grades, over K - 1 (Epstein, J Appl Meteorol 1969).

    Args:
        grades: the true grade of each case, 0 to K - 1.
        probabilities: shape (cases, K), rows that sum to 1.

    Returns:
        0 (certain and right) to 1 (certain and as wrong as can be).
    """
    forecast, truth = np.asarray(probabilities, float), np.asarray(grades, int)
    if truth.size == 0:
        return None
    outcome = np.eye(forecast.shape[1])[truth]
    gaps = np.cumsum(forecast - outcome, axis=1)[:, :-1]
    return float((gaps**2).mean())


def quadratic_kappa(one: ArrayLike, other: ArrayLike) -> float | None:
    """Agreement of two graders of ordered grades beyond chance (Cohen, Psychol Bull 1968); None if none varies."""
    from sklearn.metrics import cohen_kappa_score

    first, second = np.asarray(one, int), np.asarray(other, int)
    if first.size == 0 or (np.ptp(first) == 0 and np.ptp(second) == 0):
        return None
    return float(cohen_kappa_score(first, second, weights="quadratic"))


def sensitivity_at_review_rate(
    bad: ArrayLike, risk: ArrayLike, rate: float, weights: ArrayLike | None = None
) -> float | None:
    """Share of the bad cases among the ``rate`` of all cases with the highest risk, which somebody looks at.

    Of cases that tie at the edge, the share that still fits is counted, as if drawn at random. ``weights``: how many
    cases of the clinic each case stands for, where bad ones were collected.
    """
    labels, values = np.asarray(bad, bool), np.asarray(risk, float)
    if not labels.any():
        return None
    weight = np.ones(labels.size) if weights is None else np.asarray(weights, float)
    _, group = np.unique(-values, return_inverse=True)
    sizes = np.bincount(group, weight)
    ahead = np.cumsum(sizes) - sizes
    looked_at = np.clip((rate * weight.sum() - ahead) / sizes, 0.0, 1.0)
    return float(np.average(looked_at[group][labels], weights=weight[labels]))


@dataclass(frozen=True)
class RiskCoverage:
    """Mean loss of the most confident cases as ever more are accepted, and the area below (AURC; smaller is better)."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


def risk_coverage(losses: ArrayLike, confidence: ArrayLike) -> RiskCoverage:
    """The risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017), one point per case; ties share their mean loss.

    Raises:
        ValueError: no case.
    """
    loss, trust = np.asarray(losses, float), np.asarray(confidence, float)
    if loss.size == 0:
        raise ValueError("a risk-coverage curve needs at least one case")
    _, group, sizes = np.unique(-trust, return_inverse=True, return_counts=True)
    shared = (np.bincount(group, loss) / sizes)[group]
    counts = np.arange(1, loss.size + 1)
    risks = np.cumsum(shared[np.argsort(group, kind="stable")]) / counts
    return RiskCoverage(tuple((counts / loss.size).tolist()), tuple(risks.tolist()), float(risks.mean()))


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks of one shape; 1 for two empty ones."""
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 1.0


def intersection_over_union(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Jaccard index of two masks of one shape; 0 for two empty ones, which overlap nowhere."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def rises(values: Sequence[float | None], tolerance: float) -> list[float]:
    """By how much each value exceeds its predecessor, where that is more than ``tolerance``; None is skipped."""
    known = [value for value in values if value is not None]
    return [after - before for before, after in pairwise(known) if after - before > tolerance]
