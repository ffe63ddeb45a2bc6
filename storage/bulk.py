"""Statements that change many rows at once, past the session's own objects."""

from typing import Any, cast

from sqlalchemy import CursorResult, UpdateBase
from sqlalchemy.orm import Session


def change(session: Session, statement: UpdateBase) -> int:
    """Execute an INSERT, UPDATE or DELETE and return how many rows it changed.

    Objects that the session already holds keep their old values: read them after, not before.
    """
    # An INSERT's count is dropped on PostgreSQL unless it is asked for.
    result = session.execute(statement.execution_options(synchronize_session=False, preserve_rowcount=True))
    return cast(CursorResult[Any], result).rowcount
