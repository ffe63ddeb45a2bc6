"""Figures with their uncertainty: proportions, means over patients, overlap of masks, rises of what should fall.

Proportions of independent studies: Wilson score interval (J Am Stat Assoc 1927;22:209), which stays honest for few
studies and for 0 or all of them. Ratios of sums over patients (lesions found per lesion, marks per study): percentile
bootstrap over patients, because lesions of one patient are not independent (Efron and Tibshirani 1993, chapter 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

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
