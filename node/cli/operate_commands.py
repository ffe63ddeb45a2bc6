"""Commands that operate a node through its index: studies list/show/replay, status, token create."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import ConfigOption, DataDirOption, JsonOption, open_index, settings_of
from node.cli.output import clear_screen, print_json, print_table, print_text, refuse

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


def studies_list(
    limit: Annotated[int, typer.Option(min=1, help="how many, newest first")] = 50,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """The studies received last, with state and verdict."""
    from node.studies import list_studies

    with open_index(config, data_dir) as database:
        studies = list_studies(database, limit)
    if json:
        print_json(studies)
        return
    columns = ("study_instance_uid", "patient_name", "study_date", "instances", "revision", "state", "verdict")
    print_table("Studies", columns, [[study[column] for column in columns] for study in studies])


def studies_show(
    study: StudyArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="print the history only, and go on until Ctrl-C")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """One study in full: series, verdicts, candidates, result objects, deliveries and its history."""
    from node.studies import show_study

    with open_index(config, data_dir) as database:
        if follow:
            return _repeat(_HistoryFollower(database, study).print_new)
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
    print_text("History")
    for line in document["history"]:
        _print_line(line)


def _print_line(line: dict[str, Any]) -> None:
    since = line["since_previous_s"]
    print_text(f"{line['at'][:19]}  {'' if since is None else f'+{since:.1f} s':>12}  {line['text']}")


class _HistoryFollower:
    """Prints the lines of a study's history that it has not printed yet; a study that is not there yet has none."""

    def __init__(self, database: "Database", study: str) -> None:
        self._database = database
        self._study = study
        self._printed: set[tuple[str, str]] = set()

    def print_new(self) -> None:
        from node.studies import show_study
        from storage.revisions import UnknownStudy

        try:
            lines = show_study(self._database, self._study)["history"]
        except UnknownStudy:
            return
        for line in lines:
            key = (line["at"], line["text"])
            if key not in self._printed:
                self._printed.add(key)
                _print_line(line)


def _repeat(action: Callable[[], None]) -> None:
    """Do it every second until Ctrl-C."""
    try:
        while True:
            action()
            sys.stdout.flush()
            time.sleep(1)
    except KeyboardInterrupt:
        return


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
    for item in document["originals"]:
        print_text(f"{item['count']} original images to {item['destination']}: {item['state']} {item['status']}")


def studies_replay(
    study: StudyArgument,
    reprocess: Annotated[
        bool, typer.Option("--reprocess", help="judge the study anew as its next revision instead of sending again")
    ] = False,
    originals: Annotated[
        bool, typer.Option("--originals", help="the received images too, to wherever the rules send them now")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Send the study's results again to every destination that gets them now (same objects, same UIDs).

    A running node does the work.
    """
    from node.routing.route import forward_again, results_again
    from node.workflow.version import PIPELINE_VERSION
    from storage.journal import record
    from storage.models import utc_now
    from storage.revisions import open_again

    settings = settings_of(config, data_dir)
    with open_index(config, data_dir) as database, database.session() as session:
        if reprocess:
            revision = open_again(session, study, utc_now(), PIPELINE_VERSION)
            message = f"revision {revision.number} will be processed"
        else:
            count = results_again(session, settings, study, utc_now())
            if originals:
                count += forward_again(session, settings, study, utc_now())
            if count == 0:
                refuse(f"study {study} has no result that a configured destination receives; try --reprocess")
            message = f"{count} deliveries are due again"
        record(session, "replayed", message, study)
    print_text(message)


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="print it anew every second until Ctrl-C")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Whether the node keeps up: its components, studies by state, open associations, deliveries by destination."""
    from node.calibration import calibration_document
    from node.deliveries import destinations_of, last_configuration_change
    from node.health import HealthProbe
    from node.studies import node_status

    settings = settings_of(config, data_dir)
    with open_index(config, data_dir) as database:
        probe = HealthProbe(settings, database)

        def show() -> None:
            document = {**node_status(database), "health": probe.look().full()}
            document["calibration"] = calibration_document(settings)
            with database.read() as session:
                document["destinations"] = destinations_of(session, settings)
                document["configuration"] = last_configuration_change(session)
            if json:
                return print_json(document)
            if watch:
                clear_screen()
            _print_status(document)

        if watch:
            _repeat(show)
        else:
            show()


def _print_status(document: dict[str, Any]) -> None:
    components = document["health"]["components"]
    names = [f"{c['kind']} {c['name']}".strip() for c in components]
    rows = [(name, c["state"], c["detail"]) for name, c in zip(names, components, strict=True)]
    print_table("Components of this host", ("component", "state", "detail"), rows)
    counts = [(key, document[key]) for key in ("studies", "instances", "open_associations")]
    counts += [(f"revisions {state}", count) for state, count in document["revisions"].items()]
    counts += [(f"deliveries to {d['destination']} {d['state']}", d["count"]) for d in document["deliveries"]]
    counts += [
        (f"{d['name']} is paused since {d['paused_at'][:19]}", d["paused_reason"])
        for d in document["destinations"]
        if d["paused_at"]
    ]
    if document["configuration"]:
        change = document["configuration"]
        counts.append((f"{change['event']} {change['at'][:19]}", change["message"]))
    print_table("Status", ("what", "count"), counts)
    print_text(f"Image quality is judged by: {_calibration_line(document['calibration'])}")


def _calibration_line(calibration: dict[str, str] | None) -> str:
    if calibration is None:
        return "the cut points as shipped"
    return calibration.get("error") or f"{calibration['name']}, by {calibration['by']}, {calibration['when']}"


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
    with open_index(config, data_dir) as database:
        print_text(create_token(database, name, role))
