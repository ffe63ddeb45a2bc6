"""The JSON contract: keys of the plan, JSON types only, and back without loss."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.quality.document import from_document, to_document
from ai.quality.types import (
    CalibrationStamp,
    Code,
    Finding,
    GateDecision,
    Metric,
    SeriesAssessment,
    Severity,
    SliceScore,
    StudyAssessment,
    Verdict,
)

TEXT = st.text(max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SCORE = st.floats(0, 1)


def tuples(strategy: st.SearchStrategy, size: int = 3) -> st.SearchStrategy:
    return st.lists(strategy, max_size=size).map(tuple)


FINDING = st.builds(Finding, st.builds(Code, TEXT, TEXT, TEXT), st.sampled_from(Severity), TEXT, TEXT, tuples(TEXT))
METRICS = st.dictionaries(TEXT, st.tuples(st.none() | NUMBER, TEXT, TEXT, TEXT), max_size=3).map(
    lambda named: tuple(Metric(name, *rest) for name, rest in named.items())
)
SERIES = st.builds(
    SeriesAssessment,
    series_instance_uid=TEXT,
    series_number=st.none() | st.integers(),
    series_description=TEXT,
    role=TEXT,
    b_value=st.none() | NUMBER,
    b_values=tuples(NUMBER),
    verdict=st.sampled_from(Verdict),
    score=st.none() | SCORE,
    reason=TEXT,
    probability_non_diagnostic=st.none() | SCORE,
    slices=tuples(st.builds(SliceScore, TEXT, st.none() | st.integers(1, 99), SCORE)),
    findings=tuples(FINDING),
    metrics=METRICS,
    meets_standard=st.none() | st.booleans(),
    role_reasons=tuples(TEXT),
    not_checkable=tuples(TEXT),
    novelty=TEXT,
    calibration=st.none() | st.builds(CalibrationStamp, TEXT, TEXT, TEXT, TEXT, TEXT),
)
STUDY = st.builds(
    StudyAssessment,
    TEXT,
    st.sampled_from(Verdict),
    TEXT,
    tuples(SERIES, 2),
    st.builds(GateDecision, st.booleans(), tuples(TEXT), TEXT, TEXT),
    tuples(FINDING),
)


@given(STUDY)
def test_round_trip_through_json_loses_nothing(study: StudyAssessment) -> None:
    assert from_document(json.loads(json.dumps(to_document(study)))) == study


def test_document_has_the_keys_of_the_contract() -> None:
    finding = Finding(Code("130578", "DCM", "Poor SNR"), Severity.LIMITING, "noise", "snr 3")
    series = SeriesAssessment(
        "1.2", 4, "t2", "t2w-axial", None, (), Verdict.LIMITED, 0.5, "noise",
        slices=(SliceScore("1.2.3", None, 0.5),), findings=(finding,), metrics=(Metric("snr", 3.0, "1", "ratio"),),
    )  # fmt: skip
    document = to_document(StudyAssessment("1", Verdict.LIMITED, "", (series,), GateDecision(True, ())))
    assert {"study_instance_uid", "verdict", "series"} <= document.keys()
    entry = document["series"][0]
    assert entry.keys() >= {
        "series_instance_uid", "role", "b_value", "verdict", "score", "probability_non_diagnostic", "slices",
        "findings", "metrics", "reason",
    }  # fmt: skip
    assert entry["probability_non_diagnostic"] is None
    assert entry["slices"][0].keys() >= {"sop_instance_uid", "score"}
    assert entry["findings"][0].keys() >= {"code", "scheme", "meaning", "value"}
    assert entry["metrics"]["snr"].keys() >= {"value", "unit"}
    assert entry["verdict"] == "limited"


def test_a_foreign_document_is_refused() -> None:
    document = to_document(StudyAssessment("1", Verdict.LIMITED, "", (), GateDecision(True, ())))
    with pytest.raises(ValueError, match="splendid"):
        from_document(document | {"verdict": "splendid"})
    with pytest.raises(KeyError):
        from_document({"verdict": "limited"})
