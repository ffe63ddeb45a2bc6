"""Commissioning: from series that a site has graded to its calibration, with figures on patients not used for it.

Curve. Platt scaling (Platt 1999) with its smoothed targets for fewer than ``ISOTONIC_FROM`` series, isotonic regression
from there on: below about a thousand cases it overfits (Niculescu-Mizil and Caruana, ICML 2005). Graded sets are rarely
drawn at random; with the ``prevalence`` of the clinic, classes are weighted to it.

Thresholds. Class-conditional split conformal, with one value per patient: of a patient's non-diagnostic series the one
that looks best, of the others the one that looks worst. Patients are exchangeable, series of one patient are not.

Figures. The score has not seen the grades, so its discrimination is counted on all. Whatever is fitted is measured by
cross-fitting: each patient is predicted by a calibration made without that patient.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.evaluation.statistics import (
    Estimate,
    area_under_roc,
    brier_score,
    expected_calibration_error,
    over_patients,
    proportion,
    quadratic_kappa,
    sensitivity_at_review_rate,
)
from ai.quality.calibration import FAMILIES, Calibration, CalibrationError, FamilyCalibration, family_of
from ai.quality.scoring import score_definition
from ai.quality.types import Verdict

ISOTONIC_FROM: Final = 1000
"""Series from which on the curve is isotonic instead of logistic."""
MAXIMUM_FOLDS: Final = 10
REVIEW_RATE: Final = 0.1
ALPHA_RANGE: Final = (0.01, 0.3)
_CURVE_SCORES: Final = np.linspace(0.0, 1.0, 101)
_SLACK: Final = 1e-9
"""Against 0.1 not being a tenth in binary."""

GRADES: Final = {1: Verdict.NON_DIAGNOSTIC, 2: Verdict.LIMITED, 3: Verdict.DIAGNOSTIC}
"""Grades by PI-QUAL v2's order (1 inadequate, 2 acceptable, 3 optimal) as verdicts on one series."""
_GRADE_OF: Final = {verdict: grade for grade, verdict in GRADES.items()}


@dataclass(frozen=True)
class GradedSeries:
    """A series with its score (0 to 1), and the grade somebody gave it: diagnostic, limited or non-diagnostic."""

    series_instance_uid: str
    patient: str
    role: str
    score: float
    grade: Verdict


@dataclass(frozen=True)
class Fit:
    """How probability and verdict agree with the grades, on held-out patients or on those fitted to.

    ``missed``: patients with a non-diagnostic series called diagnostic; ``condemned``: patients with another series
    called non-diagnostic; ``review``: share of series called limited; ``kappa``: quadratic, verdict against grade, of
    the graded series as they are. The others are weighted to the prevalence where one is given.
    None where there are too few patients to make thresholds without one fold.
    """

    brier: float | None
    calibration_error: float | None
    missed: Estimate | None
    condemned: Estimate | None
    review: float | None
    kappa: float | None


@dataclass(frozen=True)
class Figures:
    """What a commissioning set says of one family. ``held_out`` is the honest part, ``fitted`` flatters."""

    series: int
    patients: int
    grades: dict[str, int]
    patients_non_diagnostic: int
    patients_other: int
    area_under_roc: Estimate
    sensitivity_at_10_percent_review: Estimate
    folds: int
    held_out: Fit
    fitted: Fit


@dataclass(frozen=True)
class _Cases:
    """The graded series of one family as columns."""

    score: NDArray[np.float64]
    grade: NDArray[np.int_]
    patient: NDArray[np.str_]
    weight: NDArray[np.float64]

    @property
    def bad(self) -> NDArray[np.bool_]:
        return np.asarray(self.grade == 1)

    def __getitem__(self, rows: NDArray[np.bool_]) -> "_Cases":
        return _Cases(self.score[rows], self.grade[rows], self.patient[rows], self.weight[rows])


def patients_needed(alpha: float) -> int:
    """Patients of a class without which no conformal threshold at this error rate exists."""
    return math.ceil(1 / alpha - _SLACK) - 1


