"""The log: one JSON object per line, UIDs and no patient, whatever a header holds and a library says of it."""

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

MARK = b"Zz9Secret"
NAMED = ("PatientName", "PatientID", "PatientAddress", "OtherPatientNames", "PatientComments", "ReferringPhysicianName")
UNPARSABLE = {
    "PatientBirthDate": "DA",
    "PatientAge": "AS",
    "PatientWeight": "DS",
    "StudyTime": "TM",
    "PatientSex": "CS",
}
"""Elements whose values make libraries warn or raise when they are not what the value representation allows."""

PROGRAM = """
import sys
from pathlib import Path
from node.log import configure_logging
configure_logging("test", 0)
import warnings, logging
from node.offline import process_study, read_folder
folder = read_folder([Path(sys.argv[1])], lambda text: None)
for study in folder.studies:
    process_study(study, Path(sys.argv[2]), lambda text: None)
assert folder.studies
"""


@pytest.fixture(scope="module")
def marked(simulated_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated study of a patient whose name is in every element that can hold it, fitting or not."""
    folder = tmp_path_factory.mktemp("marked")
    for number, path in enumerate(simulated_files):
        dataset = pydicom.dcmread(path)
        for keyword in NAMED:
            setattr(dataset, keyword, MARK.decode())
        for keyword, vr in UNPARSABLE.items():
            tag = Tag(keyword)
            value = MARK + b" "
            dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
        dataset.save_as(folder / f"{number}.dcm")
    return folder


def test_a_whole_run_logs_no_patient(marked: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "always", "-c", PROGRAM, str(marked), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert MARK in b"".join(path.read_bytes() for path in tmp_path.rglob("*.dcm")), "the results do name the patient"
    assert MARK not in done.stderr + done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert any(line.get("event") == "study assessed" for line in lines)
    for line in lines:
        assert {"event", "level", "timestamp", "process"} <= line.keys()


def test_the_command_line_tells_the_caller_no_name(marked: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "pacsgate", "process", marked, "--out", tmp_path, "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0
    assert MARK not in done.stderr + done.stdout


def test_warnings_of_the_libraries_do_not_print_values() -> None:
    """pydicom puts the value into its warning; the warning is real, and must stay silent."""
    value = MARK.decode()
    provoke = f"""
from pydicom import Dataset
data_set = Dataset()
data_set.PatientBirthDate = "{value}"
data_set.PatientAge = "{value}"
data_set.StudyInstanceUID = "{value}"
"""
    loud = subprocess.run([sys.executable, "-c", provoke], capture_output=True, check=True)
    assert MARK in loud.stderr
    quiet_program = "from node.log import configure_logging\nconfigure_logging('test')\n" + provoke
    quiet = subprocess.run([sys.executable, "-W", "always", "-c", quiet_program], capture_output=True, check=True)
    assert (quiet.stdout, quiet.stderr) == (b"", b"")


def test_a_level_is_obeyed_and_exceptions_stay_on_one_line() -> None:
    program = """
import logging, structlog
from node.log import configure_logging
configure_logging("worker-0", logging.WARNING)
log = structlog.get_logger()
log.info("unheard")
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("failed", study_instance_uid="1.2.3")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["process"], entry["study_instance_uid"]) == ("failed", "worker-0", "1.2.3")
    assert "ValueError" in entry["exception"]
