"""Statements of the hot path, rendered once per dialect: building one takes ten times as long as running it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

Converter = Callable[[Any], Any]


@dataclass(frozen=True)
class _Rendered:
    sql: str
    names: tuple[str, ...] | None
    """The order of positional parameters; None where the dialect names them."""
    defaults: dict[str, Any]
    converters: dict[str, Converter]


class Prepared:
    """One SQL statement with named parameters (`sqlalchemy.bindparam`), for any number of executions.

    Rows come back as the driver gives them: select columns that need no conversion (numbers and text).
    """

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._rendered: dict[str, _Rendered] = {}

    def __call__(self, connection: Connection, **values: Any) -> list[tuple[Any, ...]]:
        """Execute with ``values``; the rows it returns, if it is a query or has a RETURNING clause.

        Raises sqlalchemy.exc.DBAPIError where the database refuses.
        """
        rendered = self._rendered.get(connection.dialect.name) or self._render(connection.dialect)
        parameters = rendered.defaults | values
        for name, convert in rendered.converters.items():
            parameters[name] = convert(parameters[name])
        bound = parameters if rendered.names is None else tuple(parameters[name] for name in rendered.names)
        # Straight to the driver: what SQLAlchemy adds to an execution takes longer than the execution.
        cursor = connection.connection.cursor()
        try:
            cursor.execute(rendered.sql, bound)
            return list(cursor.fetchall()) if cursor.description else []
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(rendered.sql, None, error, hide_parameters=True) from error
        finally:
            cursor.close()

    def _render(self, dialect: Dialect) -> _Rendered:
        assert isinstance(self._statement, ClauseElement)
        compiled: Any = self._statement.compile(dialect=dialect)
        processors = {
            name: parameter.type.dialect_impl(dialect).bind_processor(dialect)
            for name, parameter in compiled.binds.items()
        }
        rendered = _Rendered(
            sql=compiled.string,
            names=tuple(compiled.positiontup) if compiled.positional else None,
            defaults=dict(compiled.params),
            converters={name: processor for name, processor in processors.items() if processor is not None},
        )
        self._rendered[dialect.name] = rendered
        return rendered
