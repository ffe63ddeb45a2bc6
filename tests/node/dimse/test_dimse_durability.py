"""What was acknowledged is there: after kill -9 in mid transfer, after SIGTERM, and for objects of any size."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from node.dimse.association import AssociationLimits
from node.dimse.server import ReceiverOptions
from node.dimse.storage_scp import StoreStatus
from storage.database import sqlite_url
from storage.spool import Spool, part10_prefix
from tests.fixtures.dcmtk import free_port
from tests.fixtures.instances import sized_mr_bytes
from tests.fixtures.raw_dimse import A_ABORT, AssociationEnded, RawAssociation, data_value
from tests.fixtures.receiver_process import NodeFolder, running_receiver

CONTEXTS = [(MRImageStorage, ExplicitVRLittleEndian)]


@pytest.fixture
def node(tmp_path: Path) -> NodeFolder:
    return NodeFolder.create(tmp_path / "node")


def send_until_lost(port: int, acknowledged: list[str]) -> None:
    """Send instances over one association until it breaks; note each that was acknowledged."""
    try:
        with RawAssociation(port, CONTEXTS) as association:
            while True:
                uid = generate_uid()
                if association.store(MRImageStorage, uid, sized_mr_bytes(uid, rows=256, columns=256)).Status == 0x0000:
                    acknowledged.append(uid)
    except AssociationEnded:
        pass


@pytest.mark.parametrize("wait_s", [0.4, 0.7, 1.1])
def test_nothing_acknowledged_is_lost_by_kill_9(node: NodeFolder, wait_s: float) -> None:
    acknowledged: list[str] = []
    with running_receiver(node) as receiver:
        senders = [threading.Thread(target=send_until_lost, args=(receiver.port, acknowledged)) for _ in range(3)]
        for sender in senders:
            sender.start()
        stalled = RawAssociation(receiver.port, CONTEXTS)
        stalled.begin_store(MRImageStorage, generate_uid())
        stalled.send(data_value(1, bytes(5000), command=False, last=False))
        time.sleep(wait_s)
        receiver.kill()
        for sender in senders:
            sender.join(timeout=20)
        stalled.connection.close()
    assert acknowledged
    assert node.spooled()
    assert any(association.released_at is None for association in node.associations())
    with running_receiver(node) as receiver:
        assert node.spooled() == []
        assert all(association.released_at for association in node.associations())
        assert receiver.terminate() == 0
    stored = node.instances()
    assert set(acknowledged) <= set(stored)
    for uid in acknowledged:
        node.objects.verify(stored[uid].object_digest)


def test_sigterm_lets_an_association_finish_and_takes_no_other(node: NodeFolder) -> None:
    first, second = generate_uid(), generate_uid()
    with running_receiver(node) as receiver:
        association = RawAssociation(receiver.port, CONTEXTS)
        assert association.store(MRImageStorage, first, sized_mr_bytes(first)).Status == 0x0000
        ended = threading.Thread(target=receiver.terminate)
        ended.start()
        refused_within(receiver.port, seconds=5)
        assert association.store(MRImageStorage, second, sized_mr_bytes(second)).Status == 0x0000
        association.release()
        ended.join(timeout=10)
        assert receiver.process.returncode == 0
    assert {first, second} == set(node.instances())
    assert all(row.released_at for row in node.associations())


def test_sigterm_ends_an_association_that_goes_on_too_long(node: NodeFolder) -> None:
    options = ReceiverOptions(port=free_port(), drain_grace_s=0.5)
    with running_receiver(node, options) as receiver:
        association = RawAssociation(receiver.port, CONTEXTS)
        start = time.monotonic()
        assert receiver.terminate() == 0
        assert 0.5 <= time.monotonic() - start < 20
        kind, _ = association.read_pdu()
        assert kind == A_ABORT
    assert all(row.released_at for row in node.associations())


def refused_within(port: int, seconds: float) -> None:
    """Return once new connections are refused."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            RawAssociation(port, CONTEXTS).connection.close()
        except (ConnectionError, AssociationEnded):
            return
        time.sleep(0.05)
    raise AssertionError("still accepts associations")


@pytest.mark.slow
def test_memory_stays_bounded_for_a_large_object(node: NodeFolder, tmp_path: Path) -> None:
    """200 MB of one instance, streamed: under 250 MiB in all, and far less than the object on top of the start."""
    uid = generate_uid()
    data_set = sized_mr_bytes(uid, rows=10_000, columns=10_500)
    assert len(data_set) > 200_000_000
    with running_receiver(node) as receiver:
        before = receiver.rss_mib()
        with RawAssociation(receiver.port, CONTEXTS) as association:
            assert association.store(MRImageStorage, uid, data_set).Status == 0x0000
            association.release()
        peak = receiver.rss_mib(peak=True)

    assert peak < 250
    assert peak - before < 40
    assert node.instances()[uid].size_bytes > len(data_set)


