"""Receiving rate beside Orthanc and DCMTK's storescp in the same run: one association, and four at once.

``make bench``. MR instances of 0.3 MB from DCMTK's storescu (TCP_NODELAY=1 everywhere), each system on a fresh folder
of the same disk, in turns. pacsgate runs whole, as ``pacsgate up`` with two receiver processes, its indexer and worker
beside: every instance is synced and indexed before it is acknowledged. Orthanc syncs its files, not its SQLite index;
storescp neither syncs nor indexes. Bars: one association 1.2 x Orthanc, four associations 5 x Orthanc.
"""

import os
import shutil
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.senders import ORTHANC, Receiving, dcmtk_storescp, instances_per_second, mr_instances, orthanc
from tests.fixtures.running_node import make_node, running_node

REPEATS = 3
INSTANCES = 400
"""Per association."""
RECEIVERS = 2


@contextmanager
def pacsgate(folder: Path) -> Iterator[Receiving]:
    """A whole node."""
    with running_node(make_node(folder, {}, processes=RECEIVERS)) as node:
        slots = [f"receiver-{number}" for number in range(RECEIVERS)]
        node.wait_until(lambda: all(f'"slot": "{slot}"' in node.log.read_text() for slot in slots), 30, "receivers run")
        yield Receiving(node.dicom_port, tuple(map(node.pid_of, slots)))


SYSTEMS: dict[str, Callable[[Path], AbstractContextManager[Receiving]]] = {
    "pacsgate": pacsgate,
    "Orthanc": orthanc,
    "storescp": dcmtk_storescp,
}


def main() -> None:
    """Run and print."""
    systems = {name: start for name, start in SYSTEMS.items() if name != "Orthanc" or ORTHANC.exists()}
    if not ORTHANC.exists():
        print("Orthanc is not installed: no ratio to it (Debian: apt-get install orthanc)")
    with tempfile.TemporaryDirectory(prefix="pacsgate-bench-", dir=os.environ.get("PACSGATE_BENCH_DIR")) as name:
        folder = Path(name)
        studies = [mr_instances(folder / f"study-{number}", number, INSTANCES) for number in range(5)]
        rates: dict[tuple[str, int], list[float]] = defaultdict(list)
        costs: dict[str, list[float]] = defaultdict(list)
        for repeat in range(REPEATS):
            for system, start in systems.items():
                place = folder / f"{system}-{repeat}"
                with start(place) as receiver:
                    before = receiver.cpu_s()
                    for senders in (studies[:1], studies[1:]):
                        rates[system, len(senders)].append(instances_per_second(receiver.port, senders))
                    costs[system].append((receiver.cpu_s() - before) / (INSTANCES * len(studies)) * 1000)
                shutil.rmtree(place)
    print(f"{INSTANCES} instances of 0.3 MB per association; {os.cpu_count()} cores; median of {REPEATS} runs in turns")
    for senders, bar in ((1, 1.2), (4, 5.0)):
        ours = statistics.median(rates["pacsgate", senders])
        print(f"{senders} association(s): pacsgate (synced, indexed) {ours:.0f}/s")
        for system in systems.keys() - {"pacsgate"}:
            theirs = statistics.median(rates[system, senders])
            wanted = f" (bar: {bar:g})" if system == "Orthanc" else ""
            print(f"  {system} {theirs:.0f}/s, ratio {ours / theirs:.2f}{wanted}")
    for system in ("pacsgate", "Orthanc"):
        if costs[system]:
            print(f"processor time per instance: {system} {statistics.median(costs[system]):.2f} ms")


if __name__ == "__main__":
    main()
