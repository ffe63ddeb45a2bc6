"""How commands speak: JSON to stdout for machines, tables for people, progress and errors to stderr."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

RESEARCH_USE = "Research use only. Not for diagnosis."

_WIDTH_WITHOUT_TERMINAL = 240
"""Wide enough that a row of a table stays on one line for grep."""

_out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
_err = Console(stderr=True, highlight=False, emoji=False)

_CONTROL_CHARACTERS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""C0 and C1 controls: text from a header could command the terminal it is shown on."""

VERDICT_STYLES = {"diagnostic": "green", "limited": "yellow", "non-diagnostic": "bold red", "not-assessed": "dim"}


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2).decode())


def print_text(text: str = "") -> None:
    """A line for people, left to the terminal to wrap. It may come from a header: nothing in it is interpreted."""
    _print(_out, text)


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(text.translate(_CONTROL_CHARACTERS), markup=False, soft_wrap=True, style=style)


def clear_screen() -> None:
    """Begin anew at the top of a terminal; nothing where the output is none."""
    _out.clear()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table for people. Cells that are verdicts are coloured."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # a UID that is cut off is of no use
    for row in rows:
        cells = ["" if cell is None else str(cell) for cell in row]
        table.add_row(*(_cell(cell) for cell in cells))
    _out.print(table)


def _cell(text: str) -> Any:
    from rich.text import Text

    return Text(text.translate(_CONTROL_CHARACTERS), style=VERDICT_STYLES.get(text, ""))


def progress(text: str) -> None:
    """A line of progress on stderr."""
    _print(_err, f"  {text}", style="dim")


def complain(message: str) -> None:
    """An error on stderr; the command goes on."""
    _print(_err, f"pacsgate: {message}", style="bold red")


def refuse(message: str, code: int = 2) -> NoReturn:
    """End the command with a message on stderr."""
    complain(message)
    raise typer.Exit(code)
