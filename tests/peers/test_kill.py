"""kill -9 of each process at every step of the way: the study finishes, nothing acknowledged is missing, nothing is
delivered twice under different UIDs. On SQLite and on PostgreSQL."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from sqlalchemy import select

from storage.database import Database
from storage.models import Instance
from storage.objects import ObjectStore
from tests.fixtures.dcmtk import Pacs, storescp, storescu, tool
from tests.fixtures.running_node import RunningNode, make_node, running_node

pytestmark = [pytest.mark.peers, pytest.mark.slow]

ACKNOWLEDGED = "Received Store Response (Success)"
STEPS = ("study.assemble", "study.assess", "study.gate", "study.detect", "study.report", "delivery.deliver")


@pytest.fixture(params=["sqlite", "postgresql"])
def index_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'data' / 'index.db'}"
    return str(request.getfixturevalue("empty_postgresql_url"))


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    with storescp(tmp_path / "pacs") as pacs:
        yield pacs


@pytest.fixture
def node(tmp_path: Path, pacs: Pacs, index_url: str) -> Iterator[RunningNode]:
    url = "" if index_url.startswith("sqlite") else index_url
    with running_node(make_node(tmp_path, {"PACS": pacs.port}, database_url=url)) as node:
        yield node


def wait_for_step(node: RunningNode, step: str) -> None:
    node.wait_until(lambda: f'"step": "{step}"' in node.log.read_text(), 60, f"step {step} starts", poll_s=0.01)


def runs(pid: int) -> bool:
    """Whether the process executes; a zombie that nobody has reaped does not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def study_uid(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def assert_whole(node: RunningNode, pacs: Pacs, index_url: str, files: list[Path], shown: dict[str, Any]) -> None:
    """Every instance is there byte for byte (as received), every result at the PACS once."""
    sent = {str(ds.SOPInstanceUID): ds.PixelData for ds in map(pydicom.dcmread, files)}
    database, objects = Database(index_url), ObjectStore(node.folder / "data" / "objects")
    with database.read() as session:
        rows = session.execute(select(Instance.sop_instance_uid, Instance.object_digest)).all()
    database.dispose()
    assert {uid for uid, _ in rows} == set(sent)
    for uid, digest in rows:
        assert pydicom.dcmread(objects.verified_path(digest)).PixelData == sent[uid]
    results = {item["sop_instance_uid"] for item in shown["objects"]}
    assert {item["kind"] for item in shown["objects"]} == {"quality-report", "lesion-report", "segmentation"}
    assert {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in pacs.files()} == results
    assert shown["revision"] == 1


def resend(node: RunningNode, files: list[Path]) -> None:
    def accepted() -> bool:
        return storescu(node.dicom_port, files).returncode == 0

    node.wait_until(accepted, 30, "the study is sent again")


def complete(node: RunningNode, files: list[Path]) -> dict[str, Any] | None:
    """The study once all instances are in and the last revision is delivered (an early close makes two revisions)."""
    shown = node.show(study_uid(files))
    if shown is None:
        return None
    deliveries = [d["state"] for item in shown["objects"] for d in item["deliveries"]]
    whole = shown["instances"] == len(files) and shown["state"] == "finished"
    return shown if whole and deliveries and set(deliveries) == {"delivered"} else None


def answering(node: RunningNode) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{node.web_port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    return answers


def failures(node: RunningNode, files: list[Path]) -> int:
    """How many attempts at all three objects have failed."""
    shown = node.show(study_uid(files))
    return sum(entry["event"] == "delivery-failed" for entry in shown["journal"]) // 3 if shown else 0


class TestWorkerKilled:
    """At the start of each step. A class of its own so that parallel runs share the load."""

    @pytest.mark.parametrize("step", STEPS)
    def test_worker_killed(
        self, node: RunningNode, pacs: Pacs, index_url: str, simulated_files: list[Path], step: str
    ) -> None:
        assert storescu(node.dicom_port, simulated_files).returncode == 0
        wait_for_step(node, step)
        os.kill(node.pid_of("worker-0"), signal.SIGKILL)
        shown = node.wait_delivered(study_uid(simulated_files))
        node.wait_until(lambda: "process.died" in node.log.read_text(), 10, "the supervisor notices")
        assert_whole(node, pacs, index_url, simulated_files, shown)


class TestOthersKilled:
    """Receiver, supervisor, web, everything at once, and a PACS that is away."""

    @pytest.mark.parametrize("step", ["receiving", "study.assess", "delivery.deliver"])
    def test_everything_killed_at_once(
        self, node: RunningNode, pacs: Pacs, index_url: str, simulated_files: list[Path], step: str
    ) -> None:
        """A power cut: supervisor and all processes die together; the node is started again."""
        assert storescu(node.dicom_port, simulated_files).returncode == 0
        if step != "receiving":
            wait_for_step(node, step)
        node.kill()
        node.start()
        shown = node.wait_delivered(study_uid(simulated_files))
        assert_whole(node, pacs, index_url, simulated_files, shown)

    def test_supervisor_killed_alone(
        self, node: RunningNode, pacs: Pacs, index_url: str, simulated_files: list[Path]
    ) -> None:
        """Its children end by themselves; a node started at once waits for them and goes on."""
        assert storescu(node.dicom_port, simulated_files).returncode == 0
        wait_for_step(node, "study.assess")
        assert node.process is not None
        worker = node.pid_of("worker-0")
        node.process.kill()
        node.process.wait(10)
        node.start()
        node.wait_until(lambda: node.pid_of("worker-0") != worker, 60, "the next worker starts")
        assert not runs(worker), "two workers of one slot at once"
        shown = node.wait_delivered(study_uid(simulated_files))
        assert_whole(node, pacs, index_url, simulated_files, shown)

    def test_receiver_killed_while_it_receives(
        self, node: RunningNode, pacs: Pacs, index_url: str, simulated_files: list[Path]
    ) -> None:
        """What storescu saw acknowledged is there; sent again, the study completes as if nothing had happened."""
        command = [tool("storescu"), "-v", "--aetitle", "SCANNER", "--call", "PACSGATE", "--required"]
        sender = subprocess.Popen(
            [*command, "127.0.0.1", str(node.dicom_port), *map(str, simulated_files)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert sender.stdout is not None
        output: list[str] = []
        receiver = node.pid_of("receiver-0")
        for line in sender.stdout:
            output.append(line)
            if ACKNOWLEDGED in line and sum(ACKNOWLEDGED in text for text in output) == 20:
                os.kill(receiver, signal.SIGKILL)
        sender.wait(30)
        acknowledged = sum(ACKNOWLEDGED in line for line in output)
        assert acknowledged >= 20
        sent_order = [line.split("Sending file:")[1].strip() for line in output if "Sending file:" in line]
        expected = {
            str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in sent_order[:acknowledged]
        }
        node.wait_until(node.listens, 30, "the receiver is back")
        database = Database(index_url)
        with database.read() as session:
            indexed = set(session.scalars(select(Instance.sop_instance_uid)))
        database.dispose()
        assert expected <= indexed
        assert len(indexed) < len(simulated_files), "the kill came too late to prove anything"
        resend(node, simulated_files)
        shown = node.wait_until(lambda: complete(node, simulated_files), 120, "the whole study is delivered")
        assert {item["kind"] for item in shown["objects"]} == {"quality-report", "lesion-report", "segmentation"}

    def test_web_killed_comes_back(self, tmp_path: Path) -> None:
        with running_node(make_node(tmp_path, {})) as node:
            answers = answering(node)
            node.wait_until(answers, 30, "the web process answers")
            os.kill(node.pid_of("web-0"), signal.SIGKILL)
            time.sleep(0.1)
            node.wait_until(answers, 30, "the web process answers again")
            assert re.search(r'"slot": "web-0".*"process.died"', node.log.read_text())

    def test_dead_pacs_is_tried_again_until_it_is_back(self, tmp_path: Path, simulated_files: list[Path]) -> None:
        with storescp(tmp_path / "first") as pacs:
            port = pacs.port
        node = make_node(tmp_path, {"PACS": port}, first_retry_s=0.5)
        with running_node(node):
            assert storescu(node.dicom_port, simulated_files).returncode == 0
            node.wait_until(lambda: failures(node, simulated_files) >= 2, 60, "two attempts failed")
            folder = tmp_path / "second"
            folder.mkdir()
            command = [
                tool("storescp"),
                "--aetitle",
                "PACS",
                "--output-directory",
                str(folder),
                "--accept-all",
                str(port),
            ]
            server = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"})
            try:
                shown = node.wait_delivered(study_uid(simulated_files))
            finally:
                server.terminate()
                server.wait(10)
        assert {str(pydicom.dcmread(p).SOPInstanceUID) for p in folder.iterdir()} == {
            item["sop_instance_uid"] for item in shown["objects"]
        }
