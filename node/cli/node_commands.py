"""Commands that run the node and show its configuration: up, config show, doctor."""

import os
import signal
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.options import ConfigOption, DataDirOption, JsonOption, settings_of
from node.cli.output import print_json, print_table, print_text, refuse

if TYPE_CHECKING:
    from node.settings import Settings, TlsSettings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(doctor)
    config_app = typer.Typer(no_args_is_help=True, help="The effective configuration.")
    config_app.command("show")(config_show)
    app.add_typer(config_app, name="config")


def up(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    roles: Annotated[
        str, typer.Option(help="what this host does, of receiver,worker,web; overrides [node] roles")
    ] = "",
) -> None:
    """Run the node: receiver, worker and web processes under one supervisor. Ctrl-C or SIGTERM drains and stops."""
    from node import audit
    from node.log import configure_logging
    from node.signals import stop_on
    from node.supervisor import DataDirectoryInUse, Supervisor, prepare

    if roles:
        os.environ["PACSGATE_NODE__ROLES"] = dumps([role.strip() for role in roles.split(",")])
    settings = settings_of(config, data_dir)
    if settings.tls.enabled:
        _check_certificates(settings.tls)
    _calibration(settings)
    configure_logging("supervisor")
    stop = stop_on({signal.SIGTERM, signal.SIGINT})
    try:
        with prepare(settings) as lock, audit.running(settings, "supervisor"):
            Supervisor(settings, config, lock).run(stop)
    except DataDirectoryInUse as error:
        refuse(str(error))


def _check_certificates(tls: "TlsSettings") -> None:
    """Refuse to start with certificate files that every receiver would die of, again and again."""
    from node.settings import ConfigurationError
    from node.tls import server_context

    try:
        server_context(tls)
    except ConfigurationError as error:
        refuse(str(error))


def _calibration(settings: "Settings") -> str:
    """What judges image quality, in a line; refuses a file that every worker would die of."""
    from node.calibration import calibration_in_words
    from node.settings import ConfigurationError

    try:
        return calibration_in_words(settings)
    except ConfigurationError as error:
        refuse(str(error))


def config_show(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Print every option, its effective value and the reason of its default."""
    from pydantic import BaseModel

    from node.settings import Rule

    settings = settings_of(config, data_dir)
    document = settings.model_dump(mode="json")
    document["storage"]["database_url"] = _without_password(settings.storage.database_url)
    for peer in document["peers"]:
        peer["passcode_hash"] = "(set)" if peer["passcode_hash"] else ""
    if json:
        print_json(document)
        return
    rows = []
    for section_name in type(settings).model_fields:
        section = getattr(settings, section_name)
        if isinstance(section, BaseModel):
            for key, info in type(section).model_fields.items():
                rows.append((f"{section_name}.{key}", document[section_name][key], info.description or ""))
        else:
            for entry in section:
                told = (
                    ", ".join(entry.destinations)
                    if isinstance(entry, Rule)
                    else f"{entry.ae_title}@{entry.host}:{entry.port}"
                )
                rows.append((f"[[{section_name}]] {entry.name}", told, ""))
    print_table("Configuration", ("option", "value", "why"), rows)
    print_text(f"Image quality is judged by: {_calibration(settings)}")


def _without_password(url: str) -> str:
    """The database URL as it may be shown to somebody looking over a shoulder."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True) if url else ""
    except ArgumentError:
        return "(not a database URL)"


def doctor(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Check what the node needs: packages, decoders, disk, index, ports, destinations. Exit code 1 on a failure."""
    from node.doctor import examine

    checks = examine(settings_of(config, data_dir))
    if json:
        print_json([check.__dict__ for check in checks])
    else:
        print_table("Doctor", ("check", "state", "detail"), [(c.name, c.state, c.detail) for c in checks])
    if any(check.state == "fail" for check in checks):
        refuse("something the node needs is missing; see above", code=1)
    if not json:
        print_text("The node can run.")
