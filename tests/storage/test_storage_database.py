"""The index: durable settings, transactions, and a schema that is the models' on both engines."""

import multiprocessing
from contextlib import suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError, InternalError

from storage.database import Database, migration_config, sqlite_url
from storage.journal import record
from storage.models import Base, JournalEntry, Patient, Study, utc_now


def _differences(database: Database) -> list[object]:
    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in Base.metadata.tables

    with database.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours, "compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def test_migrations_make_the_models(database: Database) -> None:
    assert _differences(database) == []
    assert set(inspect(database.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_the_comparison_sees_a_difference(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE peer ADD COLUMN colour TEXT"))
    assert _differences(database)


def test_migrating_leaves_other_peoples_tables_alone(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE datasource_outputs (id INTEGER PRIMARY KEY)"))
    database.migrate()
    assert _differences(database) == []
    assert "datasource_outputs" in inspect(database.engine).get_table_names()


def _migrate(url: str, ready: Barrier) -> None:
    database = Database(url)
    ready.wait()
    database.migrate()
    database.dispose()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_several_processes_may_migrate_at_once(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = sqlite_url(tmp_path / "new.db") if engine == "sqlite" else request.getfixturevalue("empty_postgresql_url")
    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(6)
    processes = [fork.Process(target=_migrate, args=(url, ready)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    database = Database(url)
    assert _differences(database) == []
    database.dispose()


def test_migrations_go_back_and_forth(database: Database) -> None:
    with database.engine.begin() as connection:
        command.downgrade(migration_config(connection), "base")
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    database.migrate()
    assert _differences(database) == []


def test_migrations_lie_inside_the_package() -> None:
    scripts = ScriptDirectory.from_config(migration_config())
    assert Path(scripts.dir).is_relative_to(Path(__file__).parents[2] / "storage")
    assert len(scripts.get_heads()) == 1


def test_sqlite_is_set_up_for_durable_commits(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "index.db"))
    with database.session() as session:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        values = [session.execute(text(f"PRAGMA {pragma}")).scalar_one() for pragma in pragmas]
    database.dispose()
    assert values == ["wal", 2, 1, 30_000]


def test_session_commits_or_rolls_back(database: Database) -> None:
    with database.session() as session:
        record(session, "kept", "this stays")
    with suppress(KeyError), database.session() as session:
        record(session, "lost", "this goes")
        session.flush()
        raise KeyError
    with database.read() as session:
        assert list(session.scalars(select(JournalEntry.event))) == ["kept"]


def test_foreign_keys_hold(database: Database) -> None:
    study = Study(patient_id=7, study_instance_uid="1.2", first_received_at=utc_now(), last_received_at=utc_now())
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(study)


def test_reader_sees_the_last_commit_while_a_writer_is_at_work(database: Database) -> None:
    with database.session() as writer:
        writer.add(Patient(patient_id="1"))
        writer.flush()
        with database.read() as reader:
            assert reader.scalar(select(Patient.id)) is None
    with database.read() as reader:
        assert reader.scalar(select(Patient.patient_id)) == "1"


def test_postgresql_reader_cannot_write(empty_postgresql_url: str) -> None:
    database = Database(empty_postgresql_url)
    database.migrate()
    with pytest.raises(InternalError, match="read-only"), database.read() as session:
        session.add(Patient(patient_id="1"))
    database.dispose()


def test_other_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="sqlite or postgresql"):
        Database("mysql://localhost/index")
