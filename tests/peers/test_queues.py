"""Several workers on one index: each takes from its own queues, and nothing is done or said twice."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

from ai.simulation.export import write_study
from ai.simulation.protocol import DWI, T2_AXIAL
from ai.simulation.study import simulate_study
from benchmarks.end_to_end import copies
from tests.fixtures.dcmtk import storescp, storescu
from tests.fixtures.running_node import make_node, running_node

pytestmark = [pytest.mark.peers, pytest.mark.slow]

ONCE = ("study-closed", "assembled", "assessed", "detected", "reported")


@pytest.fixture(scope="module")
def short_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A study too short for the gate to open."""
    protocols = (replace(T2_AXIAL, slices=6), replace(DWI, slices=6))
    return write_study(tmp_path_factory.mktemp("short"), simulate_study(3, protocols=protocols, spacing_mm=(3, 2, 2)))


def study_uid(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def events(shown: dict[str, Any]) -> Counter[str]:
    return Counter(entry["event"] for entry in shown["journal"])


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_several_workers_do_each_thing_once(
    engine: str,
    tmp_path: Path,
    simulated_files: list[Path],
    short_files: list[Path],
    request: pytest.FixtureRequest,
) -> None:
    url = "" if engine == "sqlite" else request.getfixturevalue("empty_postgresql_url")
    studies = [simulated_files, *(copies(short_files, tmp_path / f"short-{n}", n) for n in range(3))]
    with storescp(tmp_path / "pacs", "--fork", "--accept-all", "--bit-preserving") as pacs:
        more = "[worker]\nprocesses = 2\ngpu_processes = 1"
        with running_node(make_node(tmp_path / "node", {"PACS": pacs.port}, url, more=more)) as node:
            for files in studies:
                assert storescu(node.dicom_port, files).returncode == 0
            shown = [node.wait_delivered(study_uid(files)) for files in studies]
            log = node.log.read_text().splitlines()
    for study in shown:
        counted = events(study)
        assert {event: counted[event] for event in ONCE} == dict.fromkeys(ONCE, 1)
        assert counted["series-closed"] == len(study["series"])
    detections = [line for line in log if '"step": "study.detect"' in line and '"step.started"' in line]
    detecting = [line.partition('"process": "')[2].partition('"')[0] for line in detections]
    assert detecting == ["gpu-worker-0"], "only the study whose gate is open went to the GPU's queue"


def test_an_open_gate_waits_for_a_gpu_and_a_shut_one_does_not(
    tmp_path: Path, simulated_files: list[Path], short_files: list[Path]
) -> None:
    with storescp(tmp_path / "pacs") as pacs:
        node = make_node(tmp_path / "node", {"PACS": pacs.port}, more='[worker]\nqueues = ["quality", "deliver"]')
        with running_node(node):
            for files in (simulated_files, short_files):
                assert storescu(node.dicom_port, files).returncode == 0
            shut = node.wait_delivered(study_uid(short_files))
            assert shut["detection"]["state"] == "not-attempted"
            waiting = node.wait_until(
                lambda: (s := node.show(study_uid(simulated_files))) and s["verdict"] and s, 60, "the gate has opened"
            )
            assert (waiting["state"], waiting["objects"]) == ("closed", [])
        node.config.write_text(
            node.config.read_text().replace('["quality", "deliver"]', '["gpu", "quality", "deliver"]')
        )
        with running_node(node):
            whole = node.wait_delivered(study_uid(simulated_files))
            assert whole["detection"]["state"] == "succeeded"
