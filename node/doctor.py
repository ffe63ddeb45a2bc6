"""What ``pacsgate doctor`` looks at: everything the node needs, each with what to do where it is missing."""

import errno
import importlib.util
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydicom.pixels import get_decoder  # type: ignore[attr-defined]  # documented, not re-exported
from pydicom.uid import UID
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from node.objects import ABSENT_DIGEST, open_objects
from node.settings import ConfigurationError, Settings
from storage.database import Database
from storage.errors import ObjectStoreUnavailable

DECODED_SYNTAXES = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
)
"""RLE, JPEG baseline, JPEG lossless, JPEG-LS, JPEG 2000, HTJ2K: what scanners and PACS send compressed."""


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str


def examine(settings: Settings) -> list[Check]:
    """Look at everything; a check never raises."""
    checks: tuple[Callable[[Settings], Iterator[Check]], ...] = (
        _python,
        _packages,
        _decoders,
        _disk,
        _index,
        _objects,
        _ports,
        _certificates,
        _calibration,
        _destinations,
    )
    return [check for look in checks for check in look(settings)]


def _python(_: Settings) -> Iterator[Check]:
    yield Check("python", "ok" if sys.version_info >= (3, 11) else "fail", sys.version.split()[0])


def _packages(_: Settings) -> Iterator[Check]:
    for module, extra in (("scipy", "ai"), ("torch", "ai"), ("gdcm", "codecs"), ("pylibjpeg", "codecs")):
        present = importlib.util.find_spec(module) is not None
        missing = f"missing: pip install 'pacsgate[{extra}]'"
        yield Check(f"package {module}", "ok" if present else "warn", "present" if present else missing)


def _decoders(_: Settings) -> Iterator[Check]:
    for uid in DECODED_SYNTAXES:
        available = get_decoder(UID(uid)).is_available
        detail = "decodes" if available else "stored but not assessed: pip install 'pacsgate[codecs]'"
        yield Check(f"decoder {UID(uid).name}", "ok" if available else "warn", detail)


def _disk(settings: Settings) -> Iterator[Check]:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free > settings.storage.minimum_free_bytes
    yield Check("disk", "ok" if enough else "fail", f"{free / 1e9:.1f} GB free at {folder}")


def _index(settings: Settings) -> Iterator[Check]:
    if settings.database_url.startswith("sqlite") and not (settings.data_dir / "index.db").exists():
        yield Check("index", "ok", f"will be made at {settings.data_dir / 'index.db'}")
        return
    try:
        database = Database(settings.database_url)
        with database.read() as session:
            session.execute(text("SELECT 1"))
        database.dispose()
    except (SQLAlchemyError, ValueError, ImportError) as error:  # not there, no address of one, no driver for it
        yield Check("index", "fail", f"does not answer: {type(error).__name__}")
    else:
        yield Check("index", "ok", "answers")


def _objects(settings: Settings) -> Iterator[Check]:
    url = settings.storage.objects_url
    if not url:
        return
    try:
        open_objects(settings).contains(ABSENT_DIGEST)
    except ObjectStoreUnavailable as error:
        yield Check("objects", "fail", str(error))
    else:
        yield Check("objects", "ok", f"{url} answers")


def _ports(settings: Settings) -> Iterator[Check]:
    ports = [
        ("DICOM port", settings.dicom.host, settings.dicom.port),
        ("web port", settings.web.host, settings.web.port),
    ]
    if settings.tls.enabled:
        ports.append(("DICOM TLS port", settings.tls_host, settings.tls.port))
    yield from (_port(*port) for port in ports)


def _port(name: str, host: str, port: int) -> Check:
    """Bind it for a moment. To connect would leave a failed handshake and an audit alert in a node that runs on it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the node does: what lingers of closed connections keeps nobody from listening.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        return Check(name, "fail", f"{host}: {error.strerror}")
    except PermissionError:
        return Check(name, "warn", f"{host}:{port} may not be opened by the user who asks")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Check(name, "warn", f"{host}:{port} in use (this node running?)")
        return Check(name, "fail", f"{host}:{port} cannot be opened: {error.strerror}")
    return Check(name, "ok", f"{host}:{port} free")


def _certificates(settings: Settings) -> Iterator[Check]:
    from node.tls import certificate_states, server_context

    tls = settings.tls
    if not tls.enabled:
        return
    try:
        server_context(tls)
        faults = [fault for state in certificate_states(tls) if (fault := state.fault(tls.expiry_warning_days))]
    except ConfigurationError as error:
        yield Check("TLS certificates", "fail", str(error))
        return
    for fault in faults:
        yield Check("TLS certificates", "warn", fault)
    if not faults:
        yield Check("TLS certificates", "ok", f"profile {tls.profile}, {len(settings.peers)} peers configured")


def _calibration(settings: Settings) -> Iterator[Check]:
    from node.calibration import calibration_in_words

    try:
        yield Check("calibration", "ok", calibration_in_words(settings))
    except ConfigurationError as error:
        yield Check("calibration", "fail", str(error))


def _destinations(settings: Settings) -> Iterator[Check]:
    from node.dimse.storage_scu import DestinationUnavailable, echo

    for destination in settings.destinations:
        try:
            echo(destination, settings.dicom.ae_title, timeout_s=5)
        except DestinationUnavailable as error:
            yield Check(f"destination {destination.name}", "warn", str(error))
        else:
            yield Check(f"destination {destination.name}", "ok", "answers C-ECHO")
