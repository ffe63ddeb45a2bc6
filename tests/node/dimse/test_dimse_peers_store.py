"""DCMTK as the scanner: what it sends arrives bit for bit, in the syntax it was sent in; storescp is the yardstick."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid
from pynetdicom.dsutils import split_dataset

from node.dimse.server import ReceiverOptions
from node.dimse.storage_scu import send
from node.settings import Destination
from tests.fixtures.dcmtk import echoscu, free_port, storescp, storescu
from tests.fixtures.receiver_process import NodeFolder, running_receiver

pytestmark = pytest.mark.peers

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


def data_set_bytes(path: Path) -> bytes:
    """What follows the file meta information."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def as_sent(folder: Path) -> dict[str, bytes]:
    """Data sets as storescp kept them, by SOP Instance UID."""
    return {read_file_meta_info(path).MediaStorageSOPInstanceUID: data_set_bytes(path) for path in folder.iterdir()}


@pytest.fixture
def node(tmp_path: Path) -> NodeFolder:
    return NodeFolder.create(tmp_path / "node")


def test_echo_succeeds_and_records_no_association(node: NodeFolder) -> None:
    with running_receiver(node) as receiver:
        assert echoscu(receiver.port) == 0
        assert receiver.terminate() == 0
    assert node.associations() == []


@pytest.mark.real_data
def test_a_prostate_study_arrives_bit_for_bit(node: NodeFolder, shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "prostate_prostatex_skyra" / "ProstateX-0000").rglob("*.dcm"))
    with storescp(tmp_path / "yardstick") as pacs:
        assert storescu(pacs.port, files).returncode == 0
    with running_receiver(node) as receiver:
        sent = storescu(receiver.port, files)
        assert sent.returncode == 0, sent.stderr
        assert receiver.terminate() == 0
    stored = {uid: data_set_bytes(node.objects.path(row.object_digest)) for uid, row in node.instances().items()}
    assert len(files) > 50
    assert set(stored) == {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files}
    assert stored == as_sent(tmp_path / "yardstick")
    assert node.spooled() == []
    (association,) = node.associations()
    assert association.calling_ae_title == "SCANNER"
    assert association.instances_received == len(files)
    assert association.released_at is not None


@pytest.mark.real_data
def test_every_transfer_syntax_is_stored_as_received(node: NodeFolder, shared_data: Path, tmp_path: Path) -> None:
    """Sent by our own SCU, which keeps the bytes of a file; DCMTK knows no HTJ2K. Deflated is not on offer."""
    every = [
        with_hierarchy(path, tmp_path / f"{index}.dcm")
        for index, path in enumerate(sorted((shared_data / "transfer_syntax").rglob("*")))
        if path.is_file() and path.read_bytes()[128:132] == b"DICM"
    ]
    with running_receiver(node) as receiver:
        destination = Destination(name="node", ae_title="PACSGATE", host="127.0.0.1", port=receiver.port)
        outcomes = list(send(destination, every, "SCANNER"))
        assert receiver.terminate() == 0
    stored, syntaxes = node.instances(), set()
    assert [outcome.path for outcome in outcomes] == every
    for outcome in {outcome.sop_instance_uid: outcome for outcome in outcomes}.values():
        syntax = read_file_meta_info(outcome.path).TransferSyntaxUID
        if syntax in (DeflatedExplicitVRLittleEndian, DEFLATED_FRAMES):
            assert outcome.error.startswith("the destination refuses")
            continue
        assert outcome.delivered, outcome
        row = stored[outcome.sop_instance_uid]
        assert row.transfer_syntax_uid == syntax
        assert data_set_bytes(node.objects.path(row.object_digest)) == data_set_bytes(outcome.path)
        syntaxes.add(syntax)
    assert len(syntaxes) >= 12


def with_hierarchy(path: Path, copy: Path) -> Path:
    """``path``, or a copy with the study and series that some of pydicom's codec samples lack."""
    data_set = dcmread(path)
    if "StudyInstanceUID" in data_set and "SeriesInstanceUID" in data_set:
        return path
    data_set.StudyInstanceUID = generate_uid()
    data_set.SeriesInstanceUID = generate_uid()
    data_set.save_as(copy)
    return copy


@pytest.mark.real_data
def test_two_receivers_share_a_port(node: NodeFolder, shared_data: Path) -> None:
    files = sorted((shared_data / "prostate_prostate3t_skyra").rglob("*.dcm"))[:40]
    port = free_port()
    first = ReceiverOptions(port=port, slot_name="receiver-0", reuse_port=True)
    second = ReceiverOptions(port=port, slot_name="receiver-1", reuse_port=True)
    with running_receiver(node, first) as one, running_receiver(node, second) as other:
        for index in range(0, len(files), 4):
            assert storescu(port, files[index : index + 4]).returncode == 0
        assert one.terminate() == other.terminate() == 0
    assert len(node.instances()) == len(files)
    # Ten connections on one of two sockets only: one in 512.
    assert {association.receiver for association in node.associations()} == {"receiver-0", "receiver-1"}
    assert all(association.released_at for association in node.associations())


def test_a_port_in_use_is_named(node: NodeFolder) -> None:
    with running_receiver(node) as receiver:
        taken = ReceiverOptions(port=receiver.port, slot_name="receiver-1")
        message = f"DICOM port {receiver.port} on 127.0.0.1 is in use by another program"
        with pytest.raises(RuntimeError, match=message), running_receiver(node, taken):
            pass
