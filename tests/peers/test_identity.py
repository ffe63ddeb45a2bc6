"""No patient in any log line, metric, answer without token or journal: a whole node and the offline command, when all
goes well and when everything goes wrong.
"""

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import RLELossless, generate_uid

from tests.fixtures.dcmtk import storescp, storescu
from tests.fixtures.running_node import RunningNode, make_node, running_node

pytestmark = [pytest.mark.peers, pytest.mark.slow]

NAME, IDENTITY, BIRTH_DATE, ACCESSION = "Zzsurname^Yygiven", "ZZID4711", "18911231", "ZZACC0815"
SECRETS = re.compile(b"zzsurname|yygiven|zzid4711|18911231|1891-12-31|zzacc0815|zzother|zzvalue", re.IGNORECASE)
LOST_UID = "2.25.4711"
MISFITS = {"PatientAge": "AS", "PatientWeight": "DS", "StudyTime": "TM", "PatientSex": "CS", "InstanceNumber": "IS"}
"""Values that do not fit their representation make libraries speak."""


def _named(dataset: Dataset, name: str = NAME) -> Dataset:
    dataset.PatientName, dataset.PatientID = name, IDENTITY
    dataset.PatientBirthDate, dataset.AccessionNumber = BIRTH_DATE, ACCESSION
    for keyword in ("ReferringPhysicianName", "OtherPatientNames", "PatientComments", "PatientAddress"):
        setattr(dataset, keyword, NAME)
    return dataset


def _misfit(dataset: Dataset) -> Dataset:
    for keyword, vr in MISFITS.items():
        tag, value = Tag(keyword), b"ZZVALUE " + NAME.encode()
        dataset._dict[tag] = RawDataElement(tag, vr, len(value) + len(value) % 2, value, 0, False, True)
    return dataset


@dataclass(frozen=True)
class Sent:
    """What the scanner has: a good study, and every kind of trouble."""

    good: Path
    good_uid: str
    spoiled: Path
    spoiled_uid: str
    trouble: Path


