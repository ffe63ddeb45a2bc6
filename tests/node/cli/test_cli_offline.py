"""The offline commands: their JSON is the contract, their refusals say why, a simulation can be repeated."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import Result

from ai.simulation.export import write_study
from ai.simulation.protocol import DWI, T2_AXIAL
from ai.simulation.study import SimulatedStudy, simulate_study
from tests.fixtures.dcmtk import free_port
from tests.fixtures.json_contract import check_assessment, check_result

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def ruined_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An examination of a patient who moved: the gate stays shut."""
    study = simulate_study(
        3,
        artifact="motion",
        severity=5,
        protocols=(replace(T2_AXIAL, slices=16), replace(DWI, slices=14)),
        spacing_mm=(2.0, 1.0, 1.0),
    )
    return write_study(tmp_path_factory.mktemp("ruined"), study)


@pytest.fixture(scope="module")
def both(
    pacsgate: Command, simulated_files: list[Path], ruined_files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    """What ``process`` says of the good and the ruined examination in one call, and its folder."""
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    result = pacsgate("process", *simulated_files, ruined_files[0].parent.parent, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), out


def study_of(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def kinds(document: dict[str, Any]) -> list[str]:
    return sorted(item["kind"] for item in document["objects"])


def test_several_studies_are_a_list_of_documents(
    both: tuple[list[dict[str, Any]], Path], simulated_files: list[Path], ruined_files: list[Path]
) -> None:
    documents, out = both
    assert isinstance(documents, list)
    for document in documents:
        check_result(document, out)
    expected = {study_of(simulated_files), study_of(ruined_files)}
    assert {document["study_instance_uid"] for document in documents} == expected


def test_the_objects_are_what_the_document_says(both: tuple[list[dict[str, Any]], Path]) -> None:
    documents, out = both
    named = set()
    for document in documents:
        for item in document["objects"]:
            dataset = pydicom.dcmread(out / item["path"])
            named.add(out / item["path"])
            assert (dataset.SOPClassUID, dataset.SOPInstanceUID) == (item["sop_class_uid"], item["sop_instance_uid"])
            assert dataset.StudyInstanceUID == document["study_instance_uid"]
    assert {path for path in out.rglob("*") if path.is_file()} == named, "nothing else is written"


def test_the_gate_decides_what_is_made(both: tuple[list[dict[str, Any]], Path], simulated_files: list[Path]) -> None:
    documents, _ = both
    good, ruined = sorted(documents, key=lambda d: d["study_instance_uid"] != study_of(simulated_files))
    assert (good["verdict"], good["detection"]["state"]) == ("diagnostic", "succeeded")
    assert kinds(good) == ["lesion-report", "quality-report", "segmentation"]
    assert (ruined["verdict"], ruined["detection"]["state"]) == ("non-diagnostic", "not-attempted")
    assert kinds(ruined) == ["quality-report"]
    assert ruined["detection"]["candidates"] == []


def test_candidates_and_segments_match(both: tuple[list[dict[str, Any]], Path], simulated_files: list[Path]) -> None:
    documents, out = both
    good = next(d for d in documents if d["study_instance_uid"] == study_of(simulated_files))
    (path,) = [item["path"] for item in good["objects"] if item["kind"] == "segmentation"]
    segments = {s.SegmentNumber: s.TrackingUID for s in pydicom.dcmread(out / path).SegmentSequence}
    above = [c for c in good["detection"]["candidates"] if c["above_operating_point"]]
    assert {c["segment_number"]: c["tracking_uid"] for c in above} == segments


def test_assess_says_the_same_and_writes_nothing(
    pacsgate: Command, both: tuple[list[dict[str, Any]], Path], ruined_files: list[Path]
) -> None:
    before = sorted(ruined_files[0].parent.parent.rglob("*"))
    result = pacsgate("assess", *ruined_files, "--json")
    document = json.loads(result.stdout)
    check_assessment(document)
    assert "detection" not in document
    processed = next(d for d in both[0] if d["study_instance_uid"] == study_of(ruined_files))
    assert document == {key: value for key, value in processed.items() if key not in ("detection", "objects")}
    assert sorted(ruined_files[0].parent.parent.rglob("*")) == before


def test_detect_obeys_the_gate_unless_told(pacsgate: Command, ruined_files: list[Path], tmp_path: Path) -> None:
    document = json.loads(pacsgate("detect", *ruined_files, "--out", tmp_path, "--json").stdout)
    check_result(document, tmp_path)
    assert (document["detection"]["state"], document["objects"]) == ("not-attempted", [])
    forced = json.loads(pacsgate("detect", *ruined_files, "--out", tmp_path, "--ignore-gate", "--json").stdout)
    check_result(forced, tmp_path)
    assert forced["detection"]["state"] == "succeeded"
    assert forced["verdict"] == "non-diagnostic"
    assert "lesion-report" in kinds(forced)
    assert "quality-report" not in kinds(forced)
    (path,) = (tmp_path / item["path"] for item in forced["objects"] if item["kind"] == "lesion-report")
    texts = [str(element.value) for element in pydicom.dcmread(path).iterall() if element.keyword == "TextValue"]
    assert any(text.startswith("The quality gate was overridden; it was shut:") for text in texts)
    pacsgate("detect", *ruined_files, "--out", tmp_path)
    assert not path.exists(), "a lesion report of another run stands beside a shut gate"


def test_a_person_reads_verdict_reason_and_the_limit_of_use(
    pacsgate: Command, simulated_files: list[Path], tmp_path: Path
) -> None:
    localizer_only = [path for path in simulated_files if pydicom.dcmread(path).SeriesNumber == 4][:3]
    result = pacsgate("process", *(localizer_only or simulated_files[:3]), "--out", tmp_path)
    assert result.exit_code == 0
    assert study_of(simulated_files) in result.stdout
    assert "Research use only. Not for diagnosis." in result.stdout
    assert "quality-report.dcm" in result.stdout


@pytest.mark.parametrize("command", ["assess", "process", "detect"])
def test_no_dicom_is_a_refusal(pacsgate: Command, command: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    where = () if command == "assess" else ("--out", out)
    empty = pacsgate(command, source, *where, "--json")
    assert (empty.exit_code, empty.stdout) == (2, "")
    assert "no usable DICOM object found" in empty.stderr
    (source / "notes.txt").write_text("no DICOM")
    refused = pacsgate(command, source, *where, "--json")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "1 files refused" in refused.stderr
    assert "notes.txt" in refused.stderr


def test_a_path_that_is_not_there_is_a_refusal(pacsgate: Command, tmp_path: Path) -> None:
    result = pacsgate("assess", tmp_path / "none")
    assert result.exit_code == 2
    assert "not exist" in " ".join(result.stderr.replace("│", " ").split()), "in a box that wraps"


def test_a_copy_counts_once(pacsgate: Command, simulated_files: list[Path], tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        shutil.copyfile(simulated_files[0], tmp_path / name)
    result = pacsgate("assess", tmp_path, "--json")
    (series,) = json.loads(result.stdout)["series"]
    assert len(series["slices"]) <= 1
    assert "b.dcm: same SOP Instance UID as a.dcm" in result.stderr


def test_a_study_that_fails_does_not_take_the_others_with_it(
    pacsgate: Command, simulated_files: list[Path], ruined_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from node import offline

    healthy = offline.assess_document

    def assess_document(study: Any, *rest: Any) -> dict[str, Any]:
        if study.study_instance_uid == study_of(simulated_files):
            raise RuntimeError("no good")
        return healthy(study, *rest)

    monkeypatch.setattr(offline, "assess_document", assess_document)
    result = pacsgate("assess", simulated_files[0], ruined_files[0], "--json")
    assert result.exit_code == 1
    (document,) = json.loads(result.stdout)
    assert document["study_instance_uid"] == study_of(ruined_files)
    assert f"study {study_of(simulated_files)} cannot be processed: RuntimeError: no good" in result.stderr


def test_a_simulation_can_be_repeated_byte_for_byte(
    pacsgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a size that takes a second; the command's own choices are those of the real one."""

    def small(*chosen: Any, **choices: Any) -> SimulatedStudy:
        choices["protocols"] = (replace(T2_AXIAL, slices=4),)
        return simulate_study(*chosen, spacing_mm=(2.0, 1.0, 1.0), **choices)

    monkeypatch.setattr("ai.simulation.study.simulate_study", small)
    written = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        out = tmp_path / name
        choices = ("--artifact", "noise", "--severity", 2, "--seed", seed, "--truth", "--json")
        (document,) = json.loads(pacsgate("simulate", "--out", out, *choices).stdout)
        files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        images = sum(name.endswith(".dcm") for name in files)
        assert document == {"path": str(out), "seed": seed, "artifact": "noise", "instances": images}
        assert "truth.json" in files
        written.append(files)
    assert written[0] == written[1]
    assert written[0] != written[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--artifact", "gremlins"), "ghosting"),
        (("--severity", "6"), "--severity"),
        (("--severity", "0"), "--severity"),
        (("--seed", "-1"), "--seed"),
        (("--count", "0"), "--count"),
    ],
)
def test_a_simulation_that_does_not_exist_is_refused(
    pacsgate: Command, tmp_path: Path, arguments: tuple[str, str], said: str
) -> None:
    result = pacsgate("simulate", "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_nobody_listens(pacsgate: Command, simulated_files: list[Path]) -> None:
    port = free_port()
    result = pacsgate("send", *simulated_files[:2], "--to", f"PACS@127.0.0.1:{port}")
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stdout
    assert "refused" in result.stdout
    assert "0 of 2 objects stored" in result.stdout
    machine = pacsgate("send", *simulated_files[:2], "--to", f"PACS@127.0.0.1:{port}", "--json")
    assert machine.exit_code == 1
    assert [(o["delivered"], o["status"]) for o in json.loads(machine.stdout)] == 2 * [(False, None)]


@pytest.mark.parametrize(
    "to", ["PACS", "PACS@host", "PACS@host:port", "@host:104", "PACS@host:0", "PACS@host:70000", "A" * 17 + "@host:104"]
)
def test_an_address_that_is_none_is_refused(pacsgate: Command, simulated_files: list[Path], to: str) -> None:
    result = pacsgate("send", simulated_files[0], "--to", to)
    assert result.exit_code == 2
    assert "expected AET@host:port" in result.stderr


def test_an_empty_folder_is_nothing_to_send(pacsgate: Command, tmp_path: Path) -> None:
    result = pacsgate("send", tmp_path, "--to", f"PACS@127.0.0.1:{free_port()}", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no file to send" in result.stderr


def test_what_is_no_dicom_is_not_stored(pacsgate: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    result = pacsgate("send", tmp_path, "--to", f"PACS@127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "notes.txt" in result.stdout
    assert "not a DICOM Part 10 file" in result.stdout
