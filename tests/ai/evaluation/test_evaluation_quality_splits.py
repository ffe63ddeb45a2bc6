"""The splits: nobody on both sides, every concept held out once, figures of cases with a known answer."""

from dataclasses import replace

import pytest

from ai.evaluation.quality_splits import artefact_splits, patient_splits, touches, vendor_splits
from ai.evaluation.quality_study import ScoredCase
from ai.evaluation.quality_tables import monotonicity_violations, overviews, rows
from ai.quality.concepts import Concept
from ai.training.quality_cases import CONCEPT_OF_ARTIFACT, SIMULATED, Case, folds

ARTIFACTS = ("noise", "motion", "blur", "ghosting", "bias", "spike", "wrap")


def cases() -> list[Case]:
    patients = [("Siemens", f"s{number}") for number in range(4)] + [("Philips", f"p{number}") for number in range(3)]
    patients += [(SIMULATED, f"simulated-{number}") for number in range(3)]
    made = []
    for vendor, patient in patients:
        for artifacts in ((), *(((name, 2.0),) for name in ARTIFACTS), (("noise", 1.0), ("blur", 1.0))):
            made.append(Case(f"{patient}/t2", patient, vendor, "t2w", artifacts, 0))
    return made


def all_splits(known: list[Case]) -> list:
    return [*vendor_splits(known), *artefact_splits(known), *patient_splits(known)]


def test_nobody_is_on_both_sides() -> None:
    known = cases()
    for split in all_splits(known):
        trained = {case.patient for case in known if split.train(case)}
        for name, wanted in split.tests:
            tested = {case.patient for case in known if wanted(case)}
            assert tested, (split.name, name)
            assert not trained & tested, (split.name, name)


def test_a_new_vendor_was_never_seen() -> None:
    known = cases()
    for split in vendor_splits(known):
        ((vendor, wanted),) = split.tests
        assert {case.vendor for case in known if wanted(case)} == {vendor}
        assert vendor not in {case.vendor for case in known if split.train(case)}


def test_every_concept_at_hand_is_held_out_once_and_not_trained_on() -> None:
    known = cases()
    held_out = []
    for split in artefact_splits(known):
        for concept, wanted in split.tests:
            held_out.append(concept)
            assert not any(touches(case, (Concept(concept),)) for case in known if split.train(case))
            tested = {case.artifact for case in known if wanted(case)}
            assert "clean" in tested
            assert "mixed" not in tested
            assert {CONCEPT_OF_ARTIFACT[name] for name in tested - {"clean"}} == {Concept(concept)}
    assert sorted(held_out) == sorted({str(CONCEPT_OF_ARTIFACT[name]) for name in ARTIFACTS})


def test_folds_spread_the_patients_of_each_vendor() -> None:
    fold = folds(cases())
    assert sorted(fold[f"s{number}"] for number in range(4)) == [0, 0, 1, 1]
    assert not any(patient.startswith("simulated") for patient in fold)


def scored(
    truth: float, score: float, severity: float = 1.0, patient: str = "a", artifact: str = "noise"
) -> ScoredCase:
    return ScoredCase(
        "new vendor: X",
        "vendor",
        "X",
        "forest",
        "series",
        patient,
        "X",
        "t2w",
        artifact,
        severity,
        "pacsgate",
        truth,
        score,
    )


def test_a_score_in_the_order_of_the_truth_is_perfect() -> None:
    table = rows([scored(truth / 20, truth / 40, patient=str(truth % 3)) for truth in range(21)])
    (row,) = table
    assert row.area_under_roc.value == 1
    assert row.rank_correlation.value == pytest.approx(1)
    assert row.sensitivity.value == 1
    assert row.monotonicity_violations == 0
    (overview,) = overviews(table)
    assert (overview.kind, overview.worst_test, overview.worst_area) == ("vendor", "X, t2w", 1)


def test_reversed_scores_are_as_wrong_as_can_be() -> None:
    known = [scored(truth / 20, 1 - truth / 20) for truth in range(21)]
    (row,) = rows(known)
    assert row.area_under_roc.value == 0
    assert monotonicity_violations(known) == 1


def test_only_pairs_of_one_artefact_have_an_order() -> None:
    pair = [scored(0.9, 0.2), replace(scored(0.1, 0.8), artifact="blur")]
    assert monotonicity_violations(pair) is None
