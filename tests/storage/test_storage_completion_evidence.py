"""Evidence closes series and studies early, or keeps them open: procedure steps, commitment requests, headers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from storage.associations import close_association, open_association
from storage.commitment import NewRequest, register_request
from storage.completion import (
    ClosedRevision,
    close_complete,
    close_series,
    save_examination,
    series_to_close,
    series_to_examine,
)
from storage.database import Database
from storage.describe import describe_pending
from storage.evidence import CompletionPolicy, Evidence, EvidenceKind
from storage.ingest import Reception, ingest
from storage.models import JournalEntry, Series, StepStatus, StudyRevision
from storage.objects import ObjectStore
from storage.procedure_steps import NamedInstance, NewStep, StepUpdate, create_step, update_step
from tests.fixtures.instances import mr_data_set, mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLICY = CompletionPolicy(series_quiet_s=5, study_quiet_s=10, open_association_quiet_s=60)
MR = str(mr_data_set().SOPClassUID)
STEP = "1.2.7"

Receive = Callable[..., None]


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def uid(number: int, series: int = 4) -> str:
    return f"1.2.3.{series}.{number}"


@pytest.fixture
def receive(database: Database, tmp_path: Path) -> Receive:
    """Take in one instance: its number, series, when, over which association."""
    objects = ObjectStore(tmp_path / "objects")

    def receive(number: int, at: datetime = NOON, *, series: int = 4, association: int | None = None) -> None:
        uids = {"SeriesInstanceUID": f"1.2.3.{series}", "SOPInstanceUID": uid(number, series)}
        ingest(database, objects, mr_file(tmp_path, **uids), Reception("MR1", "10.0.0.1", at, association))
        assert describe_pending(database, objects) == 1

    return receive


def step(database: Database, named: list[tuple[int, int]] | None, status: StepStatus = StepStatus.COMPLETED) -> None:
    """A procedure step of the study, which names instances by series and number unless it is only begun."""
    with database.session() as session:
        create_step(session, NewStep(STEP, ["1.2.3"], "MR1", "10.0.0.1", "P1", "MR1", "MR"), NOON)
    if named is not None:
        end(database, named, status)


def end(database: Database, named: list[tuple[int, int]], status: StepStatus = StepStatus.COMPLETED) -> None:
    instances = [NamedInstance(f"1.2.3.{series}", MR, uid(number, series)) for series, number in named]
    with database.session() as session:
        update_step(session, STEP, StepUpdate(status, instances, ""), NOON)


def commit(database: Database, uids: list[str], transaction: str = "1.9.1") -> None:
    request = NewRequest(transaction, [(MR, one) for one in uids], "MR1", "10.0.0.1")
    with database.session() as session:
        register_request(session, request, NOON, 10)


def close(database: Database, at: datetime) -> list[ClosedRevision]:
    with database.session() as session:
        return close_complete(session, POLICY, at)


def series(database: Database, number: int = 4) -> Series:
    with database.read() as session:
        return session.scalars(select(Series).where(Series.series_instance_uid == f"1.2.3.{number}")).one()


def closed(database: Database, number: int = 4) -> tuple[str, str] | None:
    row = series(database, number)
    return (row.closed_evidence, row.closed_confidence) if row.closed_through == row.last_received_at else None


def revision(database: Database) -> tuple[str, str, str]:
    with database.read() as session:
        row = session.scalars(select(StudyRevision).order_by(StudyRevision.number.desc())).first()
        assert row is not None
        return row.state, row.closed_evidence, row.closed_confidence


def test_a_completed_step_closes_series_and_study_after_the_guard_time(database: Database, receive: Receive) -> None:
    association = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    receive(1, association=association)
    receive(2, association=association)
    step(database, [(4, 1), (4, 2)])
    assert close(database, after(0.9)) == []
    (done,) = close(database, after(1))
    assert closed(database) == ("procedure-step", "certain")
    assert revision(database) == ("closed", "procedure-step", "certain")
    assert done.reason == f"all 2 instances named by procedure step {STEP} (completed) have arrived"


def test_what_a_step_names_and_has_not_arrived_is_waited_for_and_named(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, [(4, 1), (4, 2), (4, 3)])
    assert close(database, after(59)) == []
    assert closed(database) is None
    (done,) = close(database, after(60))
    assert closed(database) == ("procedure-step", "weak")
    assert f"1 of 3 instances named by procedure step {STEP} (completed) have arrived" in series(database).closed_reason
    assert f"{uid(2)}, {uid(3)}" in series(database).closed_reason
    assert revision(database) == ("closed", "procedure-step", "weak")
    assert "without what is missing" in done.reason


def test_a_missing_instance_that_arrives_in_time_closes_at_once(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, [(4, 1), (4, 2)])
    assert close(database, after(30)) == []
    receive(2, after(30))
    (done,) = close(database, after(31))
    assert "all 2 instances" in done.reason


def test_a_late_instance_opens_the_next_revision_and_its_series_again(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, [(4, 1)])
    close(database, after(1))
    receive(9, after(2))
    assert closed(database) is None
    assert [done.number for done in close(database, after(4))] == [2]
    assert series(database).closings == 2


def test_a_series_named_but_absent_keeps_the_study_open(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, [(4, 1), (5, 1)])
    assert close(database, after(59)) == []
    assert closed(database) == ("procedure-step", "certain"), "its own instances are all here"
    (done,) = close(database, after(60))
    assert uid(1, 5) in done.reason


def test_a_discontinued_step_closes_too_and_says_so(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, [(4, 1)], StepStatus.DISCONTINUED)
    (done,) = close(database, after(1))
    assert "(discontinued)" in done.reason


def test_a_study_waits_while_a_step_is_in_progress_and_its_series_do_not(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, None)
    assert close(database, after(1799)) == []
    assert closed(database) == ("quiet", "weak")
    end(database, [(4, 1)])
    assert len(close(database, after(1799))) == 1


def test_a_step_that_is_never_ended_delays_but_does_not_prevent(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, None)
    (done,) = close(database, after(1800))
    assert "1 performed procedure step(s) are still in progress" in done.reason


def test_a_step_without_instances_is_no_evidence(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, [])
    assert close(database, after(9)) == []
    assert len(close(database, after(10))) == 1
    assert revision(database)[1:] == ("associations-released", "weak")


def test_a_commitment_request_closes_the_series_it_names_in_full(database: Database, receive: Receive) -> None:
    receive(1)
    receive(2)
    receive(1, series=5)
    commit(database, [uid(1), uid(2)])
    close(database, after(1))
    assert closed(database) == ("storage-commitment", "strong")
    assert closed(database, 5) is None
    assert revision(database)[0] == "receiving"


def test_a_request_that_names_the_whole_study_closes_it(database: Database, receive: Receive) -> None:
    receive(1)
    receive(1, series=5)
    commit(database, [uid(1), uid(1, 5)])
    (done,) = close(database, after(1))
    assert "storage commitment request 1.9.1" in done.reason
    assert revision(database) == ("closed", "storage-commitment", "strong")


def test_a_request_for_the_only_series_may_be_the_first_of_several(database: Database, receive: Receive) -> None:
    receive(1)
    commit(database, [uid(1)])
    assert close(database, after(9)) == []
    assert closed(database) == ("storage-commitment", "strong")


def test_a_request_with_instances_that_are_not_here_keeps_the_study_open(database: Database, receive: Receive) -> None:
    receive(1)
    receive(1, series=5)
    commit(database, [uid(1), uid(1, 5), "1.2.3.6.1"])
    assert close(database, after(59)) == []
    (done,) = close(database, after(60))
    assert "2 of 3 instances named by storage commitment request 1.9.1 have arrived: 1.2.3.6.1" in done.reason


def examine(database: Database, at: datetime, evidence: Evidence | None, announced: int | None = None) -> int:
    """Look at what there is to look at, with this outcome."""
    with database.session() as session:
        looks = series_to_examine(session, POLICY, at)
        for look in looks:
            save_examination(session, look, evidence, announced)
    return len(looks)


GAPLESS = Evidence(EvidenceKind.GEOMETRY, 0, "1 volume(s) of 3 slices, without a gap", open_ended=True)


def test_geometry_counts_once_the_association_is_released(database: Database, receive: Receive) -> None:
    association = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    receive(1, association=association)
    assert examine(database, after(1), GAPLESS) == 1
    close(database, after(4.9))
    assert closed(database) is None
    close_association(database, association)
    close(database, after(4.9))
    assert closed(database) == ("geometry", "strong")


def test_geometry_counts_once_the_sender_has_gone_on_to_another_series(database: Database, receive: Receive) -> None:
    association = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    receive(1, association=association)
    receive(1, after(1), series=5, association=association)
    examine(database, after(2), GAPLESS)
    close(database, after(2))
    assert closed(database) == ("geometry", "strong")
    assert closed(database, 5) is None


def test_headers_are_read_once_per_pause(database: Database, receive: Receive) -> None:
    receive(1)
    assert examine(database, after(0.9), None) == 0
    assert [examine(database, after(second), None) for second in (1, 2, 3)] == [1, 0, 0]
    receive(2, after(3))
    assert [examine(database, after(second), None) for second in (3.5, 4, 5)] == [0, 1, 0]


def test_a_look_before_the_last_instance_is_no_evidence(database: Database, receive: Receive) -> None:
    receive(1)
    examine(database, after(1), GAPLESS)
    receive(2, after(1.5))
    close(database, after(3))
    assert closed(database) is None


def test_announced_study_count_closes_or_keeps_open(database: Database, receive: Receive) -> None:
    receive(1)
    examine(database, after(1), GAPLESS, announced=2)
    assert close(database, after(59)) == []
    receive(2, after(59))
    examine(database, after(60), GAPLESS, announced=2)
    (done,) = close(database, after(60))
    assert "2 instances here, 2 announced for the study" in done.reason


def test_a_new_association_of_the_sender_that_has_brought_nothing_yet_makes_the_study_wait(
    database: Database, receive: Receive
) -> None:
    """A long object in flight: the index has not seen anything of it."""
    first = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    receive(1, association=first)
    close_association(database, first)
    second = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    open_association(database, "receiver-0", "MR2", "10.0.0.2")
    assert close(database, after(10)) == []
    close_association(database, second)
    assert len(close(database, after(10))) == 1, "another peer's association is no reason to wait"


def test_a_series_that_received_something_after_the_decision_stays_open(database: Database, receive: Receive) -> None:
    receive(1)
    with database.read() as session:
        decided = series_to_close(session, POLICY, after(5))
    assert len(decided) == 1
    receive(2, after(5))
    with database.session() as session:
        assert close_series(session, decided, after(5)) == 0
    assert closed(database) is None


def test_the_journal_tells_evidence_and_confidence(database: Database, receive: Receive) -> None:
    receive(1)
    step(database, [(4, 1)])
    close(database, after(1))
    with database.read() as session:
        entries = {e.event: e for e in session.scalars(select(JournalEntry))}
    assert {"procedure-step-started", "procedure-step-ended", "series-closed", "study-closed"} <= entries.keys()
    assert entries["series-closed"].detail["evidence"] == "procedure-step"
    assert entries["series-closed"].detail["confidence"] == "certain"
    assert "names 1 instances of 1 series, 1 of them here" in entries["procedure-step-ended"].message


def test_looking_costs_nothing_for_what_is_closed(database: Database, receive: Receive) -> None:
    """A sweep asks a fixed number of questions, none of which reads instances of studies that are closed."""
    for number in range(30):
        receive(number)
    close(database, after(100))
    statements: list[Any] = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    close(database, after(200))
    assert len([s for s in statements if s.startswith("SELECT")]) == 2, statements
