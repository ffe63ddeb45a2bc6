"""Completion with a real study and other people's programs: DCMTK's storescu and a scanner with MPPS (pynetdicom).

What closes each series is asserted here; how many seconds that saves is printed by ``benchmarks.completion``.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pydicom
import pytest

from benchmarks.completion import measure
from tests.fixtures.dcmtk import storescu
from tests.fixtures.running_node import RunningNode, make_node, running_node

pytestmark = [pytest.mark.real_data, pytest.mark.peers, pytest.mark.slow]

FOLDER = "prostate_prostatex_skyra"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """Silence would close a series after 60 s here, so that whatever closes earlier was closed by evidence."""
    node = make_node(tmp_path_factory.mktemp("node"), {}, study_quiet_s=60)
    text = node.config.read_text().replace("series_quiet_s = 1\n", "series_quiet_s = 60\nincomplete_wait_s = 60\n")
    node.config.write_text(text)
    with running_node(node):
        yield node


def files(shared_data: Path, study: str) -> list[Path]:
    return sorted((shared_data / FOLDER / study).rglob("*.dcm"))


def test_a_scanner_with_mpps(node: RunningNode, shared_data: Path) -> None:
    """Axial T2 first: its verdict is there while the others are being sent. The step closes the study."""
    times = measure(node, files(shared_data, "ProstateX-0000"), with_step=True, pause_s=0.1)
    first, last = times.series[0], times.series[-1]
    assert first.description == "t2_tse_tra"
    assert (first.evidence, first.confidence, first.verdict) == ("geometry", "strong", "diagnostic")
    assert first.study_still_sent_s > 0
    assert (last.evidence, last.confidence) == ("procedure-step", "certain")
    assert (times.evidence, times.confidence) == ("procedure-step", "certain")
    assert len(times.series) == 7


def test_storescu_that_releases_its_association(node: RunningNode, shared_data: Path) -> None:
    """Every series is closed by its geometry, at once; the study, of which nobody says anything, waits for silence."""
    sent = files(shared_data, "ProstateX-0001")
    assert storescu(node.dicom_port, sent).returncode == 0
    uid = str(pydicom.dcmread(sent[0], stop_before_pixels=True).StudyInstanceUID)

    def judged() -> list[dict[str, object]] | None:
        shown = node.show(uid)
        series = shown["series"] if shown else []
        return series if series and all(s["assessment"] for s in series) else None

    series = node.wait_until(judged, 50, "every series is judged")
    assert {(s["completion"]["evidence"], s["completion"]["confidence"]) for s in series} == {("geometry", "strong")}
    shown = node.show(uid)
    assert shown is not None
    assert (shown["state"], shown["verdict"]) == ("receiving", None)


def test_a_series_with_a_hole_waits_longer_than_silence(tmp_path: Path, shared_data: Path) -> None:
    """One slice of a real series is missing: five times the quiet time passes before it is closed, and it is said."""
    node = make_node(tmp_path, {})
    node.config.write_text(node.config.read_text().replace("[completion]\n", "[completion]\nincomplete_wait_s = 5\n"))
    sent = files(shared_data, "ProstateX-missing-slice")
    uid = str(pydicom.dcmread(sent[0], stop_before_pixels=True).StudyInstanceUID)
    with running_node(node):
        assert storescu(node.dicom_port, sent).returncode == 0
        shown = node.wait_until(lambda: (s := node.show(uid)) and s["state"] == "finished" and s, 60, "it is judged")
    (series,) = shown["series"]
    completion = series["completion"]
    assert (completion["evidence"], completion["confidence"]) == ("geometry", "weak")
    assert "1 slice(s) missing between others; closed after 5 s without what is missing" in completion["reason"]
    waited = datetime.fromisoformat(completion["closed_at"]) - datetime.fromisoformat(shown["last_received_at"])
    assert waited.total_seconds() >= 5
    assert shown["completion"]["confidence"] == "weak"
    assert "1 series closed with instances missing" in shown["completion"]["reason"]
