"""A calibration in use: monotone, honest about what it covers, and refused once it does not fit any more."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.quality.calibration import FAMILIES, Calibration, CalibrationError, FamilyCalibration, family_of
from ai.quality.scoring import CRITERIA
from ai.quality.types import SeriesAssessment, Verdict
from ai.volumes.types import Role
from tests.fixtures.calibrations import calibration_of_t2w

D, L, N, NOT = Verdict.DIAGNOSTIC, Verdict.LIMITED, Verdict.NON_DIAGNOSTIC, Verdict.NOT_ASSESSED
RISING_DEFECT = (D, L, N)


MADE = calibration_of_t2w()


def family(bad_up_to: float, good_from: float) -> FamilyCalibration:
    return calibration_of_t2w(bad_up_to, good_from).families["t2w"]


def series(score: float | None, verdict: Verdict, role: str = Role.T2W_AXIAL) -> SeriesAssessment:
    return SeriesAssessment("1.2.1", 1, "", role, None, (), verdict, score, "why")


def test_every_role_with_a_score_has_one_family() -> None:
    assert sorted(role for roles in FAMILIES.values() for role in roles) == sorted(CRITERIA)
    assert family_of(Role.LOCALIZER) is None


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_better_score_is_never_judged_worse(bad: float, good: float, one: float, other: float) -> None:
    made = family(bad, good)
    low, high = sorted((one, other))
    assert made.probability(low) >= made.probability(high)
    assert RISING_DEFECT.index(made.decide(low)) >= RISING_DEFECT.index(made.decide(high))
    assert made.non_diagnostic_at >= made.limited_at


@pytest.mark.parametrize(
    ("made", "verdicts"),
    [
        (family(bad_up_to=0.6, good_from=0.3), {0.29: N, 0.3: L, 0.6: L, 0.61: D}),
        (family(bad_up_to=0.3, good_from=0.6), {0.3: N, 0.31: L, 0.59: L, 0.6: D}),
    ],
    ids=["classes overlap", "classes are apart"],
)
def test_what_fits_both_classes_or_neither_is_limited(made: FamilyCalibration, verdicts: dict[float, Verdict]) -> None:
    assert {score: made.decide(score) for score in verdicts} == verdicts


def test_applied_to_a_series_it_gives_probability_verdict_and_its_stamp() -> None:
    judged = MADE.apply(series(0.2, L))
    assert judged.verdict is N
    assert judged.probability_non_diagnostic == pytest.approx(0.725)
    assert judged.calibration == MADE.stamp
    assert judged.reason == (
        "score 0.20 is non-diagnostic by calibration Skyra, room 2; by the cut points as shipped limited: why"
    )
    assert MADE.apply(judged).verdict is N


def test_what_it_does_not_cover_stays_as_it_was() -> None:
    for untouched in (series(0.2, L, Role.DWI), series(None, NOT)):
        assert MADE.apply(untouched) == untouched
    assert MADE.stamp_for(Role.DWI) is None
    with pytest.raises(CalibrationError, match="has no dwi: few"):
        MADE.decide(0.5, "dwi")


def test_single_ruined_slices_still_limit_a_series() -> None:
    assert MADE.apply(series(0.9, L)).verdict is L
    assert MADE.apply(series(0.65, L)).verdict is D


def test_a_record_comes_back_as_it_was_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    MADE.save(path)
    assert Calibration.load(path) == MADE
    assert Calibration.load(path).sha256 == MADE.sha256
    with pytest.raises(FileExistsError):
        MADE.save(path)


def _older_score(document: dict) -> None:
    made = replace(MADE, families={"t2w": replace(MADE.families["t2w"], definition="another")})
    document["families"]["t2w"]["definition"] = "another"
    document["sha256"] = made.sha256


def _rising(document: dict) -> None:
    curve = ((0.0, 0.1), (1.0, 0.9))
    document["families"]["t2w"]["curve"] = curve
    document["sha256"] = replace(MADE, families={"t2w": replace(MADE.families["t2w"], curve=curve)}).sha256


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda document: document["families"]["t2w"].update(bad_up_to=0.1), "was changed after it was made"),
        (lambda document: document.update(by="Somebody else"), "was changed after it was made"),
        (lambda document: document.update(version="0"), "commission again"),
        (lambda document: document.pop("alpha"), "no record of `pacsgate train calibrate`"),
        (_older_score, "computed differently by this version; commission again"),
        (_rising, "does not fall"),
    ],
)
def test_a_record_that_no_longer_fits_is_refused(tmp_path: Path, spoil: Callable[[dict], None], complaint: str) -> None:
    path = tmp_path / "record.json"
    MADE.save(path)
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match=complaint):
        Calibration.load(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"format": 1}', b"null"])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"record\.json"):
        Calibration.load(path)
    with pytest.raises(CalibrationError, match="cannot be read"):
        Calibration.load(tmp_path / "absent.json")
