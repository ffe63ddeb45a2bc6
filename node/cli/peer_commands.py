"""Commands that help to write [[peers]] into the configuration: peer passcode, peer certificate."""

from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import print_text, refuse


def register(app: typer.Typer) -> None:
    """Add the commands."""
    peer = typer.Typer(no_args_is_help=True, help="What a [[peers]] entry is made of.")
    peer.command("passcode")(peer_passcode)
    peer.command("certificate")(peer_certificate)
    app.add_typer(peer, name="peer")


def peer_passcode(
    passcode: Annotated[
        str,
        typer.Option(
            prompt=True, hide_input=True, confirmation_prompt=True, help="asked for; on the command line others see it"
        ),
    ],
) -> None:
    """Ask for a passcode and print the line that makes a peer give it (user identity, with `username`)."""
    from node.dimse.user_identity import Passcodes

    if not passcode:
        refuse("an empty passcode is none: leave passcode_hash out and keep username")
    print_text(f'passcode_hash = "{Passcodes().hash(passcode)}"')


def peer_certificate(
    file: Annotated[Path, typer.Argument(help="the peer's certificate, PEM", show_default=False)],
) -> None:
    """Print the lines that bind a peer to its certificate: its fingerprint, and its names; either will do."""
    from node.settings import ConfigurationError
    from node.tls import describe_certificate

    try:
        fingerprint, names = describe_certificate(file)
    except ConfigurationError as error:
        refuse(str(error))
    print_text("tls = true")
    print_text(f'certificate_sha256 = "{fingerprint}"')
    for name in names:
        print_text(f'certificate_name = "{name}"')
