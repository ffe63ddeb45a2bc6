"""Deliveries: each object reaches each of its destinations once, is retried on schedule, and is never forgotten."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from storage.database import Database, sqlite_url
from storage.deliveries import (
    LONGEST_WAIT_S,
    DueDelivery,
    NewResult,
    RetryPolicy,
    due_deliveries,
    mark_delivered,
    mark_failed,
    pending_for,
    save_results,
    send_again,
)
from storage.ingest import Reception, ingest
from storage.models import Delivery, DeliveryState, ResultObject, RevisionState, StudyRevision
from storage.objects import ObjectStore
from storage.revisions import find_revision, open_again
from tests.fixtures.instances import mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLICY = RetryPolicy(first_retry_s=5, backoff_rate=2, max_attempts=4)
BOTH = ("pacs", "archive")


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def result(number: int, destinations: tuple[str, ...] = ("pacs",), revision: int = 1) -> NewResult:
    uid = f"1.2.3.9.{revision}.{number}"
    return NewResult("quality-report", uid, "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.9", "0" * 64, 7, destinations)


class Node:
    """An index with the study 1.2.3, and what the delivery step does to it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        ingest(database, ObjectStore(folder / "objects"), mr_file(folder), Reception("MR1", "10.0.0.1", NOON))
        self.set_state(RevisionState.CLOSED)

    def set_state(self, state: RevisionState, number: int = 1) -> None:
        with self.database.session() as session:
            session.execute(update(StudyRevision).where(StudyRevision.number == number).values(state=state))

    def save(self, *results: NewResult, revision: int = 1) -> None:
        with self.database.session() as session:
            save_results(session, find_revision(session, "1.2.3", revision), results, NOON)

    def due(self, at: datetime) -> list[DueDelivery]:
        with self.database.read() as session:
            return sorted(due_deliveries(session, at), key=str)

    def pending(self, destination: str, at: datetime, revision: int = 1) -> list[str]:
        with self.database.read() as session:
            found = pending_for(session, find_revision(session, "1.2.3", revision), destination, at)
            return [delivery.result.sop_instance_uid for delivery in found]

    def attempt(self, at: datetime, fail: frozenset[int] = frozenset(), limit: int | None = None) -> None:
        """One attempt at what is due at the PACS, one transaction per object; a crash comes after ``limit`` objects."""
        for uid in self.pending("pacs", at)[:limit]:
            with self.database.session() as session:
                query = select(Delivery).join(ResultObject)
                mine = query.where(ResultObject.sop_instance_uid == uid, Delivery.destination == "pacs")
                delivery = session.scalars(mine).one()
                if int(uid.rpartition(".")[2]) in fail:
                    mark_failed(delivery, "0xA700", POLICY, at)
                else:
                    mark_delivered(delivery, "0x0000", at)

    def again(self, at: datetime, study: str = "1.2.3", destinations: tuple[str, ...] = ("pacs",)) -> int:
        with self.database.session() as session:
            return send_again(session, study, {"quality-report": destinations}, at)

    def rows(self, *columns: Any) -> list[tuple[Any, ...]]:
        with self.database.read() as session:
            query = select(*columns).select_from(Delivery).join(ResultObject)
            return [tuple(row) for row in session.execute(query.order_by(ResultObject.id, Delivery.destination))]


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Node:
    return Node(database, tmp_path)


def test_each_object_is_due_at_each_of_its_destinations(node: Node) -> None:
    node.save(result(1, BOTH), result(2, ("archive",)), result(3, ()))
    assert [(d.destination, d.study_instance_uid, d.revision) for d in node.due(NOON)] == [
        ("archive", "1.2.3", 1),
        ("pacs", "1.2.3", 1),
    ]
    assert node.pending("archive", NOON) == ["1.2.3.9.1.1", "1.2.3.9.1.2"]
    assert node.pending("pacs", NOON) == ["1.2.3.9.1.1"]
    assert node.pending("elsewhere", NOON) == []
    assert node.due(after(-1)) == []


def test_saving_twice_is_saving_once(node: Node) -> None:
    """The report step is repeated after a crash, perhaps when a part has already been delivered."""
    node.save(result(1, BOTH), result(2))
    node.attempt(NOON)
    before = node.rows(ResultObject, Delivery.destination, Delivery.state, Delivery.attempts)
    node.save(result(1, BOTH), result(2))
    after_repeat = node.rows(ResultObject.sop_instance_uid, Delivery.destination, Delivery.state, Delivery.attempts)
    assert after_repeat == [(row[0].sop_instance_uid, *row[1:]) for row in before]
    assert len(after_repeat) == 3


def test_a_repeat_after_a_destination_was_added_reaches_it_too(node: Node) -> None:
    node.save(result(1))
    node.save(result(1, BOTH))
    assert node.rows(Delivery.destination) == [("archive",), ("pacs",)]


def test_the_waits_grow_to_an_hour_and_stay_there() -> None:
    policy = RetryPolicy(first_retry_s=5, backoff_rate=2, max_attempts=30)
    assert [policy.wait_s(n) for n in (1, 2, 3, 4)] == [5, 10, 20, 40]
    assert policy.wait_s(30) == LONGEST_WAIT_S
    assert RetryPolicy(5, 1, 30).wait_s(29) == 5


