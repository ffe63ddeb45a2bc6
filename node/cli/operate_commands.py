"""Commands that operate a node through its index: studies list/show/replay, status, token create."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import ConfigOption, DataDirOption, JsonOption, settings_of
from node.cli.output import print_json, print_table, print_text, refuse

if TYPE_CHECKING:
    from storage.database import Database

StudyArgument = Annotated[str, typer.Argument(help="Study Instance UID", show_default=False)]
ROLES = ("viewer", "technologist", "radiologist", "administrator")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    studies = typer.Typer(no_args_is_help=True, help="The studies in the node's index.")
    studies.command("list")(studies_list)
    studies.command("show")(studies_show)
    studies.command("replay")(studies_replay)
    app.add_typer(studies, name="studies")
    app.command()(status)
    token = typer.Typer(no_args_is_help=True, help="Bearer tokens of the web interface.")
    token.command("create")(token_create)
    app.add_typer(token, name="token")


@contextmanager
def _index(config: Path | None, data_dir: Path | None) -> Iterator["Database"]:
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


def studies_list(
    limit: Annotated[int, typer.Option(min=1, help="how many, newest first")] = 50,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """The studies received last, with state and verdict."""
    from node.studies import list_studies

    with _index(config, data_dir) as database:
        studies = list_studies(database, limit)
    if json:
        print_json(studies)
        return
    columns = ("study_instance_uid", "patient_name", "study_date", "instances", "revision", "state", "verdict")
    print_table("Studies", columns, [[study[column] for column in columns] for study in studies])


def studies_show(
    study: StudyArgument, config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonOption = False
) -> None:
    """One study in full: series, verdicts, candidates, result objects, deliveries and its journal."""
    from node.studies import show_study

    with _index(config, data_dir) as database:
        document = show_study(database, study)
    if json:
        print_json(document)
        return
    print_text(f"Patient {document['patient_name']} (ID {document['patient_id']}), study {study}")
    print_text(f"Revision {document['revision']} {document['state']}: {document['verdict'] or 'no verdict yet'}")
    if document["failure"]:
        print_text(f"Failure: {document['failure']}")
    _print_series(document)
    _print_results(document)
    print_table(
        "Journal", ("at", "event", "message"), [(e["at"][:19], e["event"], e["message"]) for e in document["journal"]]
    )


def _print_series(document: dict[str, Any]) -> None:
    judged = {s["series_instance_uid"]: s for s in (document["assessment"] or {}).get("series", [])}
    rows = []
    for series in document["series"]:
        # While the study is being received, what the series said when it closed is newer than what the study said.
        own = series["assessment"] if document["state"] == "receiving" else None
        verdict = own or judged.get(series["series_instance_uid"], {})
        completion = series["completion"]
        rows.append(
            (
                series["series_number"],
                series["series_description"],
                series["instances"],
                f"{completion['evidence']}, {completion['confidence']}" if completion["closed"] else "open",
                verdict.get("role"),
                verdict.get("verdict"),
                verdict.get("reason"),
            )
        )
    print_table("Series", ("no", "description", "instances", "closed by", "role", "verdict", "why"), rows)


def _print_results(document: dict[str, Any]) -> None:
    detection = document["detection"]
    if detection:
        print_text(f"Detection: {detection['state']}. {detection['reason']}")
    rows = [
        (
            item["kind"],
            item["sop_instance_uid"],
            ", ".join(f"{d['destination']}: {d['state']} {d['status']}" for d in item["deliveries"]) or "not sent",
        )
        for item in document["objects"]
    ]
    print_table("Results", ("kind", "SOP Instance UID", "deliveries"), rows)


def studies_replay(
    study: StudyArgument,
    reprocess: Annotated[
        bool, typer.Option("--reprocess", help="judge the study anew as its next revision instead of sending again")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Send the study's results again to every destination configured now (same objects, same UIDs).

    A running node does the work.
    """
    from node.settings import ObjectKind
    from node.workflow.version import PIPELINE_VERSION
    from storage.deliveries import send_again
    from storage.journal import record
    from storage.models import utc_now
    from storage.revisions import open_again

    settings = settings_of(config, data_dir)
    destinations_of = {kind.value: settings.receivers_of(kind) for kind in ObjectKind}
    with _index(config, data_dir) as database, database.session() as session:
        if reprocess:
            revision = open_again(session, study, utc_now(), PIPELINE_VERSION)
            message = f"revision {revision.number} will be processed"
        else:
            count = send_again(session, study, destinations_of, utc_now())
            if count == 0:
                refuse(f"study {study} has no result that a configured destination receives; try --reprocess")
            message = f"{count} deliveries are due again"
        record(session, "replayed", message, study)
    print_text(message)


def status(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Whether the node keeps up: studies by state, open associations, deliveries by destination."""
    from node.studies import node_status

    with _index(config, data_dir) as database:
        document = node_status(database)
    if json:
        print_json(document)
        return
    rows = [(key, document[key]) for key in ("studies", "instances", "open_associations")]
    rows += [(f"revisions {state}", count) for state, count in document["revisions"].items()]
    rows += [(f"deliveries to {d['destination']} {d['state']}", d["count"]) for d in document["deliveries"]]
    print_table("Status", ("what", "count"), rows)


def token_create(
    name: Annotated[str, typer.Argument(help="who or what the token is for", show_default=False)],
    role: Annotated[str, typer.Option(help=", ".join(ROLES))],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print a new bearer token for the web interface. It is shown once; the node keeps only its hash."""
    from storage.tokens import create_token

    if role not in ROLES:
        refuse(f"unknown role {role!r}; choose one of {', '.join(ROLES)}")
    with _index(config, data_dir) as database:
        print_text(create_token(database, name, role))
