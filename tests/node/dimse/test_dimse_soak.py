"""Ten thousand associations, and two hundred that only stay open: memory, threads, descriptors and time are flat."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from node.dimse.association import AssociationLimits
from tests.fixtures.dimse_mutations import ECHO_CONTEXT, VERIFICATION, DataValue, request
from tests.fixtures.instances import sized_mr_bytes
from tests.fixtures.raw_dimse import (
    P_DATA_TF,
    RawAssociation,
    associate_request,
    pdu,
)
from tests.fixtures.receiver_process import NodeFolder, RunningReceiver, running_receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ASSOCIATIONS = 10_000
SETTLED = 2_000
"""Memory is compared with what it is after so many."""
GROWTH_MIB = 8.0
"""Allowed for the 8,000 associations after that: about a KiB each."""
SENDERS = 4
IDLE = 200
IDLE_S = 5.0
IDLE_SHARE = 0.05
STORE_EVERY, ECHO_EVERY = 10, 5
CONTEXTS = [(MRImageStorage, ExplicitVRLittleEndian), (VERIFICATION, "1.2.840.10008.1.2")]
ECHO = pdu(P_DATA_TF, DataValue(ECHO_CONTEXT, 3, request(0x0030, VERIFICATION)).encode())


@pytest.fixture
def node() -> Iterator[NodeFolder]:
    """In memory where there is a volume for that: what is asked here is not durability."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield NodeFolder.create(Path(folder) / "node")


class Figures:
    """What the kernel says of a receiver process."""

    def __init__(self, receiver: RunningReceiver) -> None:
        self._receiver = receiver
        self._folder = Path(f"/proc/{receiver.process.pid}")

    def threads(self) -> int:
        return len(list((self._folder / "task").iterdir()))

    def descriptors(self) -> int:
        return len(list((self._folder / "fd").iterdir()))

    def rss_mib(self) -> float:
        return self._receiver.rss_mib()

    def cpu_s(self) -> float:
        """User and system time of all its threads (proc(5))."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def associate(port: int, number: int, stored: list[str]) -> None:
    """One association of five kinds: dropped before or within its request, aborted, echoing, storing."""
    kind = number % 10
    if kind in (1, 2):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(associate_request(CONTEXTS)[: 40 * (kind - 1)])
        return
    # Storage only where something is stored: each of those has a row in the index.
    with RawAssociation(port, CONTEXTS if number % STORE_EVERY == 0 else CONTEXTS[1:]) as association:
        if number % STORE_EVERY == 0:
            uid = generate_uid()
            assert association.store(MRImageStorage, uid, sized_mr_bytes(uid, rows=8, columns=8)).Status == 0x0000
            stored.append(uid)
        elif number % ECHO_EVERY == 0:
            association.send(pdu(P_DATA_TF, DataValue(1, 3, request(0x0030, VERIFICATION)).encode()))
            assert association.read_pdu()[0] == P_DATA_TF
        if kind in (3, 4):
            association.abort()
        elif kind != 7:  # 7 closes the connection without a word
            association.release()


def settle(figures: Figures, threads: int) -> None:
    """Wait until the last associations have ended."""
    deadline = time.monotonic() + 20
    while figures.threads() > threads:
        assert time.monotonic() < deadline, f"{figures.threads()} threads are left, {threads} at the start"
        time.sleep(0.05)


def test_ten_thousand_associations(node: NodeFolder) -> None:
    stored: list[str] = []
    with running_receiver(node, limits=AssociationLimits(maximum_associations=50)) as receiver:
        figures = Figures(receiver)
        threads = figures.threads()
        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(lambda number: associate(receiver.port, number, stored), range(SETTLED)))
            settle(figures, threads)
            rss_mib, descriptors = figures.rss_mib(), figures.descriptors()
            list(pool.map(lambda number: associate(receiver.port, number, stored), range(SETTLED, ASSOCIATIONS)))
        settle(figures, threads)
        assert figures.rss_mib() - rss_mib < GROWTH_MIB
        assert figures.descriptors() <= descriptors + 2
        assert receiver.terminate() == 0
        assert "Traceback" not in receiver.log()
    assert len(stored) == ASSOCIATIONS // STORE_EVERY
    assert set(stored) == set(node.instances())
    assert all(association.released_at for association in node.associations())
    assert node.spooled() == []


def test_idle_associations_cost_next_to_nothing(node: NodeFolder) -> None:
    """Modalities hold them open all day: 200 of them together take at most 5 % of a core, and still answer."""
    limits = AssociationLimits(maximum_associations=IDLE + 10)
    with running_receiver(node, limits=limits) as receiver:
        figures = Figures(receiver)
        with ThreadPoolExecutor(SENDERS) as pool:
            opened = list(pool.map(lambda _: RawAssociation(receiver.port, CONTEXTS), range(IDLE)))
        time.sleep(0.5)
        cpu_s, at = figures.cpu_s(), time.monotonic()
        time.sleep(IDLE_S)
        share = (figures.cpu_s() - cpu_s) / (time.monotonic() - at)
        assert share <= IDLE_SHARE
        for association in opened:
            association.send(ECHO)
        for association in opened:
            assert association.read_pdu()[0] == P_DATA_TF
            association.release()
            association.connection.close()
        assert receiver.terminate() == 0
