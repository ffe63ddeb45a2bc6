"""Whether an IP address is the configured host of a peer: an address, a network, or a name that must be resolved.

Names are resolved off the association's way: the first time somebody waits, briefly; afterwards the known answer holds
while a thread asks again. A name server that is slow or gone never holds up a scanner it has once told about.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

FIRST_ANSWER_WAIT_S: Final = 3.0
"""How long an association waits for a name nobody asked for before; a modality gives up after ten seconds or more."""
RETRY_S: Final = 5.0
"""A name that could not be resolved is asked for again after this time at the earliest."""

Resolver = Callable[[str], Iterable[str]]


@dataclass
class _Name:
    """What is known about one host name. ``asking`` is true while a thread resolves it."""

    addresses: frozenset[str] = frozenset()
    expires_at: float = 0.0
    asking: bool = False
    answered: threading.Event = field(default_factory=threading.Event)


class PeerHosts:
    """Compares addresses with configured hosts. ``lifetime_s`` is how long a resolved name holds unasked."""

    def __init__(self, lifetime_s: float, resolve: Resolver | None = None) -> None:
        self._lifetime_s = lifetime_s
        self._resolve = resolve or _resolve
        self._lock = threading.Lock()
        self._names: dict[str, _Name] = {}

    def matches(self, host: str, address: str) -> bool:
        """Tell whether IP ``address`` is, lies in, or belongs to ``host``."""
        caller = plain_address(address)
        if "/" in host:
            network = ipaddress.ip_network(host)
            return caller is not None and caller.version == network.version and caller in network
        configured = plain_address(host)
        if configured is not None:
            return caller == configured
        return caller is not None and str(caller) in self._addresses(host)

    def _addresses(self, host: str) -> frozenset[str]:
        with self._lock:
            name = self._names.setdefault(host, _Name())
            if time.monotonic() >= name.expires_at and not name.asking:
                name.asking = True
                threading.Thread(target=self._ask, args=(host, name), name=f"resolve-{host}", daemon=True).start()
        name.answered.wait(FIRST_ANSWER_WAIT_S)
        return name.addresses

    def _ask(self, host: str, name: _Name) -> None:
        lifetime_s = self._lifetime_s
        try:
            name.addresses = frozenset(str(plain_address(found) or found) for found in self._resolve(host))
        except OSError as error:
            lifetime_s = min(RETRY_S, lifetime_s)
            # Only a definite "there is no such name" takes back what was known; a name server's outage does not.
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                name.addresses = frozenset()
            _log.error("peer-host-unknown", host=host, error=str(error), known_addresses=len(name.addresses))
        finally:
            with self._lock:
                name.expires_at = time.monotonic() + lifetime_s
                name.asking = False
            name.answered.set()


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address, an IPv4 address in IPv6's clothes (::ffff:10.0.0.1) as itself; None if it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _resolve(host: str) -> Iterable[str]:
    return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
