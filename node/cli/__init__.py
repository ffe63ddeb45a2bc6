"""The command line ``pacsgate``: one file per group of commands. Heavy imports happen inside the commands."""

import logging

import typer

from node.cli import (
    delivery_commands,
    evaluate_commands,
    hosts_commands,
    node_commands,
    offline_commands,
    operate_commands,
    peer_commands,
    train_commands,
)
from node.log import configure_logging

app = typer.Typer(
    name="pacsgate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # in rich's own markup, [[peers]] is a tag and vanishes
    help="A DICOM node between scanner and PACS: image quality first, then lesion detection, answered in DICOM "
    "SR and SEG. Research use only, not for diagnosis.",
)


@app.callback()
def prepare() -> None:
    """Commands speak to people through their own output; the log keeps to what went wrong."""
    configure_logging("cli", logging.WARNING)


node_commands.register(app)
hosts_commands.register(app)
offline_commands.register(app)
operate_commands.register(app)
peer_commands.register(app)
delivery_commands.register(app)
train_commands.register(app)
evaluate_commands.register(app)


def main() -> None:
    """Console script."""
    app()
