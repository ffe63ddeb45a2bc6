"""Connections and transactions of the SQL index on SQLite and PostgreSQL, set up so that a commit is durable."""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session

from storage.postgresql import CONNECT_ARGUMENTS

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_WAIT_S = 30.0
"""How long a writer waits for another one. An ingest holds the lock for milliseconds; a migration for seconds."""
_JOURNAL_RETRY_S = 0.01
_TURN_RETRY_S = 0.0002
"""About a tenth of what a commit takes."""
POOL_SIZE = 8
MAX_OVERFLOW = 56
"""A receiver process has one thread per association; together with POOL_SIZE more than it may accept."""
MIGRATION_LOCK = 0x7061637367617465
"""Key of PostgreSQL's advisory lock for migrations: the bytes of "pacsgate"."""
_READ_ONLY = "pacsgate_read_only"


def sqlite_url(path: Path) -> str:
    """The database URL of an SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def migration_config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration for the migrations inside this package, bound to ``connection``."""
    from alembic.config import Config  # a seventh of a second that only those who migrate should wait

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


class Database:
    """The SQL index behind one URL.

    Make one per process, after any fork: connections do not survive one.

    Parameters
    ----------
    url
        ``sqlite:///...`` (see `sqlite_url`) or ``postgresql+psycopg://...``.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(f"the index runs on sqlite or postgresql+psycopg, not on {parsed.drivername!r}")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine: Engine = _sqlite_engine(parsed) if self.is_sqlite else _postgresql_engine(parsed)
        self._turn = _WriterTurn(Path(parsed.database)) if self.is_sqlite and parsed.database else None
        reading = {_READ_ONLY: True} if self.is_sqlite else {"postgresql_readonly": True}
        self._reading_engine = self.engine.execution_options(**reading)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in one transaction, as `session` without its bookkeeping: for the hot path."""
        with self._turn.taken() if self._turn else nullcontext(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session in one transaction: committed at the end, rolled back on any error.

        On SQLite it owns the writer's lock from its first statement on, so what it has read cannot change before it
        writes and it never has to be repeated.
        """
        with self.transaction() as connection, Session(connection, expire_on_commit=False) as session:
            yield session
            session.commit()  # joins the transaction, which commits or rolls back as a whole

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on a snapshot for readers: it takes no writer's lock."""
        with Session(self._reading_engine, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the schema to the newest version.

        Safe when several processes start at once: each does it in one transaction that holds the writer's lock of
        SQLite or an advisory lock of PostgreSQL, and finds nothing to do if another was first.
        """
        from alembic import command

        with self.engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            command.upgrade(migration_config(connection), "head")

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        if self._turn is not None:
            self._turn.close()


class _WriterTurn:
    """A queue before SQLite's one writer, for all threads and processes that write the same file.

    SQLite itself sleeps up to 100 ms between tries, which four busy senders feel. Who does not get its turn in time
    goes on without it: SQLite decides then, as it does with writers that are not ours.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-turn")
        self._thread = threading.Lock()
        self._descriptor = -1

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn during the block; without it after `LOCK_WAIT_S`."""
        deadline = time.monotonic() + LOCK_WAIT_S
        if not self._thread.acquire(timeout=LOCK_WAIT_S):
            yield
            return
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self._lock(deadline)
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._thread.release()

    def _lock(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_TURN_RETRY_S)
            else:
                return

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sqlite_engine(url: URL) -> Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=MAX_OVERFLOW,
        connect_args={"timeout": LOCK_WAIT_S, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    # READ COMMITTED, PostgreSQL's default: concurrent receivers wait for each other's rows instead of failing.
    return create_engine(
        url, pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW, pool_pre_ping=True, connect_args=CONNECT_ARGUMENTS
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(LOCK_WAIT_S * 1000)}")
    _switch_to_wal(cursor)
    # FULL, not NORMAL: an acknowledged instance must survive a power cut, so each commit is synced.
    cursor.execute("PRAGMA synchronous = FULL")
    # 40 MB of log before it is worked into the file: busy pages are then written once and not at every 120th instance.
    cursor.execute("PRAGMA wal_autocheckpoint = 10000")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """Use the write-ahead log. Processes that start a new index at once get in each other's way here.

    SQLite waits for no lock while it changes the journal, whatever the busy timeout.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_JOURNAL_RETRY_S)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails when another writer came in between.
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
