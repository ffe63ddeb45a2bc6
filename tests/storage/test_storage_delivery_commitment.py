"""What we ask destinations to commit themselves to: asked once, committed, or delivered again; never forgotten."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from storage.database import Database
from storage.deliveries import (
    NewResult,
    Recipient,
    RetryPolicy,
    due_at,
    mark_delivered,
    retry_failed,
    save_results,
)
from storage.delivery_commitment import (
    OwnRequest,
    apply_report,
    begin_request,
    deliver_uncommitted_again,
    due_commitments,
    expect_commitment,
    has_uncommitted,
    request_failed,
)
from storage.ingest import Reception, ingest
from storage.models import Delivery, DeliveryCommitment, JournalEntry, RevisionState, StudyRevision
from storage.objects import ObjectStore
from storage.revisions import find_revision
from tests.fixtures.instances import mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SR = "1.2.840.10008.5.1.4.1.1.88.34"
POLICY = RetryPolicy(first_retry_s=5, backoff_rate=2, max_attempts=3)
UIDS = ("1.2.3.9.1", "1.2.3.9.2")


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def delivered(database: Database, tmp_path: Path) -> Database:
    """Two objects delivered to the PACS, which is to commit itself to them."""
    ingest(database, ObjectStore(tmp_path / "objects"), mr_file(tmp_path), Reception("MR1", "10.0.0.1", NOON))
    with database.session() as session:
        session.execute(update(StudyRevision).values(state=RevisionState.CLOSED))
        results = [NewResult("quality-report", uid, SR, "1.2.3.9", "0" * 64, 7, (Recipient("pacs"),)) for uid in UIDS]
        save_results(session, find_revision(session, "1.2.3", 1), results, NOON)
    with database.session() as session:
        for delivery in session.scalars(select(Delivery)):
            mark_delivered(delivery, "0x0000", NOON)
            expect_commitment(session, SR, delivery.result.sop_instance_uid, "pacs", NOON)
    return database


def ask(database: Database, transaction: str, at: datetime) -> OwnRequest | None:
    with database.session() as session:
        return begin_request(session, "pacs", transaction, at, resend_after_s=3600)


def states(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {row.sop_instance_uid: row.state for row in session.scalars(select(DeliveryCommitment))}


def deliveries(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Delivery.state)))


def due_deliveries(database: Database, at: datetime) -> int:
    with database.read() as session:
        return len(due_at(session, "pacs", at, limit=10))


def due(database: Database, at: datetime) -> list[str]:
    with database.read() as session:
        return [one.attempt for one in due_commitments(session, at)]


def test_everything_due_goes_into_one_request_which_a_crash_does_not_change(delivered: Database) -> None:
    assert due(delivered, NOON) == ["1.2.3.9.2/0"]
    first = ask(delivered, "1.9.1", NOON)
    assert first is not None
    assert first.items == tuple((SR, uid) for uid in UIDS)
    assert ask(delivered, "1.9.1", NOON) == first, "the step runs again after a crash"
    assert ask(delivered, "1.9.2", NOON) is None
    assert due(delivered, after(3599)) == []


def test_a_report_commits_what_is_safe_and_sends_the_rest_again(delivered: Database) -> None:
    ask(delivered, "1.9.1", NOON)
    with delivered.session() as session:
        assert apply_report(session, "1.9.1", [UIDS[0]], {UIDS[1]: 0x0112}, POLICY, after(1))
        assert not apply_report(session, "1.9.99", [UIDS[0]], {}, POLICY, after(1))
    with delivered.read() as session:
        safe = session.scalars(select(DeliveryCommitment).where(DeliveryCommitment.sop_instance_uid == UIDS[0])).one()
        assert (safe.state, safe.committed_at) == ("done", after(1))
        again = {d.result.sop_instance_uid: (d.state, d.round) for d in session.scalars(select(Delivery))}
        assert again == {UIDS[0]: ("delivered", 1), UIDS[1]: ("pending", 2)}
        events = session.scalars(select(JournalEntry.message).where(JournalEntry.event == "delivery-uncommitted")).all()
    assert "failure reason 0112H; it is delivered again" in events[0]
    with delivered.session() as session:
        expect_commitment(session, SR, UIDS[1], "pacs", after(5))
    again_asked = ask(delivered, "1.9.2", after(5))
    assert again_asked is not None
    assert again_asked.items == ((SR, UIDS[1]),)


def test_what_it_never_commits_itself_to_goes_ever_more_slowly_and_ends_as_a_dead_letter(delivered: Database) -> None:
    waits = []
    for attempt in range(POLICY.max_attempts):
        asked_at = after(1000 * attempt)
        ask(delivered, f"1.9.{attempt}", asked_at)
        with delivered.session() as session:
            assert apply_report(session, f"1.9.{attempt}", [], dict.fromkeys(UIDS, 0x0110), POLICY, asked_at)
        assert due_deliveries(delivered, asked_at) == 0, "never at once"
        with delivered.session() as session:
            for delivery in session.scalars(select(Delivery).where(Delivery.state == "pending")):
                waits.append((delivery.next_attempt_at - asked_at).total_seconds())
                mark_delivered(delivery, "0x0000", after(1000 * (attempt + 1)))
                uid = delivery.result.sop_instance_uid
                expect_commitment(session, SR, uid, "pacs", after(1000 * (attempt + 1)))
    assert waits == [5, 5, 10, 10]
    assert deliveries(delivered) == set(states(delivered).values()) == {"failed"}
    with delivered.session() as session:
        assert set(session.scalars(select(Delivery.status))) == {"pacs cannot commit itself: failure reason 0110H"}
        messages = session.scalars(
            select(JournalEntry.message).where(JournalEntry.event == "delivery-commitment-failed")
        ).all()
        assert all("given up after 3 attempts" in message for message in messages)
        assert len(messages) == 2
        assert retry_failed(session, after(9000)) == 2
    assert due_deliveries(delivered, after(9000)) == 2, "until a person has them sent once more"


def test_a_request_that_is_not_taken_is_made_again_and_given_up(delivered: Database) -> None:
    for attempt, at in enumerate((0, 5, 15)):
        assert due(delivered, after(at - 0.1)) == []
        (name,) = due(delivered, after(at))
        assert name == f"1.2.3.9.2/{2 * attempt}", "each attempt is a workflow of its own"
        ask(delivered, f"1.9.{attempt}", after(at))
        with delivered.session() as session:
            request_failed(session, f"1.9.{attempt}", "nobody there", POLICY, after(at))
    assert set(states(delivered).values()) == {"failed"}
    assert due(delivered, after(10**6)) == []
    assert deliveries(delivered) == {"delivered"}, "they were delivered; it is only that nobody has confirmed it"


def test_what_is_never_reported_on_is_delivered_again(delivered: Database) -> None:
    ask(delivered, "1.9.1", NOON)
    with delivered.session() as session:
        assert not has_uncommitted(session, after(3599))
        assert has_uncommitted(session, after(3600))
        assert deliver_uncommitted_again(session, after(3600), max_attempts=3) == 2
    assert deliveries(delivered) == {"pending"}
    with delivered.session() as session:
        assert not has_uncommitted(session, after(10**6))
        assert apply_report(session, "1.9.1", UIDS, {}, POLICY, after(3700)), "late, but welcome"
    assert set(states(delivered).values()) == {"done"}
