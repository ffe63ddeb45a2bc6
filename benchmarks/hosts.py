"""Sixty studies, two worker hosts, one of them killed half way: what is delivered, how often, how soon after.

``python -m benchmarks.hosts`` as root on Linux (it makes network namespaces). PostgreSQL, moto's S3 server and DCMTK's
storescp stand between the hosts; host a receives and works, host b works until its cable is pulled and its processes
are killed at once. Everything shares this machine's cores, so the rate says nothing about two real hosts; the
time until the dead host's work moves does.
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pydicom

from ai.simulation.export import write_study
from ai.simulation.protocol import DWI, T2_AXIAL
from ai.simulation.study import simulate_study
from benchmarks.end_to_end import copies
from tests.fixtures.hosts import Hospital, hospital, listens

STUDIES = 60
WHOLE_EVERY = 4
"""Every fourth study opens the gate and is detected in; the others are too short, so that the run stays short."""
WORKERS = 2
BAR_S = 60
LONGEST_S = 300


def make_studies(folder: Path) -> list[list[Path]]:
    """The studies' files: axial T2, DWI and ADC of one examination each."""
    shapes = {
        "whole": ((replace(T2_AXIAL, slices=12), replace(DWI, slices=10)), (3.0, 1.5, 1.5)),
        "short": ((replace(T2_AXIAL, slices=6), replace(DWI, slices=6)), (3.0, 2.0, 2.0)),
    }
    files = {
        name: write_study(folder / name, simulate_study(3, protocols=protocols, spacing_mm=spacing_mm))
        for name, (protocols, spacing_mm) in shapes.items()
    }
    return [
        copies(files["short" if number % WHOLE_EVERY else "whole"], folder / f"study-{number}", number)
        for number in range(STUDIES)
    ]


def run(place: Hospital, studies: list[list[Path]]) -> tuple[float, float, int]:
    """Send all to drained workers, let them begin, kill host b half way.

    Returns seconds until its work moved and until all was delivered, and how many studies were delivered at the kill.
    """
    a, b = place.hosts["a"], place.hosts["b"]
    a.start("receiver,worker")
    place.wait_until(lambda: listens(a) and a.said("worker.started"), 120, "host a listens and works")
    assert a.command("drain").returncode == 0
    for files in studies:
        place.send(files)
    b.start("worker")
    place.wait_until(lambda: b.said("worker.started"), 120, "host b works")
    assert a.command("drain", "--resume").returncode == 0
    place.wait_until(lambda: place.delivered() >= STUDIES / 2, LONGEST_S, "half of the studies are delivered")
    before = place.delivered()
    b.die()
    died_at = time.monotonic()
    place.wait_until(lambda: a.said('"jobs.recovered"'), LONGEST_S, "host b's work moves")
    moved_s = time.monotonic() - died_at
    place.wait_until(lambda: place.delivered() == STUDIES, LONGEST_S, "all studies are delivered")
    return moved_s, time.monotonic() - died_at, before


def main() -> None:
    """Run, print, and exit with 1 where the bar is missed."""
    with tempfile.TemporaryDirectory(prefix="pacsgate-hosts-") as name:
        folder = Path(name)
        studies = make_studies(folder)
        with hospital(folder / "hospital", worker_processes=WORKERS) as place:
            moved_s, all_s, before = run(place, studies)
            results = [uid for _, _, uid in place.results()]
            held = [
                str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
                for path in place.pacs_folder.iterdir()
            ]
            delivered, arrivals = place.delivered(), place.arrivals()
    each_once = sorted(held) == sorted(set(results)) and len(results) == len(set(results))
    instances = sum(map(len, studies))
    print(f"{STUDIES} studies, {instances} instances; 2 hosts x {WORKERS} workers on {os.cpu_count()} cores in all")
    print(f"host b killed with {before} studies delivered; its work moved after {moved_s:.1f} s (bar: 30 s)")
    print(f"delivered {delivered} of {STUDIES}, the last {all_s:.1f} s after the kill (bar: {BAR_S} s)")
    print(f"result objects {len(results)}; at the PACS {len(held)}, each once: {'yes' if each_once else 'NO'};")
    print(f"  sent again under the same UID, since the dead host could not book it: {arrivals - len(held)}")
    if delivered < STUDIES or not each_once or all_s > BAR_S or moved_s > BAR_S / 2:
        sys.exit(1)


if __name__ == "__main__":
    main()