def labels_sha256(graded: Sequence[GradedSeries]) -> str:
    """SHA-256 over series, patients and grades, in any order."""
    lines = sorted(f"{entry.series_instance_uid}\t{entry.patient}\t{entry.grade}" for entry in graded)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def fit(
    graded: Sequence[GradedSeries],
    *,
    name: str,
    by: str,
    note: str = "",
    alpha: float = 0.1,
    prevalence: float | None = None,
    when: datetime | None = None,
) -> Calibration:
    """Calibrate every family of which enough patients of both classes are graded.

    Args:
        graded: one entry per series; series of one patient share its ``patient``.
        name: what to call the calibration.
        by: who answers for it.
        note: anything a later reader should know.
        alpha: error rate of the thresholds, 0.01 to 0.3.
        prevalence: share of non-diagnostic series in the clinic, where the graded ones were not drawn at random.
        when: moment to record; default: now.

    Raises:
        CalibrationError: no family has enough patients (the message says how many are needed and there), the score
            rises with the defect (are the grades upside down?), or an argument is out of range.
    """
    if not ALPHA_RANGE[0] <= alpha <= ALPHA_RANGE[1]:
        raise CalibrationError(f"an error rate of {alpha:g} is outside {ALPHA_RANGE[0]:g} to {ALPHA_RANGE[1]:g}")
    if prevalence is not None and not 0 < prevalence < 1:
        raise CalibrationError(f"a prevalence of {prevalence:g} is not between 0 and 1")
    families, refused = {}, {}
    for family in FAMILIES:
        own = [entry for entry in graded if family_of(entry.role) == family]
        if not own:
            continue
        cases = _cases(own, prevalence)
        try:
            families[family] = _fit_family(family, cases, alpha)
        except CalibrationError as error:
            refused[family] = str(error)
    if not families:
        reasons = "; ".join(f"{family}: {reason}" for family, reason in refused.items())
        raise CalibrationError(f"nothing can be calibrated: {reasons or 'no graded series has a score'}")
    moment = (when or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    return Calibration(name, by, moment, note, labels_sha256(graded), alpha, prevalence, families, refused)


def _cases(graded: Sequence[GradedSeries], prevalence: float | None) -> _Cases:
    ordered = sorted(graded, key=lambda entry: entry.series_instance_uid)
    grade = np.array([_GRADE_OF[entry.grade] for entry in ordered])
    share = float((grade == 1).mean())
    weight = np.ones(grade.size)
    if prevalence is not None and 0 < share < 1:
        weight = np.where(grade == 1, prevalence / share, (1 - prevalence) / (1 - share))
    patients = np.array([entry.patient for entry in ordered])
    return _Cases(np.array([entry.score for entry in ordered]), grade, patients, weight)


def _fit_family(family: str, cases: _Cases, alpha: float) -> FamilyCalibration:
    needed = patients_needed(alpha)
    counts = {"non-diagnostic": _patients(cases, cases.bad), "diagnostic or limited": _patients(cases, ~cases.bad)}
    if short := [f"{count} patients with {word} series" for word, count in counts.items() if count < needed]:
        raise CalibrationError(f"{' and '.join(short)}; an error rate of {alpha:.0%} needs {needed} of each")
    method, curve = _curve(cases)
    if curve[0][1] <= curve[-1][1]:
        area = area_under_roc(cases.bad, -cases.score)
        raise CalibrationError(
            f"the score does not fall as grades get worse (area under the ROC curve {area:.2f}); is 1 the worst grade?"
        )
    bad_up_to, good_from = _thresholds(cases, alpha)
    definition = score_definition(FAMILIES[family])
    fitted = FamilyCalibration(method, curve, bad_up_to, good_from, definition, {})
    figures = _figures(cases, fitted, alpha)
    return FamilyCalibration(method, curve, bad_up_to, good_from, definition, asdict(figures))


def _patients(cases: _Cases, rows: NDArray[np.bool_]) -> int:
    return len(set(cases.patient[rows]))


def _curve(cases: _Cases) -> tuple[str, tuple[tuple[float, float], ...]]:
    """Method and points (score, probability), by rising score."""
    if cases.score.size >= ISOTONIC_FROM:
        return "isotonic", _isotonic(cases)
    return "platt", _platt(cases)


def _platt(cases: _Cases) -> tuple[tuple[float, float], ...]:
    """A logistic curve fitted to targets that are not quite 0 and 1, so that separable classes stay finite."""
    from sklearn.linear_model import LogisticRegression

    bad = cases.bad
    target = np.where(bad, (bad.sum() + 1) / (bad.sum() + 2), 1 / ((~bad).sum() + 2))
    outcomes = np.repeat([1, 0], bad.size)
    weights = np.concatenate([target * cases.weight, (1 - target) * cases.weight])
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    model.fit(np.tile(cases.score, 2)[:, None], outcomes, sample_weight=weights)
    probabilities = model.predict_proba(_CURVE_SCORES[:, None])[:, 1]
    return tuple(zip(_CURVE_SCORES.tolist(), probabilities.tolist(), strict=True))


def _isotonic(cases: _Cases) -> tuple[tuple[float, float], ...]:
    """The falling step function of least squares; its ends stay off 0 and 1 by what so many cases can tell."""
    from sklearn.isotonic import IsotonicRegression

    edge = 1 / (cases.score.size + 2)
    model = IsotonicRegression(y_min=edge, y_max=1 - edge, increasing=False, out_of_bounds="clip")
    model.fit(cases.score, cases.bad, sample_weight=cases.weight)
    return tuple(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True))


