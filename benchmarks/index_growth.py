"""How much slower one more study is received when the index holds a million instances, on SQLite and PostgreSQL.

``make bench``. The million are generated rows (2,500 studies of 8 series of 50 instances, headers described); what is
timed is the whole ingest of a study's instances, bytes and sync included, on the empty and on the full index in turns.
Bars: 10 % slower on PostgreSQL, 25 % on SQLite; Orthanc's SQLite index slows down tenfold by 200,000.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from storage.database import Database, sqlite_url
from storage.ingest import Intake, Reception
from storage.models import utc_now
from storage.objects import ObjectStore, digest_of
from tests.fixtures.databases import postgresql_server
from tests.fixtures.dcmtk import free_port
from tests.fixtures.instances import mr_file

STUDIES, SERIES_PER_STUDY, INSTANCES_PER_SERIES = 2_500, 8, 50
INSTANCES_PER_STUDY = 200
REPEATS = 5

_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})",
    "postgresql": "WITH n AS (SELECT generate_series(1, {count}) AS i)",
}


def fill(database: Database) -> None:
    """Generate the rows, set by set."""
    numbers = _NUMBERS["sqlite" if database.is_sqlite else "postgresql"]
    at = "'2026-01-01 00:00:00.000000'"
    series = STUDIES * SERIES_PER_STUDY
    statements = [
        "INSERT INTO patient (id, patient_id, issuer_of_patient_id, patient_name, patient_birth_date, patient_sex) "
        f"{numbers.format(count=STUDIES)} SELECT i, 'P' || i, '', 'Name^' || i, '19600101', 'M' FROM n",
        "INSERT INTO study (id, patient_id, study_instance_uid, study_date, study_time, study_id, accession_number, "
        "study_description, referring_physician_name, first_received_at, last_received_at) "
        f"{numbers.format(count=STUDIES)} SELECT i, i, '1.9.' || i, '20260101', '', '', 'A' || i, '', '', {at}, {at} "
        "FROM n",
        "INSERT INTO study_revision (id, study_id, number, state, opened_at, closed_at, finished_at, closed_reason, "
        "closed_evidence, closed_confidence, failure, pipeline_version) "
        f"{numbers.format(count=STUDIES)} SELECT i, i, 1, 'finished', {at}, {at}, {at}, '', '', '', '', '' FROM n",
        "INSERT INTO series (id, study_id, series_instance_uid, modality, series_description, body_part_examined, "
        "manufacturer, station_name, last_received_at, closed_at, closed_through, closings, closed_evidence, "
        "closed_confidence, closed_reason) "
        f"{numbers.format(count=series)} SELECT i, (i - 1) / {SERIES_PER_STUDY} + 1, '1.9.0.' || i, 'MR', '', '', '', "
        f"'', {at}, {at}, {at}, 1, '', '', '' FROM n",
        "INSERT INTO instance (series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, revision_number, "
        "object_digest, size_bytes, received_at, source_ae_title, header, header_faults) "
        f"{numbers.format(count=series * INSTANCES_PER_SERIES)} SELECT (i - 1) / {INSTANCES_PER_SERIES} + 1, "
        f"'1.9.0.0.' || i, '1.2.840.10008.5.1.4.1.1.4', '1.2.840.10008.1.2.1', 1, '{'0' * 64}', 300000, {at}, 'MR', "
        "'{}', '[]' FROM n",
    ]
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        if not database.is_sqlite:
            for table in ("patient", "study", "study_revision", "series"):
                sequence = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
                connection.exec_driver_sql(sequence)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def milliseconds_per_instance(database: Database, folder: Path, study: str) -> float:
    """Ingest one new study; median milliseconds of an instance."""
    intake = Intake(database, ObjectStore(folder / "objects"))
    took = []
    for number in range(INSTANCES_PER_STUDY):
        uid = f"{study}.{number // 50}.{number}"
        path = mr_file(folder, StudyInstanceUID=study, SeriesInstanceUID=uid.rpartition(".")[0], SOPInstanceUID=uid)
        start = time.perf_counter()
        intake.ingest(path, digest_of(path), Reception("MR", "127.0.0.1", utc_now()))
        took.append((time.perf_counter() - start) * 1000)
        path.unlink()
    return statistics.median(took)


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, tuple[Database, Database]]]:
    """Engine -> an empty index and one to be filled."""
    port = free_port()
    with postgresql_server(port):
        server = f"postgresql+psycopg://postgres@127.0.0.1:{port}"
        administration = Database(f"{server}/postgres")
        with administration.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in ("empty", "full"):
                connection.execute(text(f"CREATE DATABASE bench_{name} TEMPLATE template0"))
        administration.dispose()
        found = {
            "SQLite": (Database(sqlite_url(folder / "empty.db")), Database(sqlite_url(folder / "full.db"))),
            "PostgreSQL": (Database(f"{server}/bench_empty"), Database(f"{server}/bench_full")),
        }
        yield found
        for pair in found.values():
            for database in pair:
                database.dispose()


def main() -> None:
    """Run and print."""
    count = STUDIES * SERIES_PER_STUDY * INSTANCES_PER_SERIES
    with tempfile.TemporaryDirectory(prefix="pacsgate-bench-", dir=os.environ.get("PACSGATE_BENCH_DIR")) as name:
        folder = Path(name)
        with databases(folder) as found:
            for (engine, (empty, full)), bar in zip(found.items(), (25, 10), strict=True):
                empty.migrate()
                full.migrate()
                fill(full)
                times: dict[str, list[float]] = {"empty": [], "full": []}
                for repeat in range(REPEATS):
                    for state, database in (("empty", empty), ("full", full)):
                        times[state].append(milliseconds_per_instance(database, folder, f"1.3.{repeat}"))
                before, after = (statistics.median(times[state]) for state in ("empty", "full"))
                print(
                    f"{engine}: {before:.2f} ms an instance on an empty index, {after:.2f} ms with {count:,} of them: "
                    f"{after / before - 1:+.0%} (bar: +{bar} %)"
                )


if __name__ == "__main__":
    main()
