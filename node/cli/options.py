"""Options that several commands share, and reading the settings for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.output import refuse
from node.settings import ConfigurationError, Settings, load_settings

if TYPE_CHECKING:
    from storage.database import Database

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; default: $PACSGATE_CONFIG, else the built-in defaults")
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="where index, objects and spool are; overrides [storage] data_dir")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines instead of tables for people")]


def settings_of(config: Path | None, data_dir: Path | None) -> Settings:
    """The effective settings, or a clear refusal."""
    try:
        if data_dir is None:
            return load_settings(config)
        base = load_settings(config)
        return load_settings(config, storage=base.storage.model_copy(update={"data_dir": data_dir}).model_dump())
    except ConfigurationError as error:
        refuse(str(error))


@contextmanager
def open_index(config: Path | None, data_dir: Path | None) -> Iterator["Database"]:
    """The node's index, or a refusal where there is none."""
    from storage.database import Database
    from storage.errors import StorageError

    settings = settings_of(config, data_dir)
    if settings.database_url.startswith("sqlite") and not (settings.data_dir / "index.db").exists():
        refuse(f"no index at {settings.data_dir}; has `pacsgate up` run with this data directory?")
    database = Database(settings.database_url)
    try:
        yield database
    except StorageError as error:
        refuse(str(error))
    finally:
        database.dispose()