def _thresholds(cases: _Cases, alpha: float) -> tuple[float, float]:
    """``bad_up_to`` and ``good_from``: the k-th largest and the k-th smallest of one value per patient and class.

    k = floor((n + 1) alpha), which is at least 1 because n is at least ``patients_needed``.
    """
    best_of_bad = np.sort(_per_patient(cases[cases.bad], np.maximum))
    worst_of_good = np.sort(_per_patient(cases[~cases.bad], np.minimum))
    rank_bad, rank_good = (math.floor((values.size + 1) * alpha + _SLACK) for values in (best_of_bad, worst_of_good))
    return float(best_of_bad[-rank_bad]), float(worst_of_good[rank_good - 1])


def _per_patient(cases: _Cases, pick: np.ufunc) -> NDArray[np.float64]:
    """The largest or smallest score of each patient (``pick`` is np.maximum or np.minimum)."""
    order = np.argsort(cases.patient, kind="stable")
    _, starts = np.unique(cases.patient[order], return_index=True)
    return np.asarray(pick.reduceat(cases.score[order], starts))


def _figures(cases: _Cases, fitted: FamilyCalibration, alpha: float) -> Figures:
    risk = -cases.score
    grades = Counter(GRADES[int(grade)].value for grade in cases.grade)
    folds = _folds(cases)
    patients = cases.patient.tolist()
    return Figures(
        series=cases.score.size,
        patients=len(set(patients)),
        grades={verdict.value: grades[verdict.value] for verdict in GRADES.values()},
        patients_non_diagnostic=_patients(cases, cases.bad),
        patients_other=_patients(cases, ~cases.bad),
        area_under_roc=over_patients(area_under_roc, patients, cases.bad, risk),
        sensitivity_at_10_percent_review=over_patients(_found_in_review, patients, cases.bad, risk, cases.weight),
        folds=int(folds.max()) + 1,
        held_out=_held_out(cases, folds, alpha),
        fitted=_measure(cases, *_predict(fitted, cases.score)),
    )


def _found_in_review(bad: NDArray[np.bool_], risk: NDArray[np.float64], weight: NDArray[np.float64]) -> float | None:
    return sensitivity_at_review_rate(bad, risk, REVIEW_RATE, weight)


def _folds(cases: _Cases) -> NDArray[np.int_]:
    """Fold of every row: whole patients, in a fixed random order, those with a non-diagnostic series dealt first."""
    everyone = np.random.default_rng(0).permutation(np.unique(cases.patient))
    with_bad = set(cases.patient[cases.bad])
    dealt = [one for one in everyone if one in with_bad] + [one for one in everyone if one not in with_bad]
    count = min(MAXIMUM_FOLDS, len(with_bad), len(dealt))
    fold_of = {one: index % count for index, one in enumerate(dealt)}
    return np.array([fold_of[one] for one in cases.patient])


def _held_out(cases: _Cases, folds: NDArray[np.int_], alpha: float) -> Fit:
    """Each fold predicted by a calibration made without it."""
    probability, verdict = np.zeros(cases.score.size), np.zeros(cases.score.size, int)
    enough = True
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        rest = cases[~out]
        least = min(_patients(rest, rest.bad), _patients(rest, ~rest.bad))
        if least == 0:
            return Fit(None, None, None, None, None, None)
        enough = enough and least >= patients_needed(alpha)
        thresholds = _thresholds(rest, alpha) if enough else (0.0, 0.0)
        made = FamilyCalibration(*_curve(rest), *thresholds, "", {})
        probability[out], verdict[out] = _predict(made, cases.score[out])
    return _measure(cases, probability, verdict if enough else None)


def _predict(made: FamilyCalibration, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    probability = np.array([made.probability(score) for score in scores])
    return probability, np.array([_GRADE_OF[made.decide(score)] for score in scores])


def _measure(cases: _Cases, probability: NDArray[np.float64], verdict: NDArray[np.int_] | None) -> Fit:
    brier = brier_score(cases.bad, probability, cases.weight)
    error = expected_calibration_error(cases.bad, probability, cases.weight)
    if verdict is None:
        return Fit(brier, error, None, None, None, None)
    return Fit(
        brier=brier,
        calibration_error=error,
        missed=_share_of_patients(cases, cases.bad, verdict == 3),
        condemned=_share_of_patients(cases, ~cases.bad, verdict == 1),
        review=float(np.average(verdict == 2, weights=cases.weight)),
        kappa=quadratic_kappa(verdict, cases.grade),
    )


def _share_of_patients(cases: _Cases, among: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> Estimate:
    """Patients with a series of ``among`` that is ``wrong``, as a share of patients with one of ``among``."""
    return proportion(_patients(cases, among & wrong), _patients(cases, among))
