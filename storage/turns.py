"""Turns: work on the index that only one process of all hosts may do at a time, such as closing what is complete.

On PostgreSQL an advisory lock that ends with the transaction, thus also with the process that held it; on SQLite a
session already owns the writer's lock.
"""

from enum import IntEnum

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

_NAMESPACE = 0x70616373
"""First half of the lock's key: the bytes of "pacs". `storage.database.MIGRATION_LOCK` uses the other, 64-bit kind."""

_PATIENCE = text("SET LOCAL idle_in_transaction_session_timeout = '10s'")
"""A process that freezes in its turn loses it. Turns are short, other transactions need not be."""


class Turn(IntEnum):
    """What one process at a time does. The values are keys in the database: never change one."""

    REAP = 2
    """Taking over the work of hosts that died."""
    ENROL = 3
    """Entering the executor table, so that two pipeline versions cannot both find it empty."""


def take_turn(session: Session, turn: Turn) -> bool:
    """Whether it is our turn, until the session's transaction ends; False where another process is at it."""
    if session.get_bind().dialect.name == "sqlite":
        return True
    session.execute(_PATIENCE)
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_NAMESPACE, int(turn)))))


def wait_for_turn(session: Session, turn: Turn) -> None:
    """Return when it is our turn, which it stays until the session's transaction ends."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(_PATIENCE)
        session.execute(select(func.pg_advisory_xact_lock(_NAMESPACE, int(turn))))