@pytest.fixture(scope="module")
def sent(simulated_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Sent:
    root = tmp_path_factory.mktemp("named")
    good, spoiled, trouble = root / "good", root / "spoiled", root / "trouble"
    for folder in (good, spoiled, trouble):
        folder.mkdir()
    spoiled_uid = generate_uid()
    for number, path in enumerate(simulated_files):
        image = _named(pydicom.dcmread(path))
        good_uid = str(image.StudyInstanceUID)
        image.save_as(good / f"{number}.dcm")
        image.StudyInstanceUID, image.SeriesInstanceUID = spoiled_uid, f"{image.SeriesInstanceUID}.1"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if number % 3 == 0:
            image = _misfit(image)
        elif number % 3 == 1:
            image.file_meta.TransferSyntaxUID = RLELossless
            image.PixelData = encapsulate([NAME.encode() * 500])
            image["PixelData"].is_undefined_length = True
        image.save_as(spoiled / f"{number}.dcm")
    _trouble(simulated_files, trouble)
    return Sent(good, good_uid, spoiled, spoiled_uid, trouble)


def _trouble(files: list[Path], folder: Path) -> None:
    image = _named(pydicom.dcmread(files[0]), "ZzOther^Person")
    image.save_as(folder / "another-patient-same-instance.dcm")
    image = _named(pydicom.dcmread(files[1]))
    del image.StudyInstanceUID
    image.save_as(folder / "no-study.dcm")
    image = _named(pydicom.dcmread(files[2]))
    image.StudyInstanceUID = NAME
    image.save_as(folder / "name-as-uid.dcm")
    whole = (folder / "no-study.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: whole.index(IDENTITY.encode()) + 30])
    image = _named(pydicom.dcmread(files[3]))
    image.SOPInstanceUID = "1.2.3"  # the request announces the one of the file meta information
    pydicom.dcmwrite(folder / "mismatch.dcm", image, enforce_file_format=False)


@dataclass(frozen=True)
class Told:
    """Everything the node said, and the node's own view of its studies."""

    log: bytes
    answers: dict[str, bytes]
    journal: bytes
    metrics: str
    shown: dict[str, Any]


@pytest.fixture(scope="module")
def told(sent: Sent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("node")
    with storescp(folder / "pacs") as pacs:
        node = make_node(folder, {"PACS": pacs.port, "DEAD": 1}, first_retry_s=0.5)
        with running_node(node):
            yield _drive(node, sent)


def _drive(node: RunningNode, sent: Sent) -> Told:
    for path in (sent.good, sent.spoiled):
        run = storescu(node.dicom_port, [path], "--scan-directories", "-xr" if path is sent.spoiled else "-xe")
        assert "error" not in run.stderr.lower() or path is sent.spoiled, run.stderr
    for path in sorted(sent.trouble.iterdir()):
        subprocess.run(
            [Path(sys.executable).parent / "pacsgate", "send", path, "--to", f"PACSGATE@127.0.0.1:{node.dicom_port}"],
            capture_output=True,
            check=False,
        )

    _lose_an_object(node, sent)

    def settled() -> dict[str, Any] | None:
        shown = {uid: node.show(uid) for uid in (sent.good_uid, sent.spoiled_uid, LOST_UID)}
        states = [study and study["state"] for study in shown.values()]
        text = node.log.read_text()
        done = all(state in ("finished", "failed") for state in states) and text.count("object-not-delivered") > 2
        return shown if done else None

    shown = node.wait_until(settled, 120, "all studies are settled")
    base = f"http://127.0.0.1:{node.web_port}"
    schema = json.loads(_get(f"{base}/openapi.json"))
    addresses = [path.replace("{study_instance_uid}", sent.good_uid) for path in schema["paths"]]
    answers = {path: _get(base + path) for path in [*addresses, "/", "/openapi.json", "/nothing", f"/{IDENTITY[:2]}"]}
    journal = json.dumps([[study["journal"], study["history"]] for study in shown.values()]).encode()
    return Told(node.log.read_bytes(), answers, journal, answers["/metrics"].decode(), shown)


def _lose_an_object(node: RunningNode, sent: Sent) -> None:
    """A study whose object vanishes before it is processed: its first step fails."""
    image = pydicom.dcmread(sent.good / "0.dcm")
    image.StudyInstanceUID, image.SeriesInstanceUID = LOST_UID, f"{LOST_UID}.1"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{LOST_UID}.1.1"
    image.save_as(node.folder / "lost.dcm")
    objects = node.folder / "data" / "objects"
    before = set(objects.glob("??/*"))
    assert storescu(node.dicom_port, [node.folder / "lost.dcm"]).returncode == 0
    for path in set(objects.glob("??/*")) - before:
        if LOST_UID.encode() in path.read_bytes():
            path.unlink()


def _get(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as refusal:
        return bytes(refusal.read())


def _leaks(text: bytes) -> list[bytes]:
    return [text[max(found.start() - 200, 0) : found.end() + 60] for found in SECRETS.finditer(text)][:3]


def test_the_node_knows_the_patient(told: Told, sent: Sent) -> None:
    """Else the tests below could not fail."""
    assert told.shown[sent.good_uid]["patient_name"] == NAME
    assert told.shown[sent.good_uid]["patient_id"] == IDENTITY
    assert told.shown[sent.good_uid]["accession_number"] == ACCESSION


def test_everything_that_can_go_wrong_did(told: Told, sent: Sent) -> None:
    events = {json.loads(line)["event"] for line in told.log.splitlines() if line.startswith(b"{")}
    assert {"instance-refused", "object-not-delivered", "object-delivered", "step.started", "step.ended"} <= events
    assert "decoder.started" in events, "compressed frames reached a decoder"
    assert {"step.failed", "study.failed"} <= events
    assert told.shown[LOST_UID]["state"] == "failed"
    words = json.dumps(told.shown[sent.spoiled_uid])
    assert "not-assessed" in words
    assert "pixels unavailable: instance" in words


def test_no_log_line_names_the_patient(told: Told) -> None:
    assert _leaks(told.log) == []


def test_no_answer_without_a_token_names_the_patient(told: Told) -> None:
    assert {"/healthz", "/readyz", "/metrics", "/api/v1/health", "/api/v1/studies"} <= told.answers.keys()
    assert {path: leaks for path, answer in told.answers.items() if (leaks := _leaks(answer))} == {}


def test_the_journal_names_no_patient(told: Told) -> None:
    assert _leaks(told.journal) == []


def test_the_node_counted_what_happened(told: Told, sent: Sent) -> None:
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(told.metrics)
        for sample in family.samples
    }
    received = sum(v for (name, *_), v in samples.items() if name == "pacsgate_instances_received_total")
    assert received >= len(list(sent.good.iterdir())) + len(list(sent.spoiled.iterdir()))
    assert samples[("pacsgate_receive_bytes_count",)] == received
    assert sum(v for (name, *_), v in samples.items() if name == "pacsgate_instances_refused_total") >= 1
    assert samples[("pacsgate_associations_accepted_total", ("peer", "other"))] >= 3
    assert samples[("pacsgate_queue_wait_seconds_count",)] >= 2
    for step, at_least in {"assemble": 2, "assess": 2, "gate": 2, "detect": 1, "report": 2}.items():
        # A study whose gate is shut does not go through the step that detects.
        key = ("pacsgate_step_seconds_count", ("outcome", "done"), ("step", f"study.{step}"))
        assert samples[key] >= at_least, step
    attempts = "pacsgate_delivery_attempts_total"
    assert samples[(attempts, ("destination", "pacs"), ("outcome", "delivered"))] >= 3
    assert samples[(attempts, ("destination", "dead"), ("outcome", "retry"))] >= 3
    assert samples[("pacsgate_delivery_seconds_count", ("destination", "pacs"))] >= 3
    assert samples[("pacsgate_delivery_oldest_pending_seconds", ("destination", "dead"))] > 0
    assert samples[("pacsgate_end_to_end_seconds_count",)] == 0, "one destination is dead"
    assert samples[("pacsgate_processes_running", ("kind", "receivers"))] == 1
    assert samples[("pacsgate_ready",)] == 1
    ready = json.loads(told.answers["/readyz"])
    assert ready["components"]["job-engine"] == ready["components"]["workers"] == "ok"


@pytest.mark.parametrize(("command", "options"), [("process", ("--json",)), ("assess", ())])
def test_the_offline_commands_name_no_patient(
    command: str, options: tuple[str, ...], sent: Sent, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for part in (sent.spoiled, sent.trouble):
        shutil.copytree(part, folder / part.name)
    out = ("--out", tmp_path / "out") if command == "process" else ()
    program = Path(sys.executable).parent / "pacsgate"
    done = subprocess.run([program, command, folder, *out, *options], capture_output=True, check=False)
    assert b"not-assessed" in done.stdout
    assert b"name-as-uid.dcm" in done.stderr
    assert _leaks(done.stdout + done.stderr) == []
