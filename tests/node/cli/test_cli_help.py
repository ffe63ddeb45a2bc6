"""The help of every command says what its docstring and its options say: no markup swallows a word of it."""

import re
from collections.abc import Callable, Iterator

import click
import pytest
import typer
from click.testing import Result

from node.cli import app

Command = Callable[..., Result]
_FRAME = re.compile(r"[─│╭╮╰╯\s]+")
"""What the help is drawn with."""


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from _commands(part, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _words(text: str) -> str:
    return _FRAME.sub(" ", text.replace("`", "")).strip()


def _texts(command: click.Command) -> Iterator[str]:
    """What its help must say: paragraphs of its docstring, its options, and the first ones of the commands below it."""
    yield from (command.help or "").split("\n\n")
    yield from (help_ for parameter in command.params if (help_ := getattr(parameter, "help", None)))
    for part in getattr(command, "commands", {}).values():
        yield (part.help or "").split("\n\n")[0]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_says_everything(pacsgate: Command, path: tuple[str, ...]) -> None:
    assert COMMANDS[path].help, "every command has a docstring"
    told = _words(pacsgate(*path, "--help").stdout)
    for text in _texts(COMMANDS[path]):
        assert _words(text) in told


def test_the_tags_of_the_configuration_are_not_taken_for_markup(pacsgate: Command) -> None:
    assert "[[peers]]" in pacsgate("peer", "--help").stdout
