"""Commands of delivery and routing: destinations list/pause/resume, deliveries list/retry, rules test/check."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import ConfigOption, DataDirOption, JsonOption, open_index, settings_of
from node.cli.output import complain, print_json, print_table, print_text, progress, refuse

if TYPE_CHECKING:
    from node.settings import Settings
    from storage.database import Database

NameArgument = Annotated[str, typer.Argument(help="name of a [[destinations]] entry", show_default=False)]
STATES = ("pending", "delivered", "failed")
_DRAINED_WITHIN_S = 300.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    destinations = typer.Typer(no_args_is_help=True, help="Where objects go: how each destination stands; pause it.")
    destinations.command("list")(destinations_list)
    destinations.command("pause")(destinations_pause)
    destinations.command("resume")(destinations_resume)
    app.add_typer(destinations, name="destinations")
    deliveries = typer.Typer(no_args_is_help=True, help="Objects on their way: waiting, delivered, given up.")
    deliveries.command("list")(deliveries_list)
    deliveries.command("retry")(deliveries_retry)
    app.add_typer(deliveries, name="deliveries")
    rules = typer.Typer(no_args_is_help=True, help="The routing rules of the configuration.")
    rules.command("test")(rules_test)
    rules.command("check")(rules_check)
    app.add_typer(rules, name="rules")


def destinations_list(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Every destination: paused or not, what waits for it, when it last took an object, how it last failed."""
    from node.deliveries import destinations_of

    settings = settings_of(config, data_dir)
    with open_index(config, data_dir) as database, database.read() as session:
        found = destinations_of(session, settings)
    if json:
        print_json(found)
        return
    rows = [
        (
            d["name"],
            d["address"] or "no longer configured",
            f"paused: {d['paused_reason']}" if d["paused_at"] else "sending" if d["sending_since"] else "open",
            *(d[state] for state in STATES),
            (d["last_success_at"] or "")[:19],
            f"{d['last_failure_at'][:19]} {d['last_failure']}" if d["last_failure_at"] else "",
        )
        for d in found
    ]
    print_table("Destinations", ("name", "address", "state", *STATES, "last success", "last failure"), rows)


