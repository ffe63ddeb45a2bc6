"""Two hosts share PostgreSQL and a bucket; one dies or is cut off half way: every study is delivered, each object once.

The hosts live in network namespaces (tests/fixtures/hosts.py).
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from benchmarks.end_to_end import copies
from tests.fixtures.hosts import Hospital, hospital, listens

pytestmark = [pytest.mark.peers, pytest.mark.slow]

STUDIES = 4
TAKEN_OVER_S = 30
"""Within this time of its death the work of a dead host has to be in a living one's hands."""


@pytest.fixture
def place(tmp_path: Path, simulated_files: list[Path]) -> Iterator[Hospital]:
    """Both hosts at work; the studies have been sent to host a."""
    studies = [copies(simulated_files, tmp_path / f"study-{n}", n) for n in range(STUDIES)]
    with hospital(tmp_path / "hospital") as place:
        a, b = place.hosts["a"], place.hosts["b"]
        a.start("receiver,worker")
        b.start("worker")
        place.wait_until(lambda: listens(a), 60, "host a listens")
        place.wait_until(lambda: b.said("worker.started"), 60, "host b works")
        for files in studies:
            place.send(files)
        yield place


def assert_each_object_once(place: Hospital) -> None:
    """Every study has its three results, under one UID each, and the PACS has exactly those."""
    results = place.results()
    revisions = {revision for revision, _, _ in results}
    kinds = {"quality-report", "lesion-report", "segmentation"}
    assert len(revisions) == STUDIES
    assert sorted((revision, kind) for revision, kind, _ in results) == sorted(
        (revision, kind) for revision in revisions for kind in kinds
    )
    uids = {uid for _, _, uid in results}
    held = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in place.pacs_folder.iterdir()]
    assert sorted(held) == sorted(uids)
    # The objects whose responses the dead host had not yet booked may have been sent again: the same ones.
    assert len(uids) <= place.arrivals() <= len(uids) + len(kinds)


def work_of_b_under_way(place: Hospital) -> bool:
    return place.hosts["b"].said('"step": "study.assess"') and place.delivered() >= 1


def test_the_work_of_a_dead_host_moves(place: Hospital) -> None:
    b = place.hosts["b"]
    place.wait_until(lambda: work_of_b_under_way(place), 120, "host b is at work")
    b.die()
    died_at = time.monotonic()
    place.wait_until(lambda: place.hosts["a"].said('"executor.lost"'), TAKEN_OVER_S, "host b is missed")
    place.wait_until(lambda: "host-b/worker-0" not in place.executors(), TAKEN_OVER_S, "host b is off the list")
    assert time.monotonic() - died_at < TAKEN_OVER_S
    place.wait_until(lambda: place.delivered() == STUDIES, 120, "all studies are delivered")
    assert_each_object_once(place)


def test_a_host_that_is_cut_off_stands_back_and_returns(place: Hospital) -> None:
    """Its processes live on without a network, and come back with stale work in hand."""
    b = place.hosts["b"]
    place.wait_until(lambda: work_of_b_under_way(place), 120, "host b is at work")
    place.network.cut("b")
    place.wait_until(lambda: place.hosts["a"].said('"executor.lost"'), TAKEN_OVER_S, "host b is missed")
    place.wait_until(lambda: place.delivered() == STUDIES, 120, "host a delivers all studies")
    place.network.mend("b")
    place.wait_until(lambda: place.executors().get("host-b/worker-0"), 90, "host b is back on the list")
    time.sleep(3)
    assert_each_object_once(place)
    assert place.delivered() == STUDIES
    assert b.stop() == 0
