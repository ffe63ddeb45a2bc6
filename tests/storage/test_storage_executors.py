"""Heartbeats: who lives, who is silent, who may work; on SQLite and on PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from storage.associations import open_association
from storage.database import Database
from storage.executors import (
    Identity,
    SlotTaken,
    beat,
    begin_work,
    bury,
    database_now,
    enrol,
    leave,
    list_executors,
    live_slots,
    mark_drained,
    other_versions,
    set_draining,
    silent_executors,
)
from storage.models import Association, Executor, ExecutorState, JournalEntry, utc_now
from storage.turns import Turn, take_turn

SILENT_S = 15
WORKER = Identity("a/worker-0", "1" * 32, "a", "worker", 100, ("quality", "gpu"), "1.0")
RECEIVER = Identity("b/receiver-0", "2" * 32, "b", "receiver", 200, (), "1.0")


def _enter(database: Database, *identities: Identity) -> list[ExecutorState]:
    states = []
    for me in identities:
        with database.session() as session:
            states.append(enrol(session, me, SILENT_S))
    return states


def _silence(database: Database, slot: str, seconds: float = SILENT_S + 5) -> None:
    with database.session() as session:
        seen_at = database_now(session) - timedelta(seconds=seconds)
        session.execute(update(Executor).where(Executor.slot == slot).values(seen_at=seen_at))


def _states(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {row.slot: row.state for row, _ in list_executors(session)}


def test_the_database_s_clock_is_the_present(database: Database) -> None:
    with database.read() as session:
        assert abs((database_now(session) - utc_now()).total_seconds()) < 5


def test_a_process_enters_beats_and_leaves(database: Database) -> None:
    assert _enter(database, WORKER) == [ExecutorState.RUNNING]
    _silence(database, WORKER.slot, 10)
    with database.session() as session:
        assert beat(session, WORKER, jobs=3) is ExecutorState.RUNNING
    with database.read() as session:
        ((row, silent_s),) = list_executors(session)
    assert (row.host, row.kind, row.pid, row.queues, row.jobs) == ("a", "worker", 100, ["quality", "gpu"], 3)
    assert silent_s < 5
    with database.session() as session:
        leave(session, WORKER)
        assert beat(session, WORKER, 0) is None
    assert _states(database) == {}


def test_only_the_silent_are_buried_and_a_dead_receiver_s_associations_end(database: Database) -> None:
    _enter(database, WORKER, RECEIVER)
    open_association(database, RECEIVER.slot, "MR1", "10.0.0.1")
    open_association(database, "c/receiver-0", "MR2", "10.0.0.2")
    _silence(database, RECEIVER.slot)
    with database.session() as session:
        (dead,) = silent_executors(session, SILENT_S)
        bury(session, dead, SILENT_S)
    with database.read() as session:
        assert live_slots(session) == {WORKER.slot}
        still_open = session.scalars(select(Association.calling_ae_title).where(Association.released_at.is_(None)))
        assert list(still_open) == ["MR2"]
        lost = session.scalar(select(JournalEntry).where(JournalEntry.event == "executor-lost"))
        assert lost is not None
        assert (lost.detail["slot"], lost.detail["associations_closed"]) == (RECEIVER.slot, 1)


def test_two_live_processes_never_share_a_slot(database: Database) -> None:
    _enter(database, WORKER)
    twin = replace(WORKER, run_id="3" * 32, pid=101)
    _enter(database, twin)
    with database.session() as session, pytest.raises(SlotTaken, match="pid 101"):
        beat(session, WORKER, 0)
    with database.session() as session:
        leave(session, WORKER)
        assert beat(session, twin, 0) is ExecutorState.RUNNING, "the old one takes nothing with it"


def test_one_pipeline_version_at_a_time(database: Database) -> None:
    newer = replace(WORKER, slot="b/worker-0", host="b", run_id="4" * 32, pipeline_version="2.0")
    assert _enter(database, WORKER, newer) == [ExecutorState.RUNNING, ExecutorState.WAITING]
    with database.session() as session:
        assert other_versions(session, newer, SILENT_S) == ["a/worker-0 (1.0)"]
        assert not begin_work(session, newer, SILENT_S)
        set_draining(session, "a", True)
        assert not begin_work(session, newer, SILENT_S), "what drains may still have a job in hand"
        mark_drained(session, WORKER)
        assert begin_work(session, newer, SILENT_S)
    assert _states(database) == {"a/worker-0": "drained", "b/worker-0": "running"}


def test_a_dead_worker_of_another_version_is_not_waited_for(database: Database) -> None:
    _enter(database, WORKER)
    _silence(database, WORKER.slot)
    newer = replace(WORKER, slot="b/worker-0", run_id="4" * 32, pipeline_version="2.0")
    assert _enter(database, newer) == [ExecutorState.RUNNING]


def test_receivers_of_another_version_are_no_matter(database: Database) -> None:
    newer = replace(WORKER, pipeline_version="2.0")
    assert _enter(database, RECEIVER, newer) == [ExecutorState.RUNNING] * 2


def test_draining_reaches_workers_of_the_host_only_and_survives_a_crash(database: Database) -> None:
    other = replace(WORKER, slot="b/worker-0", host="b", run_id="4" * 32)
    _enter(database, WORKER, other, RECEIVER)
    with database.session() as session:
        assert set_draining(session, "a", True) == 1
        assert set_draining(session, "a", True) == 1, "asking again does no harm"
        assert beat(session, WORKER, 1) is ExecutorState.DRAINING
    assert _enter(database, replace(WORKER, run_id="5" * 32)) == [ExecutorState.DRAINING]
    assert _states(database) == {"a/worker-0": "draining", "b/worker-0": "running", "b/receiver-0": "running"}
    with database.session() as session:
        assert set_draining(session, None, False) == 1
    assert set(_states(database).values()) == {"running"}


def test_an_upgraded_worker_does_not_go_on_draining(database: Database) -> None:
    _enter(database, WORKER)
    with database.session() as session:
        set_draining(session, None, True)
    newer = replace(WORKER, run_id="5" * 32, pipeline_version="2.0")
    assert _enter(database, newer) == [ExecutorState.RUNNING]


def test_a_turn_is_one_process_s_until_its_transaction_ends(database: Database) -> None:
    if database.is_sqlite:
        with database.session() as session:
            assert take_turn(session, Turn.ENROL), "a session owns the writer's lock"
        return
    with database.session() as first, database.session() as second:
        assert take_turn(first, Turn.ENROL)
        assert not take_turn(second, Turn.ENROL)
        assert take_turn(second, Turn.REAP), "turns do not hinder each other"
    with database.session() as third:
        assert take_turn(third, Turn.ENROL)
