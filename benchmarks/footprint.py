"""What the receiver costs while it holds much and while it does nothing: a 2 GB enhanced MR, 200 idle associations.

``make bench``. Bars: 200 MB of memory for the large object (pynetdicom's own way takes three times the object, Orthanc
holds it whole), 5 % of a core for 200 associations that are held open (pynetdicom takes about 1 % for each).
"""

import os
import resource
import struct
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

from node.dimse.association import AssociationLimits
from tests.fixtures.raw_dimse import RawAssociation, data_value
from tests.fixtures.receiver_process import NodeFolder, RunningReceiver, running_receiver

FRAMES, ROWS, COLUMNS = 8_192, 512, 256
PIXEL_BYTES = FRAMES * ROWS * COLUMNS * 2
FRAGMENT_BYTES = 120_000
IDLE_ASSOCIATIONS = 200
IDLE_S = 10.0
CONTEXTS = [(EnhancedMRImageStorage, ExplicitVRLittleEndian)]


def header_of_large_object(uid: str) -> bytes:
    """An enhanced MR data set up to and including the header of its pixel data."""
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = EnhancedMRImageStorage, uid
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
    data_set.PatientID, data_set.Modality = "BENCH", "MR"
    data_set.NumberOfFrames, data_set.Rows, data_set.Columns = FRAMES, ROWS, COLUMNS
    data_set.BitsAllocated = data_set.BitsStored = 16
    encoded = DicomBytesIO()
    encoded.is_implicit_VR, encoded.is_little_endian = False, True
    write_dataset(encoded, data_set)
    return encoded.getvalue() + struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", PIXEL_BYTES)


def send_large_object(port: int) -> float:
    """Send it piece by piece; wall seconds until it is acknowledged."""
    uid = generate_uid()[:50].rstrip(".")
    piece = os.urandom(FRAGMENT_BYTES)
    start = time.monotonic()
    with RawAssociation(port, CONTEXTS, timeout_s=300) as association:
        association.begin_store(EnhancedMRImageStorage, uid)
        association.send(data_value(1, header_of_large_object(uid), command=False, last=False))
        left = PIXEL_BYTES
        while left:
            size = min(left, FRAGMENT_BYTES)
            left -= size
            association.send(data_value(1, piece[:size], command=False, last=left == 0))
        status = association.read_response().Status
        association.release()
    assert status == 0x0000, f"answered with 0x{status:04X}"
    return time.monotonic() - start


def idle_share(receiver: RunningReceiver) -> float:
    """Share of a core that the receiver takes while associations are open and silent."""
    with ExitStack() as stack:
        for _ in range(IDLE_ASSOCIATIONS):
            stack.enter_context(RawAssociation(receiver.port, CONTEXTS))
        time.sleep(1)
        before = _cpu_s(receiver.process.pid)
        time.sleep(IDLE_S)
        return (_cpu_s(receiver.process.pid) - before) / IDLE_S


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run and print."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    with tempfile.TemporaryDirectory(prefix="pacsgate-bench-", dir=os.environ.get("PACSGATE_BENCH_DIR")) as name:
        node = NodeFolder.create(Path(name) / "node")
        limits = AssociationLimits(
            maximum_associations=IDLE_ASSOCIATIONS + 10, maximum_associations_per_peer=IDLE_ASSOCIATIONS + 10
        )
        with running_receiver(node, limits=limits) as receiver:
            at_rest = receiver.rss_mib()
            receiver.reset_peak()
            seconds = send_large_object(receiver.port)
            peak = receiver.rss_mib(peak=True)
            share = idle_share(receiver)
    megabytes = PIXEL_BYTES / 1e6
    print(f"one enhanced MR of {megabytes:.0f} MB, {FRAMES} frames, synced and indexed: {megabytes / seconds:.0f} MB/s")
    print(f"  receiver's memory: {at_rest:.0f} MiB before, {peak:.0f} MiB at its peak (bar: 190 MiB)")
    print(f"{IDLE_ASSOCIATIONS} idle associations: {share:.1%} of a core together (bar: 5 %)")


if __name__ == "__main__":
    main()
