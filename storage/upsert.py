"""Making a row that another process may be making at the same moment, on both engines, without an error to recover."""

from typing import Any, cast

from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.models import Base


def insert_if_absent(session: Session, model: type[Base], key: dict[str, Any], values: dict[str, Any]) -> int | None:
    """Insert a row unless one with ``key`` exists; its id, or None if there was one.

    ``key`` names the columns of a unique constraint. On PostgreSQL this waits for a transaction that is making the
    same row; if that commits, the row is visible to the caller's next statement.
    """
    table = cast(Table, model.__table__)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = (
        dialect.insert(table).values(**key, **values).on_conflict_do_nothing(index_elements=list(key))
    ).returning(table.c.id)
    return cast(int | None, session.scalar(statement))


def get_or_create(session: Session, model: type[Base], key: dict[str, Any], values: dict[str, Any]) -> int:
    """The id of the row with ``key``; made with ``values`` where there is none."""
    table = cast(Table, model.__table__)
    query = select(table.c.id).filter_by(**key)
    found = session.scalar(query) or insert_if_absent(session, model, key, values)
    return cast(int, found or session.scalars(query).one())
