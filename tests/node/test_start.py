"""What a process loads at its start: the command line, the receiver and the web answer without the heavy libraries."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from storage.database import Database, sqlite_url

HEAVY = ("torch", "monai", "scipy", "skimage", "dbos")
START_S = 1.0

PROGRAM = textwrap.dedent(
    """
    import json, sys
    sys.argv = ["pacsgate", *sys.argv[1:]]
    from node.cli import main
    try:
        main()
    except SystemExit as end:
        print(json.dumps([end.code or 0, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
    """
)


def run(*arguments: str) -> tuple[float, int, set[str]]:
    """Seconds of processor time, exit code and top-level modules of a command."""
    before_s = _children_s()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return _children_s() - before_s, code, set(modules)


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    database = Database(sqlite_url(folder / "index.db"))
    database.migrate()
    database.dispose()
    return folder


@pytest.mark.parametrize(
    "command", ["--help", "status", "studies list", "config show", "token create me --role viewer"]
)
def test_a_command_starts_within_a_second_without_the_heavy_libraries(data_dir: Path, command: str) -> None:
    """Processor time of the best of three, not the clock: other tests may be running."""
    where = [] if command == "--help" else ["--data-dir", str(data_dir)]
    if command.startswith("token"):
        runs = [run(*command.replace("me", f"me{number}").split(), *where) for number in range(3)]
    else:
        runs = [run(*command.split(), *where) for _ in range(3)]
    for _, code, modules in runs:
        assert code == 0
        assert modules.isdisjoint(HEAVY)
    assert min(spent_s for spent_s, _, _ in runs) < START_S


@pytest.mark.parametrize("module", ["node.dimse.server", "node.web.app", "node.web.server", "node.supervisor"])
def test_receiver_and_web_load_no_image_processing(module: str) -> None:
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint(HEAVY)
