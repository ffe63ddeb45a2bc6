"""Commands for a node on several hosts: hosts lists their processes, drain lets workers finish and stop taking work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.options import ConfigOption, DataDirOption, JsonOption, settings_of
from node.cli.output import print_json, print_table, print_text, refuse

if TYPE_CHECKING:
    from node.settings import Settings
    from storage.database import Database

POLL_S = 1.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(hosts)
    app.command()(drain)


def hosts(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """The processes of all hosts that share the index: what each does, and how long ago it last said that it lives."""
    from node.hosts import describe_executors

    with _index(config, data_dir) as (_, database):
        executors = describe_executors(database)
    if json:
        print_json(executors)
        return
    columns = ("slot", "kind", "state", "jobs", "queues", "pipeline_version", "silent_s")
    print_table("Processes", columns, [[_shown(row[column]) for column in columns] for row in executors])


def drain(
    everywhere: Annotated[bool, typer.Option("--all", help="the workers of all hosts, not only of this one")] = False,
    host: Annotated[str, typer.Option(help="another host than this one, as `pacsgate hosts` names it")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="let drained workers take work again")] = False,
    timeout_s: Annotated[float, typer.Option(min=0, help="give up after this many seconds; 0 waits for ever")] = 0,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Let workers finish what they have begun and take nothing new. Exit code 0 once they are empty, 1 on --timeout-s.

    Receivers go on: studies that arrive meanwhile wait. Jobs not yet begun wait for other hosts or for `--resume`.
    """
    from node.hosts import ask_to_drain, ask_to_resume, still_at_work

    with _index(config, data_dir) as (settings, database):
        of_host = None if everywhere else host or settings.host_name
        if resume:
            asked = ask_to_resume(database, of_host)
            print_json({"resumed": asked}) if json else print_text(f"{asked} worker(s) will take work again")
            return
        asked = ask_to_drain(database, of_host)
        tell: Callable[[str], None] = (lambda _: None) if json else print_text
        tell(f"{asked} worker(s) asked to finish")
        left = _wait_until_empty(
            lambda: still_at_work(database, of_host, settings.node.silent_after_s), timeout_s, tell
        )
    if json:
        print_json({"asked": asked, "at_work": left})
    if left:
        refuse(f"not finished after {timeout_s:g} s: {', '.join(row['slot'] for row in left)}", code=1)
    tell("Drained: no worker has a job in hand.")


def _wait_until_empty(
    look: Callable[[], list[dict[str, Any]]], timeout_s: float, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Poll until nothing is at work, telling each change; returns what still is when the time is up."""
    deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
    told = ""
    while left := look():
        now = "; ".join(f"{row['slot']}: {row['state']}, {row['jobs']} job(s)" for row in left)
        if now != told:
            tell(now)
            told = now
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    return left


def _shown(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value


@contextmanager
def _index(config: Path | None, data_dir: Path | None) -> Iterator[tuple["Settings", "Database"]]:
    """The settings and the index, or a refusal where there is none."""
    from storage.database import Database

    settings = settings_of(config, data_dir)
    if settings.database_url.startswith("sqlite") and not (settings.data_dir / "index.db").exists():
        refuse(f"no index at {settings.data_dir}; has `pacsgate up` run with this data directory?")
    database = Database(settings.database_url)
    try:
        yield settings, database
    finally:
        database.dispose()
