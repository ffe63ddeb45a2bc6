"""Every broken and fuzzed object as the data set of a C-STORE: an honest status for each, and no harm to others."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom.dsutils import split_dataset

from node.dimse.contexts import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from node.dimse.storage_scp import StoreStatus
from tests.fixtures.raw_dimse import RawAssociation
from tests.fixtures.receiver_process import NodeFolder, running_receiver

# What pydicom raises on broken bytes.
UNREADABLE = (InvalidDicomError, BytesLengthException, AttributeError, LookupError, TypeError, ValueError)

pytestmark = [pytest.mark.real_data, pytest.mark.peers]


def announced(path: Path) -> tuple[str, str, str, bytes]:
    """SOP class, SOP instance, transfer syntax as a sender that believes the file would name them, and the bytes."""
    content = path.read_bytes()
    sop_class, instance, syntax = MRImageStorage, generate_uid(), ExplicitVRLittleEndian
    try:
        meta, offset = split_dataset(path)
        header = dcmread(path, force=True, specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
        uids = header.get("SOPClassUID", ""), header.get("SOPInstanceUID", ""), meta.get("TransferSyntaxUID", "")
        named = [str(uid) for uid in uids]
    except UNREADABLE:
        return sop_class, instance, syntax, content
    return (
        named[0] if named[0] in STORAGE_SOP_CLASSES else sop_class,
        named[1] if 0 < len(named[1]) <= 64 and named[1].isascii() else instance,
        named[2] if named[2] in TRANSFER_SYNTAXES else syntax,
        content[offset:] or b"\x00\x00",
    )


def test_every_malformed_object_is_stored_or_refused_with_a_reason(shared_data: Path, tmp_path: Path) -> None:
    node = NodeFolder.create(tmp_path / "node")
    hostile = sorted(p for folder in ("malformed", "fuzz") for p in (shared_data / folder).rglob("*") if p.is_file())
    good = sorted((shared_data / "prostate_prostatex_skyra" / "ProstateX-0000").rglob("*.dcm"))
    statuses: dict[str, int] = {}
    with running_receiver(node) as receiver:
        sending = subprocess.Popen(
            [sys.executable, "-c", SEND_GOOD, str(receiver.port), *map(str, good)], stdout=subprocess.PIPE
        )
        for path in hostile:
            sop_class_uid, sop_instance_uid, transfer_syntax_uid, data_set = announced(path)
            with RawAssociation(receiver.port, [(sop_class_uid, transfer_syntax_uid)]) as association:
                response = association.store(sop_class_uid, sop_instance_uid, data_set)
                association.release()
            assert response.Status in set(StoreStatus), path
            assert (response.Status == StoreStatus.SUCCESS) == (not response.get("ErrorComment")), path
            assert len(response.get("ErrorComment", "")) <= 64
            statuses[sop_instance_uid] = response.Status
        assert sending.communicate(timeout=60)[0] == b"0"
        peak_mib = receiver.rss_mib(peak=True)
        assert receiver.terminate() == 0, receiver.log()
        assert "Traceback" not in receiver.log()
    assert len(hostile) > 150
    stored = set(node.instances())
    assert {uid for uid, status in statuses.items() if status == StoreStatus.SUCCESS} <= stored
    assert {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in good} <= stored
    assert node.spooled() == []
    assert peak_mib < 250


SEND_GOOD = """
import sys
from pathlib import Path
from tests.fixtures.dcmtk import storescu
print(storescu(int(sys.argv[1]), [Path(p) for p in sys.argv[2:]]).returncode, end="")
"""


def test_the_announced_instance_is_checked(tmp_path: Path, shared_data: Path) -> None:
    """Another instance than announced is refused with 0xA900 and its reason."""
    node = NodeFolder.create(tmp_path / "node")
    path = next((shared_data / "prostate_prostate3t_skyra").rglob("*.dcm"))
    sop_class_uid, _, transfer_syntax_uid, data_set = announced(path)
    with (
        running_receiver(node) as receiver,
        RawAssociation(receiver.port, [(sop_class_uid, transfer_syntax_uid)]) as association,
    ):
        response = association.store(sop_class_uid, generate_uid(), data_set)
        assert response.Status == StoreStatus.DATA_SET_DOES_NOT_MATCH
        assert response.ErrorComment.startswith("the request announced SOP Instance UID")
    assert node.instances() == {}