@given(first=st.floats(0.001, 1e6), rate=st.floats(1, 100), attempts=st.integers(1, 100))
def test_every_allowed_policy_gives_a_bounded_wait(first: float, rate: float, attempts: int) -> None:
    assert 0 < RetryPolicy(first, rate, 100).wait_s(attempts) <= LONGEST_WAIT_S


def test_a_failed_delivery_is_tried_on_schedule_and_given_up_after_the_last(node: Node) -> None:
    node.save(result(1))
    at = 0.0
    for wait_s in (5, 10, 20):
        node.attempt(after(at), fail=frozenset({1}))
        assert node.due(after(at + wait_s - 0.001)) == []
        at += wait_s
        assert len(node.due(after(at))) == 1
    node.attempt(after(at), fail=frozenset({1}))
    assert node.due(after(1e6)) == []
    columns = (Delivery.state, Delivery.attempts, Delivery.status, Delivery.delivered_at)
    assert node.rows(*columns) == [(DeliveryState.FAILED, 4, "0xA700", None)]


def test_what_was_delivered_is_not_tried_again_with_what_failed(node: Node) -> None:
    node.save(result(1), result(2))
    node.attempt(NOON, fail=frozenset({2}))
    assert node.pending("pacs", after(5)) == ["1.2.3.9.1.2"]
    assert node.rows(Delivery.state, Delivery.delivered_at) == [("delivered", NOON), ("pending", None)]


def test_a_replay_starts_a_round_of_its_own(node: Node) -> None:
    node.save(result(1, BOTH))
    earlier = {due.attempt for due in node.due(NOON)}
    for at in (0, 5, 15, 35):
        node.attempt(after(at), fail=frozenset({1}))
    assert node.again(after(100), destinations=BOTH) == 2
    replayed = node.due(after(100))
    assert [due.destination for due in replayed] == ["archive", "pacs"]
    assert earlier.isdisjoint(due.attempt for due in replayed), "the job engine would take it for work already done"
    assert node.rows(Delivery.state, Delivery.round, Delivery.attempts) == 2 * [("pending", 2, 0)]
    node.attempt(after(100), fail=frozenset({1}))
    assert node.pending("pacs", after(105)) == ["1.2.3.9.1.1"], "the schedule starts anew"


def test_a_replay_sends_the_last_revision_with_results(node: Node) -> None:
    node.save(result(1))
    node.attempt(NOON)
    with node.database.session() as session:
        open_again(session, "1.2.3", NOON, "0.1.0")
    assert node.again(after(1)) == 1
    node.save(result(1, revision=2), revision=2)
    node.attempt(after(1))
    assert node.again(after(2)) == 1
    assert [due.revision for due in node.due(after(2))] == [2]


def test_there_is_nothing_to_replay_without_results(node: Node) -> None:
    assert node.again(NOON) == 0
    assert node.again(NOON, "9.9.9") == 0


@pytest.fixture(scope="module")
def quick_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One index for all examples of a property; SQLite, since the property is about the numbers in it."""
    folder = tmp_path_factory.mktemp("quick")
    database = Database(sqlite_url(folder / "index.db"))
    database.migrate()
    yield Node(database, folder)
    database.dispose()


Step = tuple[frozenset[int], int | None, float]


@settings(max_examples=25, deadline=None)
@example(steps=[(frozenset({1, 2, 3}), 1, 1.0), (frozenset({2, 3}), None, 0.0)])
@given(
    steps=st.lists(
        st.tuples(st.frozensets(st.integers(1, 3)), st.none() | st.integers(0, 2), st.sampled_from([0.0, 1.0, 5.0])),
        max_size=6,
    )
)
def test_no_attempt_is_taken_for_an_earlier_one(quick_node: Node, steps: list[Step]) -> None:
    """The job engine runs the same attempt once only, so a repeated name would leave an object undelivered for ever.

    Each step is an attempt at which some objects fail; a crash may cut it short, and then the same attempt is run
    again some seconds later, to its end.
    """
    node = quick_node
    with node.database.session() as session:
        session.query(Delivery).delete()
        session.query(ResultObject).delete()
    node.save(result(1), result(2), result(3))
    finished: set[str] = set()
    at = 0.0
    for fail, crash_after, restart_s in [*steps, (frozenset[int](), None, 0.0)]:
        for second in range(0, 10):
            if due := node.due(after(at + second)):
                break
        else:
            continue
        at += second
        (delivery,) = due
        assert delivery.attempt not in finished
        if crash_after is not None:
            node.attempt(after(at), fail, crash_after)
            at += restart_s
        node.attempt(after(at), fail)
        finished.add(delivery.attempt)


def test_a_replay_reaches_destinations_added_since_and_leaves_removed_ones_alone(node: Node) -> None:
    node.save(result(1, ("pacs", "removed")))
    assert node.again(after(1), destinations=("pacs", "added")) == 2
    rounds = dict(node.rows(Delivery.destination, Delivery.round))
    assert rounds == {"pacs": 2, "added": 1, "removed": 1}


def test_without_a_policy_a_failure_is_final(node: Node) -> None:
    node.save(result(1))
    with node.database.session() as session:
        mark_failed(session.scalars(select(Delivery)).one(), "the destination is no longer configured", None, NOON)
    assert node.rows(Delivery.state) == [("failed",)]
