"""What the receiving benchmarks share: instances of a scanner's size, DCMTK senders side by side, the peers to beat."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from ai.simulation.export import write_study
from ai.simulation.study import simulate_study
from tests.fixtures.dcmtk import free_port, tool, wait_for_port

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
"""For both ends: without it DCMTK's programs, Orthanc among them, wait 40 ms per instance."""
ROWS = COLUMNS = 384
ORTHANC = Path("/usr/sbin/Orthanc")


def mr_instances(folder: Path, study: int, count: int) -> Path:
    """Write ``count`` MR instances of 384 x 384 (0.3 MB), a hundred to a series, into a new folder; return it."""
    folder.mkdir(parents=True)
    template = _template(folder)
    pixels = np.random.default_rng(study).integers(0, 1000, (ROWS, COLUMNS), dtype=np.uint16)
    template.Rows, template.Columns = ROWS, COLUMNS
    template.StudyInstanceUID = f"1.2.826.0.1.{os.getpid()}.{study}"
    for number in range(count):
        template.SeriesInstanceUID = f"{template.StudyInstanceUID}.{number // 100}"
        template.SOPInstanceUID = f"{template.SeriesInstanceUID}.{number}"
        template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        template.SeriesNumber, template.InstanceNumber = number // 100 + 1, number % 100 + 1
        pixels[0, 0] = number
        template.PixelData = pixels.tobytes()
        template.save_as(folder / f"{number:05d}.dcm")
    return folder


def _template(folder: Path) -> Dataset:
    files = write_study(folder / "template", simulate_study(0))
    template = dcmread(files[0])
    for path in files:
        path.unlink()
    return template


@dataclass(frozen=True)
class Receiving:
    """A receiver that listens, and the processes it consists of."""

    port: int
    pids: tuple[int, ...]

    def cpu_s(self) -> float:
        """Processor time its processes have taken so far."""
        ticks = os.sysconf("SC_CLK_TCK")
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids]
        return sum(int(field[11]) + int(field[12]) for field in fields) / ticks


def instances_per_second(port: int, folders: Sequence[Path], called_ae_title: str = "PACSGATE") -> float:
    """Send each folder over an association of its own, all at once, by DCMTK's storescu; instances per wall second."""
    count = sum(len(list(folder.iterdir())) for folder in folders)
    options = ["--aetitle", "SCANNER", "--call", called_ae_title, "--required", "+sd"]
    start = time.monotonic()
    senders = [
        subprocess.Popen([tool("storescu"), *options, "127.0.0.1", str(port), str(folder)], env=ENVIRONMENT)
        for folder in folders
    ]
    codes = [sender.wait() for sender in senders]
    seconds = time.monotonic() - start
    assert not any(codes), f"storescu ended with {codes}"
    return count / seconds


@contextmanager
def orthanc(folder: Path) -> Iterator[Receiving]:
    """Orthanc as it comes (SQLite, synced storage), its HTTP server off."""
    folder.mkdir(parents=True)
    port = free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "DicomPort": port,
                "HttpServerEnabled": False,
                "DicomCheckCalledAet": False,
                "DicomAlwaysAllowStore": True,
                "TcpNoDelay": True,
            }
        )
    )
    with _running([str(ORTHANC), str(configuration)], port, folder) as pid:
        yield Receiving(port, (pid,))


@contextmanager
def dcmtk_storescp(folder: Path) -> Iterator[Receiving]:
    """DCMTK's storescp with a process per association: no index, nothing synced."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [tool("storescp"), "--fork", "--accept-all", "--output-directory", str(folder), str(port)]
    with _running(command, port, folder.parent) as pid:
        yield Receiving(port, (pid,))


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[int]:
    with (folder / "peer.log").open("wb") as log:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_port(port, process)
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=20)
