"""The addresses of destinations, so that an instance is never sent back to where it came from."""

import socket
import threading
import time

from node.settings import Destination
from storage.originals import Endpoint

LIFETIME_S = 300.0
"""Hosts rarely move; asking the name server for every series would make routing wait for it."""

_known: dict[str, tuple[float, tuple[str, ...] | None]] = {}
_lock = threading.Lock()


def endpoint_of(destination: Destination) -> Endpoint:
    """AE title and addresses of a destination; the addresses are None where its host name cannot be resolved."""
    return Endpoint(destination.ae_title, _addresses(destination.host))


def _addresses(host: str) -> tuple[str, ...] | None:
    now = time.monotonic()
    with _lock:
        found = _known.get(host)
    if found is None or now - found[0] > LIFETIME_S:
        found = (now, _resolved(host))
        with _lock:
            _known[host] = found
    return found[1]


def _resolved(host: str) -> tuple[str, ...] | None:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # then the AE title alone tells senders apart
        return None
    return tuple(sorted({str(entry[4][0]) for entry in entries}))
