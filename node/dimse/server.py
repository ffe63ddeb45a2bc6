"""The receiver: Verification and Storage SCP of one process, started, drained and stopped; the process entry point."""

import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog
from pynetdicom import AE, evt

from node.dimse.association import AssociationLimits, AssociationPolicy, AssociationRegister
from node.dimse.contexts import supported_contexts
from node.dimse.listener import Listener
from node.dimse.procedure_step import ProcedureStepScp
from node.dimse.pynetdicom_options import configure_pynetdicom
from node.dimse.storage_commitment import StorageCommitment
from node.dimse.storage_scp import StorageScp
from node.dimse.verification import on_c_echo
from node.settings import Peer
from storage.associations import close_stale
from storage.database import Database
from storage.objects import ObjectStore
from storage.spool import Spool

_log = structlog.get_logger(__name__)

DRAIN_POLL_S = 0.05
ABORT_WAIT_S = 5.0
"""After the grace period associations are aborted; what they were ingesting may take so long to finish."""


@dataclass(frozen=True)
class ReceiverOptions:
    """Options of one receiver process."""

    ae_title: str = "PACSGATE"
    host: str = "127.0.0.1"
    port: int = 11112
    """0 takes a free port; `Receiver.port` tells which."""
    slot_name: str = "receiver-0"
    """Names this process in the index and its folder in the spool; stable over restarts, unique on this machine."""
    peers: tuple[Peer, ...] = ()
    """Who may associate; empty lets everybody in."""
    require_called_ae_title: bool = False
    reuse_port: bool = False
    """Several receivers share the port."""
    additional_sop_classes: tuple[str, ...] = ()
    """UIDs of private storage SOP classes to accept as well."""
    limits: AssociationLimits = field(default_factory=AssociationLimits)
    drain_grace_s: float = 20.0
    """How long associations in flight may go on after a stop was asked for."""


class Receiver:
    """Listens for associations from ``start`` to ``stop``; a context manager over both.

    One receiver per process at a time: the library underneath takes its temporary folder and options per process.
    """

    def __init__(self, options: ReceiverOptions, database: Database, objects: ObjectStore, spool_root: Path) -> None:
        self._options = options
        self._database = database
        # A folder per slot, so that a restart sweeps its own orphans and never a neighbour's transfer.
        self._spool = Spool(spool_root / options.slot_name)
        policy = AssociationPolicy(options.ae_title, options.peers, options.require_called_ae_title)
        self._register = AssociationRegister(policy, options.limits, database, options.slot_name)
        self._storage = StorageScp(
            database, objects, self._spool, options.limits.minimum_free_bytes, self._register.row_id
        )
        self._procedure_steps = ProcedureStepScp(database)
        self._commitment = StorageCommitment(database, objects)
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._former_temporary_folder: str | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._listener is None:
            raise RuntimeError("the receiver is not started")
        return int(self._listener.server_address[1])

    def start(self) -> None:
        """Clear what a crash left behind, then listen.

        Raises
        ------
        PortUnavailable
            The port cannot be bound.
        IndexUnavailable
            The index cannot be written.
        """
        configure_pynetdicom()
        listener = self._listen()
        self._clear_leftovers()
        self._former_temporary_folder = tempfile.tempdir
        tempfile.tempdir = str(self._spool.directory)
        self._listener = listener
        self._thread = threading.Thread(target=listener.serve_forever, name="dicom-listener", daemon=True)
        self._thread.start()
        _log.info("receiver-started", ae_title=self._options.ae_title, host=self._options.host, port=self.port)

    def stop(self) -> None:
        """Stop accepting, let associations in flight finish within the grace period, abort the rest."""
        listener, thread = self._listener, self._thread
        if listener is None or thread is None:
            return
        listener.shutdown()
        thread.join()
        if not self._wait_until_idle(self._options.drain_grace_s):
            for association in listener.active_associations:
                association.abort(block=False)
            if not self._wait_until_idle(ABORT_WAIT_S):
                _log.error("associations-still-open", count=len(self._register))
        tempfile.tempdir = self._former_temporary_folder
        self._listener = self._thread = None
        _log.info("receiver-stopped")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _listen(self) -> Listener:
        options, limits = self._options, self._options.limits
        ae = AE(options.ae_title)
        ae.maximum_pdu_size = limits.maximum_pdu_bytes
        ae.acse_timeout = limits.acse_timeout_s
        ae.dimse_timeout = limits.dimse_timeout_s
        ae.network_timeout = limits.network_timeout_s
        # The register counts and turns away; pynetdicom counts connections that never asked for an association, too.
        ae.maximum_associations = 2**31
        handlers = [
            (evt.EVT_REQUESTED, self._register.on_requested),
            (evt.EVT_CONN_CLOSE, self._register.on_connection_closed),
            (evt.EVT_C_ECHO, on_c_echo),
            (evt.EVT_C_STORE, self._storage.on_c_store),
            (evt.EVT_N_CREATE, self._procedure_steps.on_n_create),
            (evt.EVT_N_SET, self._procedure_steps.on_n_set),
            (evt.EVT_N_ACTION, self._commitment.on_n_action),
            (evt.EVT_N_EVENT_REPORT, self._commitment.on_n_event_report),
        ]
        return Listener(
            ae,
            (options.host, options.port),
            supported_contexts(options.additional_sop_classes),
            handlers,
            self._register,
            limits,
            self._spool.directory,
            options.reuse_port,
        )

    def _clear_leftovers(self) -> None:
        swept = self._spool.sweep()
        closed = close_stale(self._database, self._options.slot_name)
        if swept or closed:
            _log.warning("leftovers-cleared", spool_files=swept, associations=closed)

    def _wait_until_idle(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while len(self._register) > 0:
            if time.monotonic() >= deadline:
                return False
            time.sleep(DRAIN_POLL_S)
        return True


def run_receiver(options: ReceiverOptions, database_url: str, data_dir: Path, stop: threading.Event) -> None:
    """Run one receiver in this process until ``stop`` is set, then drain it and return.

    Objects go to ``data_dir/objects``, the spool is ``data_dir/spool/SLOT``. The index is expected to be migrated.
    """
    database = Database(database_url)
    try:
        with Receiver(options, database, ObjectStore(data_dir / "objects"), data_dir / "spool"):
            stop.wait()
    finally:
        database.dispose()
