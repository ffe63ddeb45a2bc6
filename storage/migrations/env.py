"""Alembic's entry: runs the migrations on the connection that `storage.database.Database.migrate` hands in."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection

from storage.models import Base, UtcDateTime


def ours(name: str | None, kind: str, _parents: object) -> bool:
    """Leave alone tables that share our database but are not ours, such as the job engine's."""
    return kind != "table" or name in Base.metadata.tables


def portable_type(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Write our column types as SQLAlchemy's own: a migration must not change when the models do."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JSON):
        return "sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')"
    return False


def run(connection: Connection) -> None:
    """Migrate on ``connection``, inside the caller's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=ours,
        render_item=portable_type,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
