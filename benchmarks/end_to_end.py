"""From the last instance received to the results at the PACS; receiving rate and memory beside DCMTK's storescp.

``make bench``. DCMTK's storescu is the scanner, its storescp the PACS (TCP_NODELAY=1 everywhere). The study is
ProstateX-0000 where the real scanner data is at hand (PACSGATE_SHARED_DATA), else a simulated study of the same shape.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import pydicom

from ai.simulation.export import write_study
from ai.simulation.study import simulate_study
from tests.fixtures.dcmtk import Pacs, storescp, storescu
from tests.fixtures.running_node import RunningNode, make_node, running_node

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(os.environ.get("PACSGATE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
STUDY_QUIET_S = 1.5
REPEATS = 3


def study_files(folder: Path) -> tuple[str, list[Path]]:
    """Name and files of the study that is sent."""
    real = SHARED_DATA / "prostate_prostatex_skyra" / "ProstateX-0000"
    if real.is_dir():
        return "ProstateX-0000", sorted(real.rglob("*.dcm"))
    return "simulated study 0", write_study(folder / "simulated", simulate_study(0))


def copies(files: list[Path], folder: Path, number: int) -> list[Path]:
    """The study under new UIDs, so that each repeat is a new study."""
    written = []
    folder.mkdir(parents=True)
    for index, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"{getattr(dataset, keyword)[:60]}.{number}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        target = folder / f"{index:04d}.dcm"
        dataset.save_as(target)
        written.append(target)
    return written


def seconds_to_send(port: int, files: list[Path]) -> float:
    """Wall seconds of one storescu run."""
    start = time.monotonic()
    run = storescu(port, files)
    assert run.returncode == 0, run.stderr
    return time.monotonic() - start


def seconds_to_results(node: RunningNode, pacs: Pacs, files: list[Path]) -> float:
    """From the end of storescu to the last result object at the PACS (by its file's time)."""
    before = set(pacs.files())
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    sent_at = time.time()
    node.wait_delivered(uid)
    return max(path.stat().st_mtime for path in set(pacs.files()) - before) - sent_at


def peak_memory_mb(pid: int) -> float:
    """Peak resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory(prefix="pacsgate-bench-") as name:
        folder = Path(name)
        study, files = study_files(folder)
        repeats = [copies(files, folder / f"copy-{n}", n) for n in range(REPEATS)]
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        print(f"{study}: {len(files)} instances, {megabytes:.1f} MB; {os.cpu_count()} cores; median of {REPEATS}")
        with storescp(folder / "peer") as peer:
            theirs = [seconds_to_send(peer.port, copy) for copy in repeats]
        results, ours = [], []
        with (
            storescp(folder / "pacs") as pacs,
            running_node(make_node(folder / "node", {"PACS": pacs.port}, study_quiet_s=STUDY_QUIET_S)) as node,
        ):
            for copy in repeats:
                ours.append(seconds_to_send(node.dicom_port, copy))
                results.append(seconds_to_results(node, pacs, copy))
            receiver_mb = peak_memory_mb(node.pid_of("receiver-0"))
            worker_mb = peak_memory_mb(node.pid_of("worker-0"))
    our_rate, their_rate = (len(files) / statistics.median(times) for times in (ours, theirs))
    print(
        f"receive, one association: pacsgate (synced, indexed) {our_rate:.0f}/s, storescp (neither) {their_rate:.0f}/s,"
    )
    print(f"  ratio {our_rate / their_rate:.2f}")
    print(f"last instance to results at the PACS: {statistics.median(results):.1f} s (worst {max(results):.1f} s),")
    print(f"  of which {STUDY_QUIET_S:g} s waiting for silence; bar: 60 s")
    print(f"peak memory: receiver {receiver_mb:.0f} MB (bar: 250 MB), worker {worker_mb:.0f} MB")


if __name__ == "__main__":
    main()
