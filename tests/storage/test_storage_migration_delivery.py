"""The migration to deliveries of any object: what an older node had on its way goes on, and nothing else starts to."""

from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from storage.database import Database, migration_config
from storage.deliveries import NewResult, Priority, Recipient, due_at, save_results, save_variant
from storage.destinations import all_destinations
from storage.ingest import Reception, ingest
from storage.models import Delivery, ResultObject
from storage.objects import ObjectStore
from storage.originals import Endpoint, forward_series, revisions_to_route, series_to_route
from storage.revisions import find_revision, finish
from tests.fixtures.instances import mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MIGRATION = "0004"


def test_deliveries_survive_the_way_back_and_forth(database: Database, tmp_path: Path) -> None:
    ingest(database, ObjectStore(tmp_path / "objects"), mr_file(tmp_path), Reception("MR1", "10.0.0.1", NOON))
    with database.session() as session:
        revision = find_revision(session, "1.2.3", 1)
        finish(revision, NOON)
        new = NewResult("quality-report", "1.2.3.9", "1.2", "1.2.3.8", "a" * 64, 7, (Recipient("pacs"),))
        save_results(session, revision, [new], NOON)
        session.flush()
        save_variant(
            session, "1.2.3.9", NewResult("quality-report", "1.2.3.10", "1.2", "1.2.3.8", "b" * 64, 7, ()), NOON
        )
        forward_series(session, 1, revision.id, Recipient("archive"), Endpoint("ARCHIVE", None), 5, NOON)
        assert len(session.scalars(select(Delivery)).all()) == 2
    before = ScriptDirectory.from_config(migration_config()).get_revision(MIGRATION).down_revision
    assert isinstance(before, str)
    with database.engine.begin() as connection:
        command.downgrade(migration_config(connection), before)
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT destination, state FROM delivery")).all() == [("pacs", "pending")]
    database.migrate()
    with database.read() as session:
        (due,) = due_at(session, "pacs", NOON, 10)
        assert (due.study_instance_uid, due.revision, due.sop_instance_uid) == ("1.2.3", 1, "1.2.3.9")
        assert (due.object_digest, due.priority) == ("a" * 64, Priority.ROUTINE)
        assert [state.name for state in all_destinations(session)] == ["pacs"]
        assert session.scalars(select(ResultObject.sop_instance_uid)).all() == ["1.2.3.9"]
        assert (series_to_route(session), revisions_to_route(session)) == ([], []), "an upgrade forwards nothing"
