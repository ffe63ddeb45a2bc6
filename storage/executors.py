"""The processes of all hosts: heartbeats, who is silent, who drains, which pipeline version works.

Every time in here is the database's: the clocks of hosts differ, and silence must not depend on it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import CursorResult, delete, func, select, type_coerce, update
from sqlalchemy.orm import Session

from storage.associations import close_stale_in
from storage.journal import record
from storage.models import Executor, ExecutorState, UtcDateTime
from storage.turns import Turn, wait_for_turn

AT_WORK = (ExecutorState.RUNNING, ExecutorState.DRAINING)
"""A worker in one of these states may be in the middle of a job."""


@dataclass(frozen=True)
class Identity:
    """Which process this is."""

    slot: str
    run_id: str
    host: str
    kind: str
    pid: int
    queues: tuple[str, ...]
    pipeline_version: str


class SlotTaken(Exception):
    """Another process has started under our slot: two nodes share a host name, or two share a database by mistake."""


def database_now(session: Session) -> datetime:
    """The present by the database's clock."""
    now = session.scalar(select(type_coerce(func.current_timestamp(), UtcDateTime())))
    assert now is not None, "a database knows the time"
    return now


def enrol(session: Session, me: Identity, silent_s: float) -> ExecutorState:
    """Enter this process; returns the state it starts in.

    A worker is `WAITING` while live workers of another pipeline version may have a job in hand. One that was draining
    and died goes on draining.
    """
    wait_for_turn(session, Turn.ENROL)
    former = session.get(Executor, me.slot)
    state = ExecutorState.RUNNING
    if me.kind == "worker":
        if former is not None and former.state in (ExecutorState.DRAINING, ExecutorState.DRAINED):
            state = ExecutorState.DRAINING if former.pipeline_version == me.pipeline_version else state
        if other_versions(session, me, silent_s):
            state = ExecutorState.WAITING
    now = database_now(session)
    row = former or Executor(slot=me.slot)
    row.run_id, row.host, row.kind, row.pid = me.run_id, me.host, me.kind, me.pid
    row.queues, row.pipeline_version, row.state, row.jobs = list(me.queues), me.pipeline_version, state, 0
    row.started_at = row.seen_at = now
    session.add(row)
    return state


def other_versions(session: Session, me: Identity, silent_s: float) -> list[str]:
    """The live workers of another pipeline version that may have a job in hand, as ``slot (version)``."""
    rows = session.execute(
        select(Executor.slot, Executor.pipeline_version)
        .where(
            Executor.kind == "worker",
            Executor.slot != me.slot,
            Executor.pipeline_version != me.pipeline_version,
            Executor.state.in_(AT_WORK),
            Executor.seen_at >= database_now(session) - timedelta(seconds=silent_s),
        )
        .order_by(Executor.slot)
    )
    return [f"{slot} ({version})" for slot, version in rows]


def begin_work(session: Session, me: Identity, silent_s: float) -> bool:
    """From waiting to running, if no worker of another version is at work any more."""
    wait_for_turn(session, Turn.ENROL)
    if other_versions(session, me, silent_s):
        return False
    _set_state(session, me, ExecutorState.RUNNING)
    return True


def beat(session: Session, me: Identity, jobs: int) -> ExecutorState | None:
    """Say that this process lives and works on ``jobs`` jobs; returns its state, None where its row is gone.

    Raises
    ------
    SlotTaken
        Another process has entered itself under our slot.
    """
    now = database_now(session)
    mine = (Executor.slot == me.slot, Executor.run_id == me.run_id)
    result = session.execute(update(Executor).where(*mine).values(seen_at=now, jobs=jobs))
    assert isinstance(result, CursorResult), "an update has a row count"
    found = session.execute(select(Executor.state, Executor.pid).where(Executor.slot == me.slot)).one_or_none()
    if result.rowcount:
        assert found is not None, "updated in this transaction"
        return ExecutorState(found.state)
    if found is None:
        return None
    raise SlotTaken(
        f"another process (pid {found.pid}) runs as {me.slot}: give each node its own [node] host_name; this one ends"
    )


def mark_drained(session: Session, me: Identity) -> None:
    """This worker has finished its jobs."""
    _set_state(session, me, ExecutorState.DRAINED)


def leave(session: Session, me: Identity) -> None:
    """This process ends in good order."""
    session.execute(delete(Executor).where(Executor.slot == me.slot, Executor.run_id == me.run_id))


def silent_executors(session: Session, silent_s: float) -> list[Executor]:
    """The processes without a heartbeat for ``silent_s`` seconds, locked until the transaction ends."""
    limit = database_now(session) - timedelta(seconds=silent_s)
    query = select(Executor).where(Executor.seen_at < limit).order_by(Executor.slot)
    return list(session.scalars(query.with_for_update(skip_locked=True)))


def bury(session: Session, dead: Executor, silent_s: float) -> None:
    """Close a dead receiver's associations and delete the row, in the caller's transaction."""
    why = f"{dead.slot} on host {dead.host} has been silent for more than {silent_s:g} s"
    closed = close_stale_in(session, dead.slot, why) if dead.kind == "receiver" else 0
    record(session, "executor-lost", why, slot=dead.slot, host=dead.host, kind=dead.kind, associations_closed=closed)
    session.delete(dead)


def live_slots(session: Session) -> set[str]:
    """The slots that have a row: alive, or not yet buried."""
    return set(session.scalars(select(Executor.slot)))


def other_hosts(session: Session, host: str) -> list[str]:
    """The other hosts that have processes."""
    return sorted(set(session.scalars(select(Executor.host).where(Executor.host != host))))


def list_executors(session: Session) -> list[tuple[Executor, float]]:
    """All processes and the seconds since each one's last heartbeat, by slot."""
    now = database_now(session)
    rows = session.scalars(select(Executor).order_by(Executor.slot))
    return [(row, max(0.0, (now - row.seen_at).total_seconds())) for row in rows]


def set_draining(session: Session, host: str | None, draining: bool) -> int:
    """Ask the workers of a host (None: of all hosts) to drain, or to go on; returns how many were asked."""
    before, after = (
        ([*AT_WORK, ExecutorState.WAITING], ExecutorState.DRAINING)
        if draining
        else ([ExecutorState.DRAINING, ExecutorState.DRAINED], ExecutorState.RUNNING)
    )
    where = [Executor.kind == "worker", Executor.state.in_(before)]
    if host is not None:
        where.append(Executor.host == host)
    result = session.execute(update(Executor).where(*where).values(state=after))
    assert isinstance(result, CursorResult), "an update has a row count"
    return result.rowcount


def _set_state(session: Session, me: Identity, state: ExecutorState) -> None:
    mine = (Executor.slot == me.slot, Executor.run_id == me.run_id)
    session.execute(update(Executor).where(*mine).values(state=state))
