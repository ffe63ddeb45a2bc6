"""The receiver: Verification and Storage SCP of one process, started, drained and stopped; the process entry point."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Self

import structlog
from pynetdicom import evt

from node.dimse.association import AssociationLimits, AssociationPolicy, AssociationRegister
from node.dimse.contexts import supported_contexts
from node.dimse.listener import Listener, PortUnavailable
from node.dimse.peer_hosts import PeerHosts
from node.dimse.policy import HOST_NAME_LIFETIME_S
from node.dimse.procedure_step import ProcedureStepScp
from node.dimse.pynetdicom_options import application_entity
from node.dimse.storage_commitment import StorageCommitment, commitment_policy
from node.dimse.storage_scp import StorageScp
from node.dimse.tls import ServerTls
from node.dimse.verification import on_c_echo
from node.settings import CommitmentSettings, Peer, TlsSettings
from node.signs_of_life import INTERVAL_S, SignOfLife
from storage.associations import close_stale
from storage.database import Database
from storage.ingest import Intake
from storage.object_store import ObjectStorage
from storage.objects import ObjectStore
from storage.policies import DuplicatePolicy
from storage.spool import DiskGuard, Spool

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
    """Names this process in the index and its folder in the spool; stable over restarts, unique among hosts."""
    peers: Callable[[], Sequence[Peer]] | tuple[Peer, ...] = ()
    """Who may associate, or who may just now; empty lets everybody in."""
    require_called_ae_title: bool = False
    reuse_port: bool = False
    """Several receivers share the port."""
    host_name_lifetime_s: float = HOST_NAME_LIFETIME_S
    tls: TlsSettings | None = None
    """Certificate files and address of the TLS port; None for no such port."""
    additional_sop_classes: tuple[str, ...] = ()
    """UIDs of private storage SOP classes to accept as well."""
    limits: AssociationLimits = field(default_factory=AssociationLimits)
    duplicates: DuplicatePolicy = DuplicatePolicy.REPLACE_IF_CHANGED
    """What an instance does that arrives under a known SOP Instance UID."""
    commitment: CommitmentSettings = field(default_factory=CommitmentSettings)
    """When what a destination reports it cannot commit to is delivered again."""
    drain_grace_s: float = 20.0
    """How long associations in flight may go on after a stop was asked for."""


class Receiver:
    """Listens for associations from ``start`` to ``stop``; a context manager over both.

    The library underneath takes its options per process.
    """

    def __init__(self, options: ReceiverOptions, database: Database, objects: ObjectStorage, spool_root: Path) -> None:
        self._options = options
        self._database = database
        # A folder per slot, so that a restart sweeps its own orphans and never a neighbour's transfer.
        self._spool = Spool(spool_root / PurePath(options.slot_name).name)
        hosts = PeerHosts(options.host_name_lifetime_s)
        policy = AssociationPolicy(options.ae_title, options.peers, options.require_called_ae_title, hosts)
        self._register = AssociationRegister(policy, options.limits, database, options.slot_name)
        limits = options.limits
        disk = DiskGuard(self._spool, limits.minimum_free_bytes, limits.recovered_free_bytes)
        intake = Intake(database, objects, options.duplicates)
        self._storage = StorageScp(intake, self._spool, disk, self._register)
        self._procedure_steps = ProcedureStepScp(database)
        self._commitment = StorageCommitment(database, objects, commitment_policy(options.commitment))
        self._listeners: list[Listener] = []
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port it listens on, without TLS."""
        if not self._listeners:
            raise RuntimeError("the receiver is not started")
        return int(self._listeners[0].server_address[1])

    @property
    def listening(self) -> bool:
        """Whether it accepts connections, on every port it has."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Clear what a crash left behind, then listen.

        Raises
        ------
        PortUnavailable
            The port cannot be bound.
        IndexUnavailable
            The index cannot be written.
        ConfigurationError
            The certificate files cannot be used.
        """
        listeners = self._listen()
        self._clear_leftovers()
        self._listeners = listeners
        for listener in listeners:
            thread = threading.Thread(target=listener.serve_forever, name="dicom-listener", daemon=True)
            thread.start()
            self._threads.append(thread)
        _log.info("receiver-started", ae_title=self._options.ae_title, host=self._options.host, port=self.port)

    def stop(self) -> None:
        """Stop accepting, let associations in flight finish within the grace period, abort the rest."""
        if not self._listeners:
            return
        for listener, thread in zip(self._listeners, self._threads, strict=True):
            listener.shutdown()
            thread.join()
        if not self._wait_until_idle(self._options.drain_grace_s):
            for listener in self._listeners:
                for association in tuple(listener.associations):
                    association.dul.abort_soon()
            if not self._wait_until_idle(ABORT_WAIT_S):
                _log.error("associations-still-open", count=len(self._register))
        self._listeners, self._threads = [], []
        _log.info("receiver-stopped")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _listen(self) -> list[Listener]:
        """The listener of the plain port, and of the TLS port where there is one."""
        options, limits = self._options, self._options.limits
        ae = application_entity(options.ae_title)
        ae.maximum_pdu_size = limits.maximum_pdu_bytes
        ae.acse_timeout = limits.acse_timeout_s
        ae.dimse_timeout = limits.dimse_timeout_s
        ae.network_timeout = limits.network_timeout_s
        # The register counts and turns away; pynetdicom counts connections that never asked for an association, too.
        ae.maximum_associations = 2**31
        handlers = [
            (evt.EVT_REQUESTED, self._register.on_requested),
            (evt.EVT_C_ECHO, on_c_echo),
            (evt.EVT_N_CREATE, self._procedure_steps.on_n_create),
            (evt.EVT_N_SET, self._procedure_steps.on_n_set),
            (evt.EVT_N_ACTION, self._commitment.on_n_action),
            (evt.EVT_N_EVENT_REPORT, self._commitment.on_n_event_report),
        ]
        contexts = supported_contexts(options.additional_sop_classes)
        common = (contexts, handlers, self._register, limits, self._storage, options.reuse_port)
        tls = ServerTls(options.tls) if options.tls else None
        listeners = [Listener(ae, (options.host, options.port), *common)]
        if options.tls is not None:
            try:
                listeners.append(Listener(ae, (options.tls.host or options.host, options.tls.port), *common, tls))
            except PortUnavailable:
                listeners[0].server_close()
                raise
        return listeners

    def _clear_leftovers(self) -> None:
        recovered = self._storage.recover()
        closed = close_stale(self._database, self._options.slot_name)
        if recovered or closed:
            _log.warning("leftovers-cleared", instances_recovered=recovered, associations=closed)

    def _wait_until_idle(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while len(self._register) > 0:
            if time.monotonic() >= deadline:
                return False
            time.sleep(DRAIN_POLL_S)
        return True


def run_receiver(
    options: ReceiverOptions,
    database_url: str,
    data_dir: Path,
    stop: threading.Event,
    objects: ObjectStorage | None = None,
) -> None:
    """Run one receiver in this process until ``stop`` is set, then drain it and return.

    It gives a sign of life from when it listens: a process that has only started receives nothing yet.

    Objects go to ``objects``, by default ``data_dir/objects``; the spool is ``data_dir/spool/SLOT`` without the host.
    The index is expected to be migrated.

    Raises
    ------
    PortUnavailable
        A port cannot be bound, or is no longer listened on.
    """
    database = Database(database_url)
    try:
        with Receiver(options, database, objects or ObjectStore(data_dir / "objects"), data_dir / "spool") as receiver:
            sign = SignOfLife(data_dir, options.slot_name.rpartition("/")[2])
            while receiver.listening:
                sign.give(pid=os.getpid())
                if stop.wait(INTERVAL_S):
                    return
            raise PortUnavailable("a listener has ended by itself: this receiver takes no more associations")
    finally:
        database.dispose()
