"""``pacsgate drain`` on a running node: workers finish and rest, what arrives waits, and goes on afterwards."""

import subprocess
from datetime import timedelta
from pathlib import Path

import pydicom
import pytest
from sqlalchemy import update

from storage.database import Database
from storage.models import Executor, ExecutorState, utc_now
from tests.fixtures.dcmtk import storescp, storescu
from tests.fixtures.running_node import PACSGATE, make_node, running_node

pytestmark = [pytest.mark.peers, pytest.mark.slow]

QUICK = '[node]\nhost_name = "here"\nheartbeat_interval_s = 0.5\nsilent_after_s = 3'


def test_a_drained_node_receives_and_goes_on_later(tmp_path: Path, simulated_files: list[Path]) -> None:
    uid = str(pydicom.dcmread(simulated_files[0], stop_before_pixels=True).StudyInstanceUID)
    with (
        storescp(tmp_path / "pacs") as pacs,
        running_node(make_node(tmp_path, {"PACS": pacs.port}, more=QUICK)) as node,
    ):
        node.wait_until(lambda: '"worker.started"' in node.log.read_text(), 30, "the worker starts")
        drained = node.command("drain", "--timeout-s", "30")
        assert drained == {"asked": 1, "at_work": []}
        assert storescu(node.dicom_port, simulated_files).returncode == 0
        states = {row["slot"]: row["state"] for row in node.command("hosts")}
        assert states.pop("here/worker-0") == "drained"
        assert states == dict.fromkeys(("here/indexer-0", "here/receiver-0", "here/web-0"), "running")
        assert '"step.started"' not in node.log.read_text()
        assert node.command("drain", "--resume") == {"resumed": 1}
        node.wait_delivered(uid)


def test_drain_says_what_is_not_finished_in_time(tmp_path: Path) -> None:
    node = make_node(tmp_path, {}, more=QUICK)
    url = f"sqlite:///{tmp_path / 'data' / 'index.db'}"
    database = Database(url)
    database.migrate()
    _enter_other_worker(database, "0.0.1")
    database.dispose()
    command = [PACSGATE, "drain", "--all", "--timeout-s", "0.1", "--config", node.config]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "elsewhere/worker-0" in run.stderr


def test_a_worker_waits_for_another_pipeline_version(tmp_path: Path) -> None:
    """It says so, and begins when the others have drained."""
    node = make_node(tmp_path, {}, more=QUICK)
    database = Database(f"sqlite:///{tmp_path / 'data' / 'index.db'}")
    database.migrate()
    _enter_other_worker(database, "0.0.1")
    with running_node(node):
        node.wait_until(lambda: '"worker.other-version"' in node.log.read_text(), 60, "it says what it waits for")
        assert '"worker.started"' not in node.log.read_text()
        with database.session() as session:
            session.execute(update(Executor).where(Executor.pid == 1).values(state=ExecutorState.DRAINED))
        node.wait_until(lambda: '"worker.started"' in node.log.read_text(), 60, "it begins")
        assert '"objects.not-shared"' in node.log.read_text(), "two hosts, and each its own files"
    database.dispose()


def _enter_other_worker(database: Database, version: str) -> None:
    now = utc_now()
    with database.session() as session:
        session.add(
            Executor(
                slot="elsewhere/worker-0",
                run_id="0" * 32,
                host="elsewhere",
                kind="worker",
                pid=1,
                queues=[],
                pipeline_version=version,
                state=ExecutorState.RUNNING,
                started_at=now,
                # Ahead, so that it does not fall silent while our own worker is still starting.
                seen_at=now + timedelta(minutes=5),
            )
        )
