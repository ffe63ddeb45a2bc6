"""Completion: silence closes a study, an open association makes it wait, nothing received is ever lost by closing."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.associations import close_association, open_association
from storage.completion import ClosedRevision, close_complete, close_series, series_to_close
from storage.database import Database
from storage.evidence import CompletionPolicy
from storage.ingest import Reception, ingest
from storage.models import JournalEntry, RevisionState, Series, StudyRevision, utc_now
from storage.objects import ObjectStore
from storage.revisions import closed_revisions, find_revision, stored_instances
from tests.fixtures.instances import mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
QUIET = CompletionPolicy(series_quiet_s=5, study_quiet_s=10, open_association_quiet_s=60)

Receive = Callable[..., None]


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def receive(database: Database, tmp_path: Path) -> Receive:
    """Take in one instance: its number, when, and over which association."""
    objects = ObjectStore(tmp_path / "objects")

    def receive(number: int, at: datetime = NOON, association: int | None = None, study: str = "1.2.3") -> None:
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.4", "SOPInstanceUID": f"{study}.4.{number}"}
        ingest(database, objects, mr_file(tmp_path, **uids), Reception("MR1", "10.0.0.1", at, association))

    return receive


def close(database: Database, at: datetime) -> list[ClosedRevision]:
    with database.session() as session:
        return close_complete(session, QUIET, at)


def close_silent_series(database: Database, at: datetime) -> int:
    with database.session() as session:
        return close_series(session, series_to_close(session, QUIET, at), at)


def contents(database: Database, number: int) -> set[str]:
    """What the steps of a revision see."""
    with database.read() as session:
        found = stored_instances(session, find_revision(session, "1.2.3", number))
        return {instance.sop_instance_uid for instance in found}


def test_silence_closes_a_study_to_the_second(database: Database, receive: Receive) -> None:
    receive(1)
    receive(2, after(3))
    assert close(database, after(12.999)) == []
    (closed,) = close(database, after(13))
    assert (closed.study_instance_uid, closed.number) == ("1.2.3", 1)
    assert close(database, after(1000)) == [], "a closed revision is not closed again"
    with database.read() as session:
        revision = find_revision(session, "1.2.3", 1)
        assert (revision.state, revision.closed_at, revision.closed_reason) == ("closed", after(13), closed.reason)
        assert closed_revisions(session) == [("1.2.3", 1)]
        journal = session.scalars(select(JournalEntry).where(JournalEntry.event == "study-closed")).one()
    assert (journal.study_instance_uid, journal.detail) == (
        "1.2.3",
        {"revision": 1, "evidence": "associations-released", "confidence": "weak"},
    )


def test_an_open_association_makes_it_wait_until_release_and_silence(database: Database, receive: Receive) -> None:
    association = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    receive(1, NOON, association)
    assert close(database, after(59)) == []
    close_association(database, association)
    (closed,) = close(database, after(59))
    assert "released" in closed.reason


def test_a_release_alone_closes_nothing(database: Database, receive: Receive) -> None:
    """A study over two associations is common: the second one finds the revision still open."""
    first = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    receive(1, NOON, first)
    close_association(database, first)
    assert close(database, after(9)) == []
    second = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    receive(2, after(9), second)
    assert close(database, after(30)) == []
    close_association(database, second)
    assert [closed.number for closed in close(database, after(30))] == [1]
    assert contents(database, 1) == {"1.2.3.4.1", "1.2.3.4.2"}


def test_an_association_held_all_day_delays_but_does_not_prevent(database: Database, receive: Receive) -> None:
    receive(1, NOON, open_association(database, "receiver-0", "MR1", "10.0.0.1"))
    assert close(database, after(59.9)) == []
    (closed,) = close(database, after(60))
    assert "60 s with 1 association(s) still open" in closed.reason


def test_only_associations_that_sent_the_study_count(database: Database, receive: Receive) -> None:
    busy = open_association(database, "receiver-0", "MR2", "10.0.0.2")
    receive(1, NOON, busy, study="1.2.9")
    receive(1)
    assert [closed.study_instance_uid for closed in close(database, after(10))] == ["1.2.3"]


def test_a_late_instance_is_seen_by_the_second_revision_only(database: Database, receive: Receive) -> None:
    receive(1)
    close(database, after(10))
    receive(2, after(11))
    assert close(database, after(20)) == [], "the second revision has its own silence"
    assert [closed.number for closed in close(database, after(21))] == [2]
    assert contents(database, 1) == {"1.2.3.4.1"}
    assert contents(database, 2) == {"1.2.3.4.1", "1.2.3.4.2"}


def test_a_series_closes_once_and_again_after_a_late_instance(database: Database, receive: Receive) -> None:
    receive(1)
    assert [close_silent_series(database, after(s)) for s in (4.9, 5, 6)] == [0, 1, 0]
    receive(2, after(7))
    assert [close_silent_series(database, after(s)) for s in (11.9, 12, 100)] == [0, 1, 0]
    with database.read() as session:
        assert session.scalars(select(Series.closed_at)).one() == after(12)
        entries = session.scalars(select(JournalEntry).where(JournalEntry.event == "series-closed")).all()
    assert sorted(entry.detail["instances"] for entry in entries) == [1, 2]


def test_closing_and_receiving_at_once_loses_nothing(database: Database, receive: Receive) -> None:
    """While one thread closes as often as it can, another receives. What a revision held when it closed is final."""
    count, failures = 40, []
    at_closing: dict[int, set[str]] = {}
    received = threading.Event()
    instant = CompletionPolicy(series_quiet_s=0, study_quiet_s=0, open_association_quiet_s=0, guard_s=0)

    def keep_closing() -> None:
        try:
            while True:
                last = received.is_set()
                with database.session() as session:
                    closed = close_complete(session, instant, utc_now())
                at_closing.update({revision.number: contents(database, revision.number) for revision in closed})
                if last:
                    return
        except BaseException as error:
            failures.append(error)
            raise

    closer = threading.Thread(target=keep_closing)
    closer.start()
    for number in range(count):
        receive(number, utc_now())
    received.set()
    closer.join(30)
    assert not closer.is_alive()
    assert not failures
    assert len(at_closing) > 1, "the threads never met"
    assert at_closing == {number: contents(database, number) for number in at_closing}
    assert len(at_closing[max(at_closing)]) == count
    with database.read() as session:
        assert set(session.scalars(select(StudyRevision.state))) == {RevisionState.CLOSED}
        numbers = session.scalars(select(StudyRevision.number).order_by(StudyRevision.number)).all()
    assert list(numbers) == list(range(1, max(at_closing) + 1))