def destinations_pause(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="why, for whoever sees it paused", show_default=False)],
    drain: Annotated[bool, typer.Option("--drain", help="wait until nothing is on its way there any more")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Send nothing more to a destination until it is resumed. The batch on its way is finished; nothing is lost."""
    from storage.destinations import pause
    from storage.journal import record
    from storage.models import utc_now

    settings = settings_of(config, data_dir)
    with open_index(config, data_dir) as database:
        _known_or_refuse(database, settings, name)
        with database.session() as session:
            pause(session, name, reason, utc_now())
            record(session, "destination-paused", f"{name}: {reason}", destination=name)
        print_text(f"{name} is paused")
        if drain:
            _wait_until_drained(database, name)


def destinations_resume(name: NameArgument, config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Send to a destination again, at once also what was waiting for its next attempt."""
    from storage.destinations import resume
    from storage.journal import record
    from storage.models import utc_now

    settings = settings_of(config, data_dir)
    with open_index(config, data_dir) as database:
        _known_or_refuse(database, settings, name)
        with database.session() as session:
            count = resume(session, name, utc_now())
            record(session, "destination-resumed", f"{name}: {count} deliveries are due", destination=name)
    print_text(f"{name} is open; {count} deliveries are due")


def _known_or_refuse(database: "Database", settings: "Settings", name: str) -> None:
    from storage.destinations import all_destinations

    with database.read() as session:
        names = {destination.name for destination in settings.destinations}
        names |= {state.name for state in all_destinations(session)}
    if name not in names:
        refuse(f"no destination is named {name!r}; there are: {', '.join(sorted(names)) or 'none'}")


def _wait_until_drained(database: "Database", name: str) -> None:
    from storage.destinations import destination_state

    deadline = time.monotonic() + _DRAINED_WITHIN_S
    while time.monotonic() < deadline:
        with database.session() as session:
            if destination_state(session, name).sending_since is None:
                print_text(f"nothing is on its way to {name}")
                return
        progress("finishing the batch on its way")
        time.sleep(1)
    refuse(f"something is still on its way to {name} after {_DRAINED_WITHIN_S:g} s; see the node's log", code=1)


def deliveries_list(
    state: Annotated[str | None, typer.Option("--state", help=", ".join(STATES))] = None,
    destination: Annotated[str | None, typer.Option("--destination", help="of this destination only")] = None,
    study: Annotated[str | None, typer.Option("--study", help="of this Study Instance UID only")] = None,
    warnings: Annotated[bool, typer.Option("--warnings", help="delivered, but with a warning status")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="how many, newest first")] = 100,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Deliveries with state, attempts and last status; `--state failed` are those given up, with the reason."""
    from node.deliveries import list_deliveries

    if state is not None and state not in STATES:
        refuse(f"unknown state {state!r}; choose one of {', '.join(STATES)}")
    with open_index(config, data_dir) as database:
        found = list_deliveries(database, state, destination, study, limit, warnings)
    if json:
        print_json(found)
        return
    columns = ("id", "kind", "sop_instance_uid", "destination", "state", "attempts", "status", "sent_as")
    print_table("Deliveries", columns, [[row[column] for column in columns] for row in found])


def deliveries_retry(
    delivery: Annotated[int | None, typer.Argument(help="id of one delivery, see `deliveries list`")] = None,
    destination: Annotated[str | None, typer.Option("--destination", help="all given up at this destination")] = None,
    study: Annotated[str | None, typer.Option("--study", help="all given up of this Study Instance UID")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that was given up anywhere")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Try again what was given up, with all its attempts anew. A running node does the work."""
    from storage.deliveries import retry_failed
    from storage.journal import record
    from storage.models import utc_now

    if delivery is None and destination is None and study is None and not everything:
        refuse("say which: an id, --destination, --study, or --all")
    with open_index(config, data_dir) as database, database.session() as session:
        count = retry_failed(session, utc_now(), destination, study, delivery)
        if count == 0:
            refuse("nothing that was given up fits; see `pacsgate deliveries list --state failed`")
        chosen = {"delivery": delivery, "destination": destination, "study": study}
        record(session, "deliveries-retried", f"{count} deliveries are due again", study or "", **chosen)
    print_text(f"{count} deliveries are due again")


def rules_test(
    study: Annotated[str, typer.Argument(help="Study Instance UID", show_default=False)],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Explain on a study of the index which rules hold and why, and what would be sent where. Nothing is sent.

    `--config FILE` may name a file that no node runs with yet.
    """
    from node.routing.explain import explain

    settings = settings_of(config, data_dir)
    with open_index(config, data_dir) as database, database.read() as session:
        document = explain(session, settings, study)
    if json:
        print_json(document)
        return
    print_text(f"Study {study}, revision {document['revision']}; rules {document['rules_version']}")
    _print_decision("Results", document["results"])
    for series in document["originals"]:
        title = f"Original images of {series['modality']} series {series['series_instance_uid']}"
        _print_decision(f"{title} {series['series_description']}", series)


def _print_decision(title: str, decision: dict[str, Any]) -> None:
    print_text()
    print_text(title)
    words = {True: "met", False: "not met", None: "not known yet"}
    rows = []
    for rule in decision["rules"]:
        conditions = [("when", c) for c in rule["when"]] + [("unless", c) for c in rule["unless"]]
        rows.append((rule["name"], rule["outcome"], "" if conditions else "no condition", "", "", ""))
        rows += [
            (
                "",
                "",
                f"{side} {condition['condition']}",
                " or ".join(condition["expected"]),
                "not known yet" if condition["seen"] is None else ", ".join(condition["seen"]) or "(empty)",
                words[condition["met"]],
            )
            for side, condition in conditions
        ]
    if rows:
        print_table("Rules", ("rule", "outcome", "condition", "expected", "seen", "result"), rows)
    for send in decision["sends"]:
        echo = f" ({send['not_sent_back']} came from there and stay)" if send.get("not_sent_back") else ""
        objects = f"{send['objects']} {send['kind']}"
        print_text(f"  {objects} to {send['destination']}, {send['priority']}, because of {send['because']}{echo}")
    if decision["waits_for"]:
        print_text(f"  waits until it is known whether these hold: {', '.join(decision['waits_for'])}")
    for kind in decision["nowhere"]:
        print_text(f"  {kind} to nobody")


def rules_check(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Validate the configuration's rules, and point out what is allowed but probably not meant."""
    from node.routing.explain import shortcomings
    from node.routing.rules import rules_version

    settings = settings_of(config, data_dir)
    found = list(shortcomings(settings))
    if json:
        document = {"rules": len(settings.rules), "rules_version": rules_version(settings), "shortcomings": found}
        print_json(document)
        return
    for shortcoming in found:
        complain(shortcoming)
    print_text(f"{len(settings.rules)} rules are valid (version {rules_version(settings)})")
