"""What a receiver process says of itself: it lives from when it listens, and ends when it no longer does."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.dimse.listener import Listener, PortUnavailable
from node.dimse.server import ReceiverOptions, run_receiver
from node.signs_of_life import last_signs
from tests.fixtures.dcmtk import free_port
from tests.fixtures.receiver_process import NodeFolder


@pytest.fixture
def node(tmp_path: Path) -> NodeFolder:
    return NodeFolder.create(tmp_path / "data")


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    stop = threading.Event()
    yield stop
    stop.set()


def _run(node: NodeFolder, port: int, stop: threading.Event) -> None:
    run_receiver(ReceiverOptions(port=port, slot_name="host/receiver-0"), node.database_url, node.data_dir, stop)


def test_no_sign_of_life_without_its_port(node: NodeFolder, stop: threading.Event) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortUnavailable):
        _run(node, other.getsockname()[1], stop)
    assert last_signs(node.data_dir) == {}


def test_a_sign_of_life_from_when_it_listens(
    node: NodeFolder, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing while it clears what a crash left behind, which may take long."""
    clearing, cleared = threading.Event(), threading.Event()

    def clear(*_: object) -> int:
        clearing.set()
        cleared.wait(20)
        return 0

    monkeypatch.setattr("node.dimse.server.close_stale", clear)
    thread = threading.Thread(target=_run, args=(node, free_port(), stop))
    thread.start()
    assert clearing.wait(20)
    assert last_signs(node.data_dir) == {}
    cleared.set()
    while not (sign := last_signs(node.data_dir).get("receiver-0")):
        thread.join(0.01)
        assert thread.is_alive()
    assert sign["pid"] == os.getpid()
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_it_ends_when_a_listener_has_ended(
    node: NodeFolder, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor starts it again; as it is it would receive nothing for ever."""
    monkeypatch.setattr(Listener, "serve_forever", lambda _: None)
    monkeypatch.setattr(Listener, "shutdown", lambda _: None)
    with pytest.raises(PortUnavailable, match="takes no more associations"):
        _run(node, free_port(), stop)
