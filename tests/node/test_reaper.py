"""The reaper: whose work is taken over, and whose is not; on SQLite and on PostgreSQL."""

from datetime import timedelta
from typing import cast

from sqlalchemy import update

from node.workflow.engine import JobEngine
from node.workflow.reaper import reap
from storage.database import Database
from storage.executors import Identity, database_now, enrol, live_slots
from storage.models import Executor
from storage.turns import Turn, take_turn

SILENT_S = 15


class Jobs:
    """In the engine's place: who has jobs in hand, and whose were taken."""

    def __init__(self, *owners: str) -> None:
        self.of = set(owners)
        self.taken: list[str] = []

    def owners(self) -> set[str]:
        return set(self.of)

    def recover(self, executor_ids: list[str]) -> int:
        self.taken += executor_ids
        self.of -= set(executor_ids)
        return len(executor_ids)


def _enter(database: Database, slot: str, silent_s: float) -> None:
    with database.session() as session:
        host = slot.partition("/")[0]
        enrol(session, Identity(slot, "0" * 32, host, "worker", 1, ("quality",), "1"), SILENT_S)
        seen_at = database_now(session) - timedelta(seconds=silent_s)
        session.execute(update(Executor).where(Executor.slot == slot).values(seen_at=seen_at))


def _reap(database: Database, jobs: Jobs) -> int:
    return reap(database, cast(JobEngine, jobs), SILENT_S)


def test_the_dead_lose_their_jobs_and_the_living_keep_theirs(database: Database) -> None:
    _enter(database, "a/worker-0", 1)
    _enter(database, "b/worker-0", SILENT_S + 3)
    jobs = Jobs("a/worker-0", "b/worker-0")
    assert _reap(database, jobs) == 1
    assert jobs.taken == ["b/worker-0"]
    with database.read() as session:
        assert live_slots(session) == {"a/worker-0"}
    assert _reap(database, jobs) == 0


def test_jobs_of_a_slot_that_nobody_has_any_more_are_found(database: Database) -> None:
    """A host that was renamed, or ran before hosts had names."""
    _enter(database, "a/worker-0", 1)
    jobs = Jobs("a/worker-0", "worker-0")
    assert _reap(database, jobs) == 1
    assert jobs.taken == ["worker-0"]


def test_one_process_at_a_time_declares_others_dead(database: Database) -> None:
    if database.is_sqlite:
        return  # its sessions exclude each other anyway
    _enter(database, "b/worker-0", SILENT_S + 3)
    with database.session() as other:
        assert take_turn(other, Turn.REAP)
        assert _reap(database, Jobs("b/worker-0")) == 0
    assert _reap(database, Jobs("b/worker-0")) == 1
