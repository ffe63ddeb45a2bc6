"""How commands speak: JSON to stdout for machines, tables for people, progress and errors to stderr."""

from collections.abc import Sequence
from typing import Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

RESEARCH_USE = "Research use only. Not for diagnosis."

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

VERDICT_STYLES = {"diagnostic": "green", "limited": "yellow", "non-diagnostic": "bold red", "not-assessed": "dim"}


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2).decode())


def print_text(text: str = "") -> None:
    """A line for people (markup of rich is not interpreted: the text may come from a header)."""
    _out.print(text, markup=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table for people. Cells that are verdicts are coloured."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        cells = ["" if cell is None else str(cell) for cell in row]
        table.add_row(*(_cell(cell) for cell in cells))
    _out.print(table)


def _cell(text: str) -> Any:
    from rich.text import Text

    return Text(text, style=VERDICT_STYLES.get(text, ""))


def progress(text: str) -> None:
    """A line of progress on stderr."""
    _err.print(f"  {text}", markup=False, style="dim")


def complain(message: str) -> None:
    """An error on stderr; the command goes on."""
    _err.print(f"pacsgate: {message}", markup=False, style="bold red")


def refuse(message: str, code: int = 2) -> NoReturn:
    """End the command with a message on stderr."""
    complain(message)
    raise typer.Exit(code)
