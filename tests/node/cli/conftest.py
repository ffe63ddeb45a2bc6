"""Commands run in this process, the way typer's users run them."""

from collections.abc import Callable

import pytest
from click.testing import Result
from structlog.testing import capture_logs
from typer.testing import CliRunner

from node.cli import app

Command = Callable[..., Result]


@pytest.fixture(scope="session")
def pacsgate() -> Command:
    """Run a command: ``pacsgate("assess", path, "--json")``. An exception that a user would see is a failed test."""

    def run(*arguments: object) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            # Logging is set up per process; a test must not leave its own behind.
            patch.setattr("node.cli.configure_logging", lambda *_: None)
            patch.setenv("TERM", "dumb")  # no colours inside words
            patch.setenv("COLUMNS", "300")  # no words in two lines
            with capture_logs():
                result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
