"""Broken and fuzzed objects on the whole way: refused or stored, never a crash, a hang or a half-indexed study."""

import json
import subprocess
from pathlib import Path

import pydicom
import pytest

from tests.fixtures.dcmtk import storescp, storescu
from tests.fixtures.raw_dimse import RawAssociation
from tests.fixtures.running_node import PACSGATE, make_node, running_node
from tests.node.dimse.test_dimse_fuzz import announced

pytestmark = [pytest.mark.real_data, pytest.mark.peers, pytest.mark.slow]


def hostile_files(shared_data: Path) -> list[Path]:
    return sorted(p for folder in ("malformed", "fuzz") for p in (shared_data / folder).rglob("*") if p.is_file())


def test_the_node_survives_and_a_good_study_is_unharmed(
    shared_data: Path, tmp_path: Path, simulated_files: list[Path]
) -> None:
    with storescp(tmp_path / "pacs") as pacs, running_node(make_node(tmp_path, {"PACS": pacs.port})) as node:
        good = subprocess.Popen(
            [PACSGATE, "send", simulated_files[0].parents[1], "--to", f"PACSGATE@127.0.0.1:{node.dicom_port}"]
        )
        for path in hostile_files(shared_data):
            sop_class_uid, sop_instance_uid, transfer_syntax_uid, data_set = announced(path)
            with RawAssociation(node.dicom_port, [(sop_class_uid, transfer_syntax_uid)]) as association:
                association.store(sop_class_uid, sop_instance_uid, data_set)
                association.release()
        assert good.wait(60) == 0
        uid = str(pydicom.dcmread(simulated_files[0], stop_before_pixels=True).StudyInstanceUID)
        shown = node.wait_delivered(uid)
        assert {item["kind"] for item in shown["objects"]} == {"quality-report", "lesion-report", "segmentation"}
        assert shown["instances"] == len(simulated_files)

        def all_done() -> bool:
            states = node.command("status")["revisions"]
            return states.keys() <= {"finished", "failed"}

        node.wait_until(all_done, 120, "every study comes to an end")
        studies = node.command("studies", "list", "--limit", "500")
        assert len(studies) > 10
        for study in studies:
            assert study["state"] == "finished" or study["failure"], study
        log = node.log.read_text()
        assert '"process.died"' not in log
        assert '"level": "error", "event": "study.failed"' not in log
        assert storescu(node.dicom_port, simulated_files[:1]).returncode == 0


@pytest.mark.parametrize("folder", ["malformed", "fuzz"])
def test_process_ends_with_a_document_or_a_reason(shared_data: Path, tmp_path: Path, folder: str) -> None:
    run = subprocess.run(
        [PACSGATE, "process", shared_data / folder, "--out", tmp_path, "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    assert "Traceback" not in run.stderr
    documents = json.loads(run.stdout)
    documents = documents if isinstance(documents, list) else [documents]
    refused = run.stderr.count("not used:")
    assert documents or refused
    for document in documents:
        assert document["verdict"] in {"diagnostic", "limited", "non-diagnostic", "not-assessed"}
        for item in document["objects"]:
            assert (tmp_path / item["path"]).is_file()


def test_every_hostile_file_alone(shared_data: Path, tmp_path: Path) -> None:
    """One at a time, through the same functions as the command: the documented refusals and nothing else."""
    from node.offline import process_study, read_folder
    from node.results.source import SourceError

    ends: dict[str, int] = {"document": 0, "refused": 0, "no report": 0}
    for path in hostile_files(shared_data):
        folder = read_folder([path], lambda _: None)
        if not folder.studies:
            assert folder.refused[path]
            ends["refused"] += 1
            continue
        try:
            document = process_study(folder.studies[0], tmp_path, lambda _: None)
        except SourceError:
            ends["no report"] += 1
            continue
        assert document["detection"]["state"] in {"not-attempted", "failed", "succeeded"}
        ends["document"] += 1
    assert ends["document"] > 50
    assert ends["refused"] > 10
