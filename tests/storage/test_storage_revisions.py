"""What the workflow's steps write: a step that is run again after a crash leaves the same rows, and only its own."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import StorageError
from storage.ingest import Reception, ingest
from storage.models import DetectionCandidate, RevisionState, SeriesAssessmentRow, StudyRevision, StudyVerdict
from storage.objects import ObjectStore
from storage.revisions import (
    UnknownStudy,
    closed_revisions,
    fail,
    find_revision,
    finish,
    open_again,
    save_assessments,
    save_detection,
    save_verdict,
)
from tests.fixtures.instances import mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Database:
    """An index with the study 1.2.3, its first revision closed."""
    ingest(database, ObjectStore(tmp_path / "objects"), mr_file(tmp_path), Reception("MR1", "10.0.0.1", NOON))
    with database.session() as session:
        session.execute(update(StudyRevision).values(state=RevisionState.CLOSED, closed_at=NOON))
    return database


def within(database: Database, write: Callable[[Session, StudyRevision], None]) -> None:
    with database.session() as session:
        write(session, find_revision(session, "1.2.3", 1))


def assessment(number: int, score: float = 0.5) -> dict[str, Any]:
    """One series of the JSON contract."""
    return {
        "series_instance_uid": f"1.2.3.{number}",
        "role": "dwi",
        "b_value": 1400.0,
        "verdict": "diagnostic",
        "score": score,
        "probability_non_diagnostic": None,
        "reason": "",
        "slices": [{"sop_instance_uid": "1.2.3.4.5", "score": score}],
    }


def verdict(session: Session, revision: StudyRevision, word: str = "diagnostic") -> None:
    save_verdict(
        session,
        revision,
        verdict=word,
        reason="",
        gate_open=word == "diagnostic",
        gate_reasons=(word,),
        document={"verdict": word},
        decided_at=NOON,
    )


def candidate(number: int) -> dict[str, Any]:
    """One candidate of the JSON contract, with keys that have no column."""
    return {
        "tracking_uid": f"1.2.3.8.{number}",
        "probability": 0.25,
        "above_operating_point": False,
        "volume_ml": 0.5,
        "centroid_lps_mm": [1.0, -2.0, 3.5],
        "long_axis_mm": 9.0,
        "sector": None,
        "segment_number": None,
    }


def detection(session: Session, revision: StudyRevision, *numbers: int) -> None:
    found = [candidate(number) for number in numbers]
    save_detection(session, revision, state="succeeded", reason="", digest="0" * 64, candidates=found)


def rows(database: Database, *columns: Any) -> list[tuple[Any, ...]]:
    with database.read() as session:
        return [tuple(row) for row in session.execute(select(*columns).order_by(columns[0]))]


def test_assessing_again_replaces_the_rows(node: Database) -> None:
    within(node, lambda s, r: save_assessments(s, r, [assessment(1), assessment(2), assessment(3)]))
    for _ in range(2):
        within(node, lambda s, r: save_assessments(s, r, [assessment(1, 0.75), assessment(2)]))
        assert rows(node, SeriesAssessmentRow.series_instance_uid, SeriesAssessmentRow.score) == [
            ("1.2.3.1", 0.75),
            ("1.2.3.2", 0.5),
        ]
    assert rows(node, SeriesAssessmentRow.id, SeriesAssessmentRow.document)[0][1] == assessment(1, 0.75)


def test_judging_again_replaces_the_verdict_even_after_it_was_read(node: Database) -> None:
    within(node, verdict)

    def read_and_judge(session: Session, revision: StudyRevision) -> None:
        assert revision.verdict is not None
        verdict(session, revision, "limited")

    for _ in range(2):
        within(node, read_and_judge)
        assert rows(node, StudyVerdict.verdict, StudyVerdict.gate_open, StudyVerdict.gate_reasons) == [
            ("limited", False, ["limited"])
        ]


def test_detecting_again_replaces_the_candidates(node: Database) -> None:
    within(node, verdict)
    within(node, lambda s, r: detection(s, r, 1, 2, 3))
    for _ in range(2):
        within(node, lambda s, r: detection(s, r, 2))
        columns = (DetectionCandidate.tracking_uid, DetectionCandidate.centroid_lps_mm, DetectionCandidate.sector)
        assert rows(node, *columns) == [("1.2.3.8.2", [1.0, -2.0, 3.5], None)]
    assert rows(node, StudyVerdict.detection_state, StudyVerdict.detection_digest) == [("succeeded", "0" * 64)]


def test_detection_comes_after_the_gate(node: Database) -> None:
    with pytest.raises(StorageError, match="no verdict yet"):
        within(node, lambda s, r: detection(s, r, 1))
    assert rows(node, DetectionCandidate.id) == []


def test_another_revision_keeps_its_rows(node: Database) -> None:
    within(node, lambda s, r: save_assessments(s, r, [assessment(1)]))
    within(node, verdict)
    within(node, lambda s, r: detection(s, r, 1))
    with node.session() as session:
        second = open_again(session, "1.2.3", NOON, "0.1.0")
        session.flush()
        save_assessments(session, second, [assessment(1, 0.125)])
        verdict(session, second, "limited")
        detection(session, second)
    assert [row[1] for row in rows(node, SeriesAssessmentRow.id, SeriesAssessmentRow.score)] == [0.5, 0.125]
    assert [row[1] for row in rows(node, StudyVerdict.id, StudyVerdict.verdict)] == ["diagnostic", "limited"]
    assert len(rows(node, DetectionCandidate.id)) == 1


@pytest.mark.parametrize(("study", "number"), [("1.2.3", 0), ("1.2.3", 2), ("1.2", 1), ("", 1)])
def test_an_unknown_revision_is_named(node: Database, study: str, number: int) -> None:
    with node.read() as session, pytest.raises(UnknownStudy, match=f"no revision {number}"):
        find_revision(session, study, number)


def test_finished_and_failed_revisions_are_no_longer_work(node: Database) -> None:
    for end in (lambda _, r: finish(r, NOON), lambda _, r: fail(r, "assess: no pixels", NOON)):
        with node.read() as session:
            assert closed_revisions(session) == [("1.2.3", 1)]
        within(node, end)
        with node.session() as session:
            assert closed_revisions(session) == []
            session.execute(update(StudyRevision).values(state=RevisionState.CLOSED))
    assert rows(node, StudyRevision.failure, StudyRevision.finished_at) == [("assess: no pixels", NOON)]


def test_work_is_done_in_the_order_in_which_it_was_closed(node: Database, tmp_path: Path) -> None:
    uids = {"StudyInstanceUID": "1.2.2", "SeriesInstanceUID": "1.2.2.4", "SOPInstanceUID": "1.2.2.4.5"}
    ingest(node, ObjectStore(tmp_path / "objects"), mr_file(tmp_path, **uids), Reception("MR1", "10.0.0.1", NOON))
    earlier = {"state": RevisionState.CLOSED, "closed_at": NOON.replace(hour=11)}
    with node.session() as session:
        session.execute(update(StudyRevision).where(StudyRevision.state == "receiving").values(earlier))
        assert closed_revisions(session) == [("1.2.2", 1), ("1.2.3", 1)]


@pytest.mark.parametrize("state", [RevisionState.CLOSED, RevisionState.FINISHED, RevisionState.FAILED])
def test_a_study_can_be_judged_anew(node: Database, state: RevisionState) -> None:
    with node.session() as session:
        session.execute(update(StudyRevision).values(state=state))
    with node.session() as session:
        assert open_again(session, "1.2.3", NOON, "0.1.0").number == 2
    columns = (StudyRevision.number, StudyRevision.state, StudyRevision.closed_reason)
    assert rows(node, *columns) == [(1, state, ""), (2, RevisionState.CLOSED, "replayed")]


def test_a_study_that_is_being_received_is_not_judged_anew(node: Database) -> None:
    with node.session() as session:
        session.execute(update(StudyRevision).values(state=RevisionState.RECEIVING))
    with pytest.raises(StorageError, match="still being received"), node.session() as session:
        open_again(session, "1.2.3", NOON, "0.1.0")
    assert rows(node, StudyRevision.number) == [(1,)]


def test_an_unknown_study_is_not_judged_anew(node: Database) -> None:
    with pytest.raises(UnknownStudy, match=r"1\.2\.9"), node.session() as session:
        open_again(session, "1.2.9", NOON, "0.1.0")
