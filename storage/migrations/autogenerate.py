"""For developers: ``python -m storage.migrations.autogenerate MESSAGE`` writes the version that the models ask for.

It compares the models with the newest version on an empty SQLite database and writes what differs into ``versions``.
Read it before committing: renames look like a drop and an add, and a change of an existing table must go through
``op.batch_alter_table``, which SQLite needs.
"""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from storage.database import Database, migration_config, sqlite_url


def main(message: str) -> None:
    """Write the next version."""
    number = len(list(ScriptDirectory.from_config(migration_config()).walk_revisions())) + 1
    with tempfile.TemporaryDirectory() as folder:
        database = Database(sqlite_url(Path(folder) / "empty.db"))
        database.migrate()
        with database.engine.begin() as connection:
            command.revision(migration_config(connection), message, autogenerate=True, rev_id=f"{number:04d}")
        database.dispose()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
