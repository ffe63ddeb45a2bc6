"""Mutated PDUs and DIMSE messages against a running receiver: it lives, leaks nothing and goes on storing.

A case is a number of `tests.fixtures.dimse_mutations`, which names the same bytes in every run. Connections are fed
without waiting for answers and then closed for writing, so that no case waits for a timeout.
"""

import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from node.dimse.association import AssociationLimits
from tests.fixtures.dimse_mutations import (
    ABORT,
    ASSOCIATE,
    RELEASE,
    SEED,
    is_answer_to_probe,
    mutated_conversation,
    mutated_message,
    probe,
    whole_conversation,
)
from tests.fixtures.instances import sized_mr_bytes
from tests.fixtures.raw_dimse import P_DATA_TF, RawAssociation
from tests.fixtures.receiver_process import NodeFolder, RunningReceiver, running_receiver

pytestmark = pytest.mark.slow

MESSAGES = 14_000
CONVERSATIONS = 5_000
SENDERS = 4
CASES_PER_CONNECTION = 20
PROBES = 0x4000
"""Message IDs of probes begin here."""
CASES_PER_CHECK = 2_000
LIMITS = AssociationLimits(maximum_associations=20, acse_timeout_s=5, network_timeout_s=5)


@pytest.fixture(scope="module")
def node() -> Iterator[NodeFolder]:
    """In memory where there is a volume for that: what is asked here is not durability."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield NodeFolder.create(Path(folder) / "node")


@pytest.fixture(scope="module")
def receiver(node: NodeFolder) -> Iterator[RunningReceiver]:
    with running_receiver(node, limits=LIMITS) as running:
        yield running


def converse(port: int, data: bytes) -> bytes:
    """Send all, say that there is no more, and return all that is answered until the receiver hangs up."""
    answers = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                answers += piece
        except OSError:  # it had hung up before it had read everything
            pass
    return answers


def survived(answers: bytes, count: int) -> int:
    """How many of ``count`` cases the association has survived: the last probe that was answered says so."""
    number, at = 0, 0
    while at + 6 <= len(answers):
        kind, length = struct.unpack_from(">BxL", answers, at)
        body = answers[at + 6 : at + 6 + length]
        if kind == P_DATA_TF and number < count and is_answer_to_probe(body, PROBES + number + 1):
            number += 1
        at += 6 + length
    return number


def run_messages(port: int, numbers: Sequence[int]) -> None:
    """Run cases in one association, each followed by a probe; go on in a new one behind the case that ended it."""
    left = [mutated_message(number) for number in numbers]
    while left:
        cases = b"".join(case + probe(PROBES + number) for number, case in enumerate(left, 1))
        left = left[survived(converse(port, ASSOCIATE + cases + RELEASE), len(left)) + 1 :]


def run_conversations(port: int, numbers: Sequence[int]) -> None:
    for number in numbers:
        converse(port, mutated_conversation(number))


def run_all(
    run: Callable[[int, Sequence[int]], None], node: NodeFolder, receiver: RunningReceiver, cases: range
) -> None:
    """Run the cases, and look after the receiver now and then."""
    with ThreadPoolExecutor(SENDERS) as pool:
        for at in range(0, len(cases), CASES_PER_CHECK):
            said_before = len(receiver.log())
            some = cases[at : at + CASES_PER_CHECK]
            parts = [some[n : n + CASES_PER_CONNECTION] for n in range(0, len(some), CASES_PER_CONNECTION)]
            list(pool.map(lambda part: run(receiver.port, part), parts))
            assert_well(node, receiver, said_before, f"{run.__name__}, seed {SEED}, cases {some[0]} to {some[-1]}")


def assert_well(node: NodeFolder, receiver: RunningReceiver, said_before: int, which: str) -> None:
    """It lives, has raised nothing, has an empty spool, and stores a good instance."""
    assert receiver.process.poll() is None, f"{which}: {receiver.log()[-3000:]}"
    said = receiver.log()[said_before:]
    assert "Traceback" not in said, f"{which}: {said[said.index('Traceback') - 300 :][:3000]}"
    uid = generate_uid()
    with RawAssociation(receiver.port, [(MRImageStorage, ExplicitVRLittleEndian)]) as association:
        assert association.store(MRImageStorage, uid, sized_mr_bytes(uid)).Status == 0x0000, which
        association.release()
    assert uid in node.instances()
    deadline = time.monotonic() + 10
    while node.spooled():
        assert time.monotonic() < deadline, f"{which}: left in the spool: {node.spooled()}"
        time.sleep(0.05)


def test_cut_or_aborted_at_every_byte(node: NodeFolder, receiver: RunningReceiver) -> None:
    """A good conversation, ended after each of its bytes by a closed connection, and by an abort."""
    whole = whole_conversation()
    said_before = len(receiver.log())
    ends = [whole[:at] + end for at in range(len(whole)) for end in (b"", ABORT)]
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(lambda data: converse(receiver.port, data), ends))
    assert len(ends) == 2 * len(whole) > 1_500
    assert_well(node, receiver, said_before, "cut or aborted")


def test_mutated_conversations(node: NodeFolder, receiver: RunningReceiver) -> None:
    run_all(run_conversations, node, receiver, range(CONVERSATIONS))


def test_mutated_messages(node: NodeFolder, receiver: RunningReceiver) -> None:
    """Memory is flat: what the last cases add to what the first ones needed."""
    run_all(run_messages, node, receiver, range(CASES_PER_CHECK))
    before = receiver.rss_mib()
    run_all(run_messages, node, receiver, range(CASES_PER_CHECK, MESSAGES))
    assert receiver.rss_mib() - before < 12
    assert receiver.terminate() == 0
    assert all(association.released_at for association in node.associations())
