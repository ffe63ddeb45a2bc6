"""Commissioning on made-up grades: coverage over many draws, calibration, and refusals that say what is missing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from ai.evaluation.statistics import Estimate
from ai.quality.calibration import Calibration, CalibrationError
from ai.quality.commissioning import GradedSeries, fit, labels_sha256, patients_needed
from ai.quality.types import Verdict

D, L, N = Verdict.DIAGNOSTIC, Verdict.LIMITED, Verdict.NON_DIAGNOSTIC


def graded(patients: int, seed: int, share: float = 0.4, series: int = 1, first: int = 0) -> list[GradedSeries]:
    """Patients of a quality of their own; the score sees it through noise, the grade is what it is."""
    rng = np.random.default_rng(seed)
    made = []
    for patient in range(first, first + patients):
        quality = rng.random()
        grade = N if quality < share else L if quality < share + 0.2 else D
        for number in range(series):
            score = float(np.clip(quality + rng.normal(0, 0.2), 0, 1))
            made.append(GradedSeries(f"1.{patient}.{number}", f"p{patient}", "t2w-axial", score, grade))
    return made


def made_of(cases: Sequence[GradedSeries], **options: float) -> Calibration:
    return fit(cases, name="here", by="us", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return made_of(graded(80, 1))


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.01, 99), (0.3, 3)])
def test_the_patients_needed_are_those_of_the_conformal_bound(alpha: float, needed: int) -> None:
    assert patients_needed(alpha) == needed


def test_on_average_over_commissionings_the_promised_share_of_bad_patients_is_missed(monkeypatch) -> None:
    """30 sites of 60 patients with two series each, 150 fresh patients: missed and condemned keep to alpha."""
    monkeypatch.setattr("ai.quality.commissioning.over_patients", lambda *_: Estimate(None, 0))  # slow, not asked for
    missed, condemned = [], []
    for site in range(30):
        family = made_of(graded(60, site, series=2)).families["t2w"]
        fresh = graded(150, 1000 + site, series=2)
        for grades, wrong, rates in (((N,), D, missed), ((L, D), N, condemned)):
            patients = {entry.patient for entry in fresh if entry.grade in grades}
            hit = {e.patient for e in fresh if e.grade in grades and family.decide(e.score) is wrong}
            rates.append(len(hit) / len(patients))
    for rates in (missed, condemned):
        # Three standard errors over sites; not far below either, or the thresholds would be useless.
        error = np.std(rates) / np.sqrt(len(rates))
        assert np.mean(rates) <= 0.1 + 3 * error
        assert np.mean(rates) >= 0.1 - 3 * error - 1 / 24


def test_figures_are_of_patients_not_used_and_say_so(calibration: Calibration) -> None:
    figures = calibration.families["t2w"].figures
    assert figures["series"] == figures["patients"] == 80
    assert sum(figures["grades"].values()) == 80
    assert figures["folds"] == 10
    assert figures["held_out"]["brier"] > figures["fitted"]["brier"]
    assert figures["held_out"]["missed"]["studies"] == figures["patients_non_diagnostic"]
    assert figures["area_under_roc"]["low"] < figures["area_under_roc"]["value"] < figures["area_under_roc"]["high"]


def test_a_score_that_says_nothing_beyond_its_patients_is_not_flattered_by_the_held_out_figures() -> None:
    """Noise with a few cases: the fit on itself beats the base rate, cross-fitting does not."""
    rng = np.random.default_rng(4)
    cases = [replace(entry, score=float(score)) for entry, score in zip(graded(40, 4), rng.random(40), strict=True)]
    bad = np.array([entry.grade is N for entry in cases])
    if np.corrcoef(bad, [entry.score for entry in cases])[0, 1] > 0:
        cases = [replace(entry, score=1 - entry.score) for entry in cases]
    figures = made_of(cases).families["t2w"].figures
    base_rate = bad.mean() * (1 - bad.mean())
    assert figures["fitted"]["brier"] <= base_rate + 1e-3
    assert figures["held_out"]["brier"] > figures["fitted"]["brier"]


def test_the_probability_is_calibrated_on_fresh_patients(calibration: Calibration) -> None:
    family = calibration.families["t2w"]
    fresh = graded(4000, 99)
    probability = np.array([family.probability(entry.score) for entry in fresh])
    bad = np.array([entry.grade is N for entry in fresh])
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (probability >= low) & (probability < high)
        assert probability[inside].mean() == pytest.approx(bad[inside].mean(), abs=0.12)


def test_collected_bad_series_do_not_inflate_the_probability_where_the_prevalence_is_given() -> None:
    """80 % of the graded are bad, 20 % in the clinic: with the prevalence the mean probability is the clinic's."""
    collected, clinic = graded(150, 7, share=0.8), graded(4000, 8, share=0.8)
    rng = np.random.default_rng(0)
    clinic = [entry for entry in clinic if entry.grade is not N or rng.random() < 0.0625]
    share = np.mean([entry.grade is N for entry in clinic])
    corrected = made_of(collected, prevalence=float(share)).families["t2w"]
    naive = made_of(collected).families["t2w"]
    means = [np.mean([family.probability(entry.score) for entry in clinic]) for family in (corrected, naive)]
    assert means[0] == pytest.approx(share, abs=0.05)
    assert means[1] > share + 0.2
    assert (corrected.bad_up_to, corrected.good_from) == (naive.bad_up_to, naive.good_from)