def test_too_little_free_space_is_answered_with_out_of_resources(node: NodeFolder) -> None:
    limits = AssociationLimits(minimum_free_bytes=int(1.5 * shutil.disk_usage(node.data_dir).free))
    with running_receiver(node, limits=limits) as receiver, RawAssociation(receiver.port, CONTEXTS) as association:
        uid = generate_uid()
        response = association.store(MRImageStorage, uid, sized_mr_bytes(uid))
        assert response.Status == StoreStatus.OUT_OF_RESOURCES
        assert response.ErrorComment.startswith("disk almost full")
    assert node.instances() == {}


def test_a_disk_that_fills_during_a_transfer_is_answered_and_recovers(tmp_path: Path) -> None:
    """On a volume of its own: 40 MB do not fit, and are answered with 0xA700, not cut off; once room is made they are
    stored over the same association."""
    with small_volume(tmp_path / "volume", megabytes=64) as volume:
        node = NodeFolder.create(volume / "node")
        limits = AssociationLimits(minimum_free_bytes=20_000_000, recovered_free_bytes=45_000_000)
        ballast = volume / "ballast"
        ballast.write_bytes(bytes(15_000_000))
        large = generate_uid()
        data_set = sized_mr_bytes(large, rows=5_000, columns=4_000)
        with running_receiver(node, limits=limits) as receiver, RawAssociation(receiver.port, CONTEXTS) as association:
            response = association.store(MRImageStorage, large, data_set)
            assert response.Status == StoreStatus.OUT_OF_RESOURCES
            assert not node.spooled()
            ballast.unlink()
            time.sleep(0.5)
            small = generate_uid()
            assert association.store(MRImageStorage, small, sized_mr_bytes(small)).Status == 0x0000
            association.release()
        assert set(node.instances()) == {small}


class IndexElsewhere(NodeFolder):
    """A node whose index lies on a volume of its own, beside its folder."""

    @property
    def database_url(self) -> str:
        return sqlite_url(self.data_dir.parent / "volume" / "index.db")


def fill(path: Path, leave_bytes: int) -> None:
    """Fill the volume but for ``leave_bytes``."""
    path.write_bytes(bytes(max(0, shutil.disk_usage(path.parent).free - leave_bytes)))


def test_an_index_on_a_full_volume_is_answered_and_recovers(tmp_path: Path) -> None:
    """While the index cannot grow, 0xA700; with room again the same association goes on. Nothing is lost."""
    with small_volume(tmp_path / "volume", megabytes=16) as volume:
        node = IndexElsewhere.create(tmp_path / "node")
        statuses: dict[str, int] = {}

        def store(association: RawAssociation) -> int:
            uid = generate_uid()
            statuses[uid] = association.store(MRImageStorage, uid, sized_mr_bytes(uid, rows=8, columns=8)).Status
            return statuses[uid]

        with running_receiver(node) as receiver, RawAssociation(receiver.port, CONTEXTS) as association:
            assert store(association) == 0x0000
            fill(volume / "ballast", leave_bytes=200_000)
            while store(association) == 0x0000:
                assert len(statuses) < 1000
            fill(volume / "more ballast", leave_bytes=0)
            assert [store(association) for _ in range(5)] == [StoreStatus.OUT_OF_RESOURCES] * 5
            (volume / "ballast").unlink()
            assert [store(association) for _ in range(5)] == [0x0000] * 5
            with RawAssociation(receiver.port, CONTEXTS) as another:
                assert store(another) == 0x0000
                another.release()
            receiver.kill()
        with running_receiver(node) as receiver:
            assert receiver.terminate() == 0
        acknowledged = {uid for uid, status in statuses.items() if status == 0x0000}
        assert set(statuses.values()) == {0x0000, StoreStatus.OUT_OF_RESOURCES}
        stored = node.instances()
        assert acknowledged == set(stored)
        for row in stored.values():
            node.objects.verify(row.object_digest)
        assert node.spooled() == []


def test_recovery_drops_what_a_power_cut_has_shortened(node: NodeFolder) -> None:
    """Named in the object store, but its last bytes never reached the disk: it was not acknowledged, and goes."""
    spool = Spool(node.data_dir / "spool" / ReceiverOptions().slot_name)
    kept: dict[str, str] = {}
    for uid, lost_bytes in (("1.2.3.1", 0), ("1.2.3.2", 1000)):
        with spool.new_file() as file:
            file.write(part10_prefix(MRImageStorage, uid, ExplicitVRLittleEndian) + sized_mr_bytes(uid))
            node.objects.keep(file.path, file.digest)
            os.truncate(file.path, file.size_bytes - lost_bytes)
            kept[uid] = file.digest
            os.link(file.path, spool.directory / f"unassociated-{uid}.part")
    with running_receiver(node) as receiver:
        assert "its bytes are not those" in receiver.log()
        assert {uid: row.object_digest for uid, row in node.instances().items()} == {"1.2.3.1": kept["1.2.3.1"]}
        assert node.spooled() == []
        with RawAssociation(receiver.port, CONTEXTS) as association:
            assert association.store(MRImageStorage, "1.2.3.2", sized_mr_bytes("1.2.3.2")).Status == 0x0000


@contextmanager
def small_volume(folder: Path, megabytes: int) -> Iterator[Path]:
    """A volume of its own size: a tmpfs, which root may mount."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small volume needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
