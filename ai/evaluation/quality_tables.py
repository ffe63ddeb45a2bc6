"""The figures of a study of splits: discrimination, order, sensitivity, monotonicity, with intervals over patients."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ai.evaluation.quality_study import ScoredCase
from ai.evaluation.statistics import Estimate, area_under_roc, over_patients, rank_correlation
from ai.quality.grades import Grade, grade

REVIEW_RATE = 0.1
"""Share of the clean series that somebody may be asked to look at for nothing."""

EPSILON = 0.02
"""Similarities closer than this have no order; a score that falls by no more counts as equal."""

RESAMPLES = 500


@dataclass(frozen=True)
class Bar:
    """What the ensemble's mean over the tests of a kind of split should reach; None where no bar was set."""

    area_under_roc: float
    rank_correlation: float | None = None
    sensitivity: float = 0.80


BARS: Mapping[str, Bar] = MappingProxyType(
    {
        "vendor": Bar(0.90, 0.70),
        "artefact": Bar(0.92),
        "other-simulator": Bar(0.85),
        "patient": Bar(0.96, 0.92),
    }
)
"""Set before these models were trained, after a throw-away probe: metrics of single T2W slices, six simulated
artefacts, 13 patients; it reached 0.93 and 0.86 on new patients, 0.85 and 0.51 on a new vendor."""
MONOTONICITY_BAR = 0.01


@dataclass(frozen=True)
class Row:
    """One model on one family of sequences of one test. ``bad`` counts non-diagnostic series, ``clean`` diagnostic
    ones."""

    kind: str
    split: str
    test: str
    family: str
    model: str
    series: int
    bad: int
    clean: int
    area_under_roc: Estimate
    rank_correlation: Estimate
    sensitivity: Estimate
    monotonicity_violations: float | None


def rows(scored: Iterable[ScoredCase]) -> list[Row]:
    """One row per test, family and model, in the order in which they come."""
    groups: dict[tuple[str, str, str, str, str], list[ScoredCase]] = {}
    for one in scored:
        groups.setdefault((one.kind, one.split, one.test, one.family, one.model), []).append(one)
    return [_row(*key, cases) for key, cases in groups.items()]


def _row(kind: str, split: str, test: str, family: str, model: str, cases: Sequence[ScoredCase]) -> Row:
    patients = [case.patient for case in cases]
    truth = np.array([case.truth for case in cases])
    risk = 1.0 - np.array([case.score for case in cases])
    grades = np.array([int(grade(case.truth, case.family)) for case in cases])
    bad, clean = grades == int(Grade.NON_DIAGNOSTIC), grades == int(Grade.DIAGNOSTIC)
    return Row(
        kind=kind,
        split=split,
        test=test,
        family=family,
        model=model,
        series=len(cases),
        bad=int(bad.sum()),
        clean=int(clean.sum()),
        area_under_roc=over_patients(area_under_roc, patients, bad, risk, resamples=RESAMPLES),
        rank_correlation=over_patients(rank_correlation, patients, truth, 1.0 - risk, resamples=RESAMPLES),
        sensitivity=over_patients(_sensitivity, patients, bad, clean, risk, resamples=RESAMPLES),
        monotonicity_violations=monotonicity_violations(cases),
    )


def _sensitivity(bad: NDArray[np.bool_], clean: NDArray[np.bool_], risk: NDArray[np.float64]) -> float | None:
    """Share of the bad series with a higher risk than all but ``REVIEW_RATE`` of the clean ones."""
    if not bad.any() or not clean.any():
        return None
    return float((risk[bad] > np.quantile(risk[clean], 1.0 - REVIEW_RATE)).mean())


def monotonicity_violations(cases: Sequence[ScoredCase]) -> float | None:
    """Share of the pairs of one series and one artefact whose scores contradict the order of their similarities."""
    groups: dict[tuple[str, str], list[ScoredCase]] = {}
    for case in cases:
        if case.artifact not in ("clean", "mixed"):
            groups.setdefault((case.substrate, case.artifact), []).append(case)
    pairs, violated = 0, 0
    for own in groups.values():
        for one, other in combinations(own, 2):
            better, worse = (one, other) if one.truth > other.truth else (other, one)
            if better.truth - worse.truth > EPSILON:
                pairs += 1
                violated += worse.score - better.score > EPSILON
    return violated / pairs if pairs else None


@dataclass(frozen=True)
class Overview:
    """A kind of split in one line per model: the mean over its tests and families, and the worst of them."""

    kind: str
    model: str
    tests: int
    mean_area: float
    worst_area: float
    worst_test: str
    mean_rank_correlation: float | None
    mean_sensitivity: float | None
    mean_monotonicity_violations: float | None


def overviews(table: Sequence[Row]) -> list[Overview]:
    """The table by kind of split and model; tests without both classes have no area and are left out."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in table:
        if row.area_under_roc.value is not None:
            groups.setdefault((row.kind, row.model), []).append(row)
    return [_overview(kind, model, own) for (kind, model), own in groups.items()]


def _overview(kind: str, model: str, table: Sequence[Row]) -> Overview:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    areas = [
        (row.area_under_roc.value, f"{row.test}, {row.family}") for row in table if row.area_under_roc.value is not None
    ]
    lowest, worst = min(areas)
    return Overview(
        kind,
        model,
        len(table),
        float(np.mean([area for area, _ in areas])),
        lowest,
        worst,
        mean(row.rank_correlation.value for row in table),
        mean(row.sensitivity.value for row in table),
        mean(row.monotonicity_violations for row in table),
    )
