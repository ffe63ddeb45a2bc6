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
    Attempt,
    DueObject,
    NewResult,
    Priority,
    Recipient,
    RetryPolicy,
    book,
    due_at,
    fail_all_due,
    mark_failed,
    retry_failed,
    save_results,
    save_variant,
    send_again,
)
from storage.destinations import (
    all_destinations,
    begin_run,
    due_runs,
    end_run,
    is_paused,
    note_outcomes,
    pause,
    resume,
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


def recipients(*names: str, priority: Priority = Priority.ROUTINE) -> tuple[Recipient, ...]:
    return tuple(Recipient(name, priority) for name in names)


def result(
    number: int,
    destinations: tuple[str, ...] = ("pacs",),
    revision: int = 1,
    priority: Priority = Priority.ROUTINE,
) -> NewResult:
    uid = f"1.2.3.9.{revision}.{number}"
    to = recipients(*destinations, priority=priority)
    return NewResult("quality-report", uid, "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.9", "0" * 64, 7, to)


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

    def due(self, at: datetime) -> list[tuple[str, int]]:
        """Destination and turn of every run that is due."""
        with self.database.read() as session:
            return [(run.destination, run.turn) for run in due_runs(session, at)]

    def objects(self, destination: str, at: datetime, limit: int = 100) -> list[DueObject]:
        with self.database.read() as session:
            return due_at(session, destination, at, limit)

    def pending(self, destination: str, at: datetime) -> list[str]:
        return [item.sop_instance_uid for item in self.objects(destination, at)]

    def attempt(self, at: datetime, fail: frozenset[int] = frozenset(), limit: int | None = None) -> None:
        """One attempt at what is due at the PACS, booked object by object; a crash comes after ``limit`` objects."""
        for item in self.objects("pacs", at)[:limit]:
            failed = int(item.sop_instance_uid.rpartition(".")[2]) in fail
            self.book({item: Attempt(not failed, "0xA700" if failed else "0x0000")}, at)

    def book(self, attempts: dict[DueObject, Attempt], at: datetime) -> int:
        with self.database.session() as session:
            return len(book(session, attempts, POLICY, at))

    def run(self, at: datetime, fail: frozenset[int] = frozenset(), crash_after: int | None = None) -> None:
        """A run at the PACS as the delivery step makes it; after a crash nobody ends it."""
        ((destination, turn),) = self.due(at)
        with self.database.session() as session:
            assert begin_run(session, destination, turn, at)
        self.attempt(at, fail, crash_after)
        if crash_after is None:
            with self.database.session() as session:
                end_run(session, destination, turn)

    def again(self, at: datetime, study: str = "1.2.3", destinations: tuple[str, ...] = ("pacs",)) -> int:
        with self.database.session() as session:
            return send_again(session, study, {"quality-report": recipients(*destinations)}, at)

    def rows(self, *columns: Any) -> list[tuple[Any, ...]]:
        with self.database.read() as session:
            query = select(*columns).select_from(Delivery).join(ResultObject)
            return [tuple(row) for row in session.execute(query.order_by(ResultObject.id, Delivery.destination))]


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Node:
    return Node(database, tmp_path)


def test_each_object_is_due_at_each_of_its_destinations(node: Node) -> None:
    node.save(result(1, BOTH), result(2, ("archive",)), result(3, ()))
    assert node.due(NOON) == [("archive", 0), ("pacs", 0)]
    assert {(item.study_instance_uid, item.revision) for item in node.objects("pacs", NOON)} == {("1.2.3", 1)}
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
    for at in (0, 5, 15, 35):
        node.attempt(after(at), fail=frozenset({1}))
    assert node.again(after(100), destinations=BOTH) == 2
    assert [destination for destination, _ in node.due(after(100))] == ["archive", "pacs"]
    assert node.rows(Delivery.state, Delivery.round, Delivery.attempts) == 2 * [("pending", 2, 0)]
    node.attempt(after(100), fail=frozenset({1}))
    assert node.pending("pacs", after(105)) == ["1.2.3.9.1.1"], "the schedule starts anew"


def test_an_outcome_of_an_earlier_round_is_not_booked(node: Node) -> None:
    """The object was replayed while it was on its way: it is still to be sent."""
    node.save(result(1))
    (on_its_way,) = node.objects("pacs", NOON)
    node.again(after(1))
    assert node.book({on_its_way: Attempt(True, "0x0000")}, after(2)) == 0
    assert node.pending("pacs", after(2)) == ["1.2.3.9.1.1"]
    (now_due,) = node.objects("pacs", after(2))
    assert node.book({now_due: Attempt(True, "0x0000")}, after(3)) == 1
    assert node.book({now_due: Attempt(False, "late answer")}, after(4)) == 0, "delivered stays delivered"


def test_a_replay_sends_the_last_revision_with_results(node: Node) -> None:
    node.save(result(1))
    node.attempt(NOON)
    with node.database.session() as session:
        open_again(session, "1.2.3", NOON, "0.1.0")
    assert node.again(after(1)) == 1
    node.save(result(1, revision=2), revision=2)
    node.attempt(after(1))
    assert node.again(after(2)) == 1
    assert [item.revision for item in node.objects("pacs", after(2))] == [2]


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
def test_no_run_is_taken_for_an_earlier_one(quick_node: Node, steps: list[Step]) -> None:
    """The job engine runs the same turn once only, so a repeated number would leave an object undelivered for ever.

    Each step is a run at which some objects fail; a crash may cut it short, and then the same turn is run again some
    seconds later, to its end.
    """
    node = quick_node
    with node.database.session() as session:
        session.query(Delivery).delete()
        session.query(ResultObject).delete()
    node.save(result(1), result(2), result(3))
    finished: set[int] = set()
    at = 0.0
    for fail, crash_after, restart_s in [*steps, (frozenset[int](), None, 0.0)]:
        for second in range(0, 10):
            if due := node.due(after(at + second)):
                break
        else:
            continue
        at += second
        ((_, turn),) = due
        assert turn not in finished
        if crash_after is not None:
            node.run(after(at), fail, crash_after)
            at += restart_s
            if not node.due(after(at)):
                continue
            assert node.due(after(at)) == [("pacs", turn)], "after a crash the same run goes on"
        node.run(after(at), fail)
        finished.add(turn)


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


def test_the_most_urgent_goes_first_then_the_oldest(node: Node) -> None:
    node.save(result(1), result(2, priority=Priority.LOW), result(3, priority=Priority.STAT), result(4))
    node.save(result(5, priority=Priority.HIGH))
    assert [uid[-1] for uid in node.pending("pacs", NOON)] == ["3", "5", "1", "4", "2"]
    assert [item.sop_instance_uid[-1] for item in node.objects("pacs", NOON, limit=2)] == ["3", "5"]


def test_every_attempt_leaves_its_times_and_its_status(node: Node) -> None:
    node.save(result(1))
    node.attempt(NOON, fail=frozenset({1}))
    columns = (Delivery.status, Delivery.attempts, Delivery.first_attempt_at, Delivery.last_attempt_at)
    assert node.rows(*columns) == [("0xA700", 1, NOON, NOON)]
    (item,) = node.objects("pacs", after(5))
    node.book({item: Attempt(True, "0xB000 warning", "decompressed")}, after(6))
    assert node.rows(*columns, Delivery.delivered_at) == [("0xB000 warning", 2, NOON, after(6), after(6))]
    assert node.rows(Delivery.sent_as) == [("decompressed",)]


def test_a_final_failure_is_given_up_at_once(node: Node) -> None:
    node.save(result(1))
    (item,) = node.objects("pacs", NOON)
    node.book({item: Attempt(False, "the destination refuses the SOP class", final=True)}, NOON)
    assert node.rows(Delivery.state, Delivery.attempts) == [("failed", 1)]


def test_what_was_given_up_can_be_tried_again(node: Node) -> None:
    node.save(result(1, BOTH), result(2))
    for item in (*node.objects("pacs", NOON), *node.objects("archive", NOON)):
        node.book({item: Attempt(False, "refused", final=True)}, NOON)
    with node.database.session() as session:
        assert retry_failed(session, after(1), destination="archive") == 1
    assert node.pending("archive", after(1)) == ["1.2.3.9.1.1"]
    assert node.pending("pacs", after(1)) == []
    with node.database.session() as session:
        assert retry_failed(session, after(2), study_instance_uid="9.9.9") == 0
        assert retry_failed(session, after(2), study_instance_uid="1.2.3") == 2
        assert retry_failed(session, after(2)) == 0
    assert node.rows(Delivery.round, Delivery.attempts) == 3 * [(2, 0)]


def test_nobody_there_is_a_failed_attempt_at_everything_due(node: Node) -> None:
    node.save(result(1, BOTH), result(2), result(3))
    node.attempt(NOON, fail=frozenset({1, 2}))
    node.save(result(4))
    with node.database.session() as session:
        assert fail_all_due(session, "pacs", "connection refused", POLICY, after(5)) == 3
    columns = (Delivery.destination, Delivery.state, Delivery.attempts, Delivery.status)
    assert node.rows(*columns) == [
        ("archive", "pending", 0, ""),
        ("pacs", "pending", 2, "connection refused"),
        ("pacs", "pending", 2, "connection refused"),
        ("pacs", "delivered", 1, "0x0000"),
        ("pacs", "pending", 1, "connection refused"),
    ]
    assert len(node.pending("pacs", after(5 + 5))) == 1, "each waits by its own number of attempts"
    assert len(node.pending("pacs", after(5 + 10))) == 3
    for at in (20.0, 60.0, 200.0):
        with node.database.session() as session:
            fail_all_due(session, "pacs", "connection refused", POLICY, after(at))
    states = node.rows(Delivery.destination, Delivery.state)
    assert [state for name, state in states if name == "pacs"] == ["failed", "failed", "delivered", "failed"]


def test_a_paused_destination_is_left_alone_until_it_is_resumed(node: Node) -> None:
    node.save(result(1, BOTH), result(2, BOTH))
    node.attempt(NOON, fail=frozenset({2}))
    with node.database.session() as session:
        pause(session, "pacs", "new disks", after(1))
    assert node.due(after(1000)) == [("archive", 0)]
    with node.database.read() as session:
        assert is_paused(session, "pacs")
        state = next(state for state in all_destinations(session) if state.name == "pacs")
        assert (state.paused_at, state.paused_reason) == (after(1), "new disks")
    node.save(result(3, BOTH))
    with node.database.session() as session:
        assert resume(session, "pacs", after(2)) == 2, "what was waiting for its next attempt, and what came meanwhile"
    assert node.pending("pacs", after(2)) == ["1.2.3.9.1.2", "1.2.3.9.1.3"]


def test_a_run_ends_drained_when_its_destination_is_paused(node: Node) -> None:
    node.save(result(1))
    with node.database.session() as session:
        assert begin_run(session, "pacs", 0, NOON)
        pause(session, "pacs", "", NOON)
    with node.database.session() as session:  # the worker was killed; its workflow is recovered
        assert not begin_run(session, "pacs", 0, after(1))
    with node.database.session() as session:
        (state,) = all_destinations(session)
        assert (state.sending_since, state.turn) == (None, 1)
        resume(session, "pacs", after(2))
    assert node.due(after(2)) == [("pacs", 1)]


def test_a_run_that_has_ended_does_not_begin_again(node: Node) -> None:
    node.save(result(1))
    with node.database.session() as session:
        assert begin_run(session, "pacs", 0, NOON)
        end_run(session, "pacs", 0)
        end_run(session, "pacs", 0)
        assert not begin_run(session, "pacs", 0, after(1))
    assert node.due(after(1)) == [("pacs", 1)]


def test_a_destination_remembers_how_it_last_answered(node: Node) -> None:
    node.save(result(1))
    with node.database.session() as session:
        note_outcomes(session, "pacs", delivered=True, failure="", now=NOON)
        note_outcomes(session, "pacs", delivered=False, failure="connection refused", now=after(1))
    with node.database.read() as session:
        (state,) = all_destinations(session)
    assert (state.last_success_at, state.last_failure_at) == (NOON, after(1))
    assert state.last_failure == "connection refused"


def test_a_variant_is_known_and_is_no_result_of_its_own(node: Node) -> None:
    node.save(result(1))
    variant = NewResult("quality-report", "1.2.3.9.1.99", "1.2.3", "1.2.3.9", "1" * 64, 7, ())
    for _ in range(2):
        with node.database.session() as session:
            save_variant(session, "1.2.3.9.1.1", variant, NOON)
    with node.database.read() as session:
        assert session.scalars(select(ResultObject.variant_of).order_by(ResultObject.id)).all() == ["", "1.2.3.9.1.1"]
        assert [row.sop_instance_uid for row in find_revision(session, "1.2.3", 1).results] == ["1.2.3.9.1.1"]
    assert node.again(after(1)) == 1


@given(st.text(max_size=8), st.text(max_size=8), st.integers(1, 30), st.floats(0, 1))
def test_jitter_spreads_and_repeats(seed: str, destination: str, attempts: int, jitter: float) -> None:
    policy = RetryPolicy(5, 2, 30, jitter, seed)
    plain = RetryPolicy(5, 2, 30).wait_s(attempts)
    wait_s = policy.wait_s(attempts, destination)
    assert wait_s == policy.wait_s(attempts, destination)
    assert plain * (1 - jitter / 2) - 1e-9 <= wait_s <= min(plain * (1 + jitter / 2) + 1e-9, LONGEST_WAIT_S)


def test_destinations_and_nodes_do_not_try_in_step() -> None:
    waits = {RetryPolicy(5, 2, 30, 0.2, seed).wait_s(4, name) for seed in ("A", "B") for name in ("pacs", "archive")}
    assert len(waits) == 4
