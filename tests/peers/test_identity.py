"""No patient in any log line, metric, answer without token or journal: a whole node and the offline command, when all
goes well and when everything goes wrong.
"""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
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
GOOD_AND_BAD = {
    *("instance-refused", "object-delivered", "object-not-delivered"),
    *("step.started", "step.ended", "step.failed", "study.failed"),
}
"""What the log must tell of, for the tests below to look at everything."""


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
    shown: dict[str, Any]
    node: RunningNode
    """It still runs: what it counts can be asked again."""


Samples = dict[tuple[Any, ...], float]
"""Name and sorted labels of a sample -> its value; a name without labels: all its samples together."""


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
        log = node.log.read_bytes()
        told = log.count(b"object-not-delivered") > 2 and _events(log) >= GOOD_AND_BAD
        return shown if told and all(state in ("finished", "failed") for state in states) else None

    shown = node.wait_until(settled, 120, "all studies are settled, and the log says what became of them")
    base = f"http://127.0.0.1:{node.web_port}"
    schema = json.loads(_get(f"{base}/openapi.json"))
    addresses = [path.replace("{study_instance_uid}", sent.good_uid) for path in schema["paths"]]
    answers = {path: _get(base + path) for path in [*addresses, "/", "/openapi.json", "/nothing", f"/{IDENTITY[:2]}"]}
    journal = json.dumps([[study["journal"], study["history"]] for study in shown.values()]).encode()
    return Told(node.log.read_bytes(), answers, journal, shown, node)


def _events(log: bytes) -> set[str]:
    return {json.loads(line)["event"] for line in log.splitlines() if line.startswith(b"{") and line.endswith(b"}")}


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
    assert _events(told.log) >= GOOD_AND_BAD
    assert "decoder.started" in _events(told.log), "compressed frames reached a decoder"
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
    expected = _expected(sent)
    counted = _counted(told.node, expected)
    assert _short(counted, expected) == {}
    assert counted["pacsgate_receive_bytes_count",] == counted["pacsgate_instances_received_total",]
    assert counted["pacsgate_delivery_oldest_pending_seconds", ("destination", "dead")] > 0
    assert counted["pacsgate_end_to_end_seconds_count",] == 0, "one destination is dead"
    assert counted["pacsgate_processes_running", ("kind", "receivers")] == 1
    assert counted["pacsgate_ready",] == 1
    ready = json.loads(told.answers["/readyz"])
    assert ready["components"]["job-engine"] == ready["components"]["workers"] == "ok"


def _expected(sent: Sent) -> Samples:
    """What must be counted at least."""
    attempts, step = "pacsgate_delivery_attempts_total", "pacsgate_step_seconds_count"
    # A study whose gate is shut does not go through the step that detects.
    steps = {"assemble": 2, "assess": 2, "gate": 2, "detect": 1, "report": 2}
    return {
        ("pacsgate_instances_received_total",): sum(len(list(f.iterdir())) for f in (sent.good, sent.spoiled)),
        ("pacsgate_instances_refused_total",): 1,
        ("pacsgate_associations_accepted_total", ("peer", "other")): 3,
        ("pacsgate_queue_wait_seconds_count",): 2,
        **{(step, ("outcome", "done"), ("step", f"study.{name}")): count for name, count in steps.items()},
        (attempts, ("destination", "pacs"), ("outcome", "delivered")): 3,
        (attempts, ("destination", "dead"), ("outcome", "retry")): 3,
        ("pacsgate_delivery_seconds_count", ("destination", "pacs")): 3,
    }


def _counted(node: RunningNode, expected: Samples, timeout_s: float = 30) -> Samples:
    """The node's counts as soon as they are as expected, or what they have come to in that time.

    Another process counts an attempt only after it has logged and booked its outcome.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        samples = _samples(_get(f"http://127.0.0.1:{node.web_port}/metrics").decode())
        if not _short(samples, expected) or time.monotonic() > deadline:
            return samples
        time.sleep(0.2)


def _samples(metrics: str) -> Samples:
    samples: Samples = defaultdict(float)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            samples[sample.name,] += sample.value
            if sample.labels:
                samples[sample.name, *sorted(sample.labels.items())] = sample.value
    return samples


def _short(samples: Samples, expected: Samples) -> Samples:
    """What has not been counted as often as expected."""
    return {key: samples[key] for key, at_least in expected.items() if samples[key] < at_least}


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