def test_many_cases_make_an_isotonic_curve_that_stays_off_certainty(monkeypatch) -> None:
    monkeypatch.setattr("ai.quality.commissioning.ISOTONIC_FROM", 80)
    family = made_of(graded(80, 1)).families["t2w"]
    assert family.method == "isotonic"
    assert 0 < family.probability(1.0) < family.probability(0.0) < 1


def test_separable_classes_keep_the_curve_finite() -> None:
    cases = [replace(entry, score=0.1 if entry.grade is N else 0.9) for entry in graded(60, 3)]
    family = made_of(cases).families["t2w"]
    assert 0 < family.probability(0.9) < 0.1
    assert 0.9 < family.probability(0.1) < 1
    assert family.decide(0.5) is L


def test_order_and_clock_change_nothing_but_the_time(calibration: Calibration) -> None:
    when = datetime(2026, 3, 2, 10, tzinfo=UTC)
    cases = graded(80, 1)
    again = fit(cases[::-1], name="here", by="us", when=when)
    assert again.families == calibration.families
    assert again.labels_sha256 == calibration.labels_sha256 == labels_sha256(cases)
    assert again.when == "2026-03-02T10:00:00+00:00"
    assert labels_sha256([*cases[1:], replace(cases[0], grade=D)]) != calibration.labels_sha256


def test_too_few_patients_are_refused_with_the_number_needed() -> None:
    cases = graded(60, 2)
    few = [entry for entry in cases if entry.grade is not N] + [entry for entry in cases if entry.grade is N][:5]
    with pytest.raises(CalibrationError, match=r"t2w: 5 patients with non-diagnostic series; .* 10% needs 9 of each"):
        made_of(few)
    with pytest.raises(CalibrationError, match="no graded series has a score"):
        made_of([])


def test_many_series_of_few_patients_are_few() -> None:
    with pytest.raises(CalibrationError, match="needs 9 of each"):
        made_of(graded(15, 2, series=10))


def test_a_family_that_cannot_be_calibrated_does_not_keep_others_from_it() -> None:
    made = made_of(
        [*graded(60, 2), GradedSeries("2.1", "p0", "dwi", 0.4, L), GradedSeries("2.2", "p0", "other", 0.4, L)]
    )
    assert set(made.families) == {"t2w"}
    assert "needs 9" in made.refused["dwi"]


def test_grades_upside_down_are_recognised() -> None:
    turned = {N: D, L: L, D: N}
    with pytest.raises(CalibrationError, match="is 1 the worst grade"):
        made_of([replace(entry, grade=turned[entry.grade]) for entry in graded(80, 1)])


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"alpha": 0.0}, {"prevalence": 0.0}, {"prevalence": 1.0}])
def test_impossible_arguments_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(CalibrationError):
        made_of(graded(40, 1), **options)


def test_held_out_verdicts_need_one_fold_more_than_the_thresholds() -> None:
    cases = graded(60, 2)
    exactly = [entry for entry in cases if entry.grade is not N] + [entry for entry in cases if entry.grade is N][:9]
    held_out = made_of(exactly).families["t2w"].figures["held_out"]
    assert held_out["missed"] is None
    assert held_out["brier"] is not None
