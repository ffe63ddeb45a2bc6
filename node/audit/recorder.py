"""The audit trail of this process: events in the words of PS3.15 A.5.3, handed to every sink without waiting.

Callers say what happened; they know neither codes nor sinks. Patients appear by their ID only where the site asked for
it, and by name never: the house rule keeps identity out of logs, and the Study Instance UID leads those who may know to
the patient.
"""

import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from node.audit import codes
from node.audit.codes import Action, Code, ObjectRole, ObjectType, Outcome
from node.audit.file_sink import FileSink
from node.audit.limiter import AlertLimiter
from node.audit.message import ActiveParticipant, AuditMessage, AuditSource, ParticipantObject
from node.audit.sink import Sink, SinkWorker
from node.audit.syslog_sink import SyslogSink
from node.audit.transfers import Transfer
from node.settings import Settings, SyslogTransport
from node.tls import client_context

_log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S: Final = 5.0
"""How long a stopping process waits for its sinks."""
WITHHELD: Final = "withheld"
"""Stands for what the schema requires and the house rule keeps back."""
STUDY_NAME: Final = "DICOM study"


@dataclass(frozen=True)
class RemoteNode:
    """The other side of a connection: its IP address or host name, and its AE title where it has told one."""

    address: str
    ae_title: str = ""

    def participant(self, is_requestor: bool, *roles: Code) -> ActiveParticipant:
        """Return it as an active participant."""
        return ActiveParticipant(self.ae_title or self.address, is_requestor, roles, self.ae_title, "", self.address)


class AuditTrail:
    """Records events. Every method returns within microseconds, whatever the sinks do."""

    def __init__(
        self,
        process: str = "",
        ae_title: str = "",
        source: AuditSource | None = None,
        sinks: Iterable[Sink] = (),
        *,
        queue_length: int = 10_000,
        include_patient_id: bool = False,
        alerts_per_minute: int = 20,
    ) -> None:
        self.include_patient_id = include_patient_id
        self._process = process
        self._ae_title = ae_title
        self._source = source or AuditSource(ae_title)
        self._limiter = AlertLimiter(alerts_per_minute)
        self._workers = [SinkWorker(sink, queue_length, self._recording_stopped) for sink in sinks]

    def application_started(self) -> None:
        """Record that this process started (A.5.3.1)."""
        self._application(codes.APPLICATION_START)

    def application_stopped(self, failure: str = "") -> None:
        """Record that this process stops (A.5.3.1), on request or by ``failure``."""
        self._application(codes.APPLICATION_STOP, failure)

    def instances_received(self, sender: RemoteNode, transfers: Sequence[Transfer]) -> None:
        """Record instances that a sender stored here (A.5.3.7): one message for each study and action."""
        participants = (sender.participant(True, codes.SOURCE), self._us(False, codes.DESTINATION))
        for transfer in transfers:
            self._transfer(codes.INSTANCES_TRANSFERRED, transfer, participants, transfer.action)

    def sending_begins(self, destination: RemoteNode, transfer: Transfer) -> None:
        """Record that instances are about to be sent (A.5.3.3)."""
        self._transfer(codes.BEGIN_TRANSFERRING, transfer, self._outgoing(destination), Action.EXECUTE)

    def instances_sent(self, destination: RemoteNode, transfer: Transfer, failure: str = "") -> None:
        """Record instances that were delivered, or with ``failure`` those that were not (A.5.3.7)."""
        outcome = Outcome.MINOR_FAILURE if failure else Outcome.SUCCESS
        participants = self._outgoing(destination)
        self._transfer(codes.INSTANCES_TRANSFERRED, transfer, participants, Action.READ, outcome, failure)

    def query(
        self, requestor: RemoteNode, sop_class_uid: str, identifier: bytes, transfer_syntax_uid: str, failure: str = ""
    ) -> None:
        """Record a query (A.5.3.10). Its keys name patients: they are kept only where patient IDs are."""
        kept = identifier if self.include_patient_id else b""
        queried = ParticipantObject(
            sop_class_uid,
            codes.SOP_CLASS_UID,
            ObjectType.SYSTEM_OBJECT,
            ObjectRole.REPORT,
            query=kept,
            details={"TransferSyntax": transfer_syntax_uid},
        )
        participants = (requestor.participant(True, codes.SOURCE), self._us(False, codes.DESTINATION))
        outcome = Outcome.MINOR_FAILURE if failure else Outcome.SUCCESS
        self._record(codes.QUERY, Action.EXECUTE, outcome, participants, objects=(queried,), description=failure)

    def user_authenticated(self, node: RemoteNode, user: str, failure: str = "") -> None:
        """Record that a user's identity was confirmed, or with ``failure`` refused (A.5.3.12)."""
        if failure and not self._limiter.admit(f"user {node.address}"):
            return
        person = ActiveParticipant(user or node.ae_title or node.address, True, (), node.ae_title, user, node.address)
        outcome = Outcome.MINOR_FAILURE if failure else Outcome.SUCCESS
        participants = (person, self._us(False))
        self._record(
            codes.USER_AUTHENTICATION, Action.EXECUTE, outcome, participants, (codes.LOGIN,), description=failure
        )

    def node_refused(self, node: RemoteNode, reason: str) -> None:
        """Record that a remote node was not who it should be: AE title, address, certificate, or no DICOM at all."""
        self.security_alert(codes.NODE_AUTHENTICATION, node, reason)

    def restricted_use(self, node: RemoteNode, reason: str) -> None:
        """Record that a known node broke a bound or asked for what it has no right to."""
        self.security_alert(codes.USE_OF_RESTRICTED_FUNCTION, node, reason)

    def security_alert(
        self, kind: Code, node: RemoteNode | None, reason: str, outcome: Outcome = Outcome.MINOR_FAILURE
    ) -> None:
        """Record a security alert of a ``kind`` of CID 403 (A.5.3.11) about what ``node``, or we ourselves, did.

        Many alerts from one address are summed up: so many a minute are recorded, the rest is counted.
        """
        self._report_suppressed()
        if node is not None and not self._limiter.admit(node.address):
            return
        participants = (self._us(True),) + ((node.participant(False),) if node else ())
        subject = node.address if node else self._source.source_id
        alert = ParticipantObject(
            subject,
            codes.NODE_ID,
            ObjectType.SYSTEM_OBJECT,
            ObjectRole.SECURITY_RESOURCE,
            name=node.ae_title if node else self._ae_title,
            details={"Alert Description": reason},
        )
        self._record(codes.SECURITY_ALERT, Action.EXECUTE, outcome, participants, (kind,), (alert,), reason)

    def settings_reloaded(self, what: str, failure: str = "") -> None:
        """Record that the running node took over, or refused, changed settings."""
        outcome = Outcome.MINOR_FAILURE if failure else Outcome.SUCCESS
        description = f"{what}: {failure}" if failure else what
        self.security_alert(codes.SOFTWARE_CONFIGURATION, None, description, outcome)

    def health(self) -> dict[str, dict[str, int]]:
        """Messages written and lost since the start, by sink."""
        return {worker.name: {"written": worker.written, "lost": worker.lost} for worker in self._workers}

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is queued and let the sinks go; waits at most ``timeout_s`` seconds for all of them."""
        self._report_suppressed(now=True)
        deadline = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.close(max(0.1, deadline - time.monotonic()))

    def _application(self, kind: Code, failure: str = "") -> None:
        outcome = Outcome.SERIOUS_FAILURE if failure else Outcome.SUCCESS
        us = self._us(False, codes.APPLICATION)
        self._record(codes.APPLICATION_ACTIVITY, Action.EXECUTE, outcome, (us,), (kind,), description=failure)

    def _transfer(
        self,
        event: Code,
        transfer: Transfer,
        participants: tuple[ActiveParticipant, ...],
        action: Action,
        outcome: Outcome = Outcome.SUCCESS,
        description: str = "",
    ) -> None:
        study = ParticipantObject(
            transfer.study_instance_uid,
            codes.STUDY_INSTANCE_UID,
            ObjectType.SYSTEM_OBJECT,
            ObjectRole.REPORT,
            STUDY_NAME,
            instances=transfer.instances,
        )
        patient_id = transfer.patient_id if self.include_patient_id and transfer.patient_id else WITHHELD
        patient = ParticipantObject(patient_id, codes.PATIENT_NUMBER, ObjectType.PERSON, ObjectRole.PATIENT, WITHHELD)
        self._record(event, action, outcome, participants, objects=(study, patient), description=description)

    def _outgoing(self, destination: RemoteNode) -> tuple[ActiveParticipant, ...]:
        return self._us(True, codes.SOURCE), destination.participant(False, codes.DESTINATION)

    def _us(self, is_requestor: bool, *roles: Code) -> ActiveParticipant:
        return ActiveParticipant(self._process or "pacsgate", is_requestor, roles, self._ae_title)

    def _record(
        self,
        event: Code,
        action: Action,
        outcome: Outcome,
        participants: tuple[ActiveParticipant, ...],
        types: tuple[Code, ...] = (),
        objects: tuple[ParticipantObject, ...] = (),
        description: str = "",
    ) -> None:
        message = AuditMessage(event, action, outcome, self._source, participants, types, objects, description)
        for worker in self._workers:
            worker.put(message)

    def _recording_stopped(self, sink: str, count: int) -> AuditMessage:
        """Make the message by which ``sink`` says what it lost (A.5.3.11), and tell the other sinks, too."""
        message = AuditMessage(
            codes.SECURITY_ALERT,
            Action.EXECUTE,
            Outcome.SERIOUS_FAILURE,
            self._source,
            (self._us(True),),
            (codes.AUDIT_RECORDING_STOPPED,),
            description=f"{count} audit messages could not be recorded by sink {sink}",
        )
        for worker in self._workers:
            if worker.name != sink:
                worker.put(message)
        return message

    def _report_suppressed(self, *, now: bool = False) -> None:
        counts = self._limiter.suppressed(now=now)
        if counts:
            names = ", ".join(f"{key or 'others'}: {count}" for key, count in list(counts.items())[:20])
            reason = f"alerts left out because there were too many, by address: {names}"
            _log.warning("audit-alerts-suppressed", count=sum(counts.values()))
            self.security_alert(codes.NODE_AUTHENTICATION, None, reason)


_current = AuditTrail()


def trail() -> AuditTrail:
    """The audit trail of this process; it records nothing before `running` has set it up."""
    return _current


@contextmanager
def installed(recorder: AuditTrail) -> Iterator[AuditTrail]:
    """Make ``recorder`` the trail of this process until the end of the block, and close it then."""
    global _current
    former, _current = _current, recorder
    try:
        yield recorder
    finally:
        _current = former
        recorder.close()


@contextmanager
def running(settings: Settings, process: str) -> Iterator[AuditTrail]:
    """Set up this process' trail, record its start, and at the end its stop, however it ends."""
    with installed(open_trail(settings, process)) as recorder:
        recorder.application_started()
        failure = ""
        try:
            yield recorder
        except BaseException as error:
            failure = type(error).__name__
            raise
        finally:
            recorder.application_stopped(failure)


def open_trail(settings: Settings, process: str) -> AuditTrail:
    """Make the trail that the settings ask for.

    Raises
    ------
    ConfigurationError
        The certificate files of a TLS syslog receiver cannot be used.
    """
    options = settings.audit
    sinks: list[Sink] = []
    if options.file:
        sinks.append(FileSink(settings.audit_folder, process, options.file_maximum_bytes))
    if options.syslog_host:
        context: ssl.SSLContext | None = None
        if options.syslog_transport is SyslogTransport.TLS:
            context = client_context(settings.tls, options.syslog_ca)
        sinks.append(SyslogSink(options.syslog_transport, options.syslog_host, options.syslog_port_number, context))
    return AuditTrail(
        process,
        settings.dicom.ae_title,
        AuditSource(options.source_id or settings.dicom.ae_title, options.site_id),
        sinks,
        queue_length=options.queue_length,
        include_patient_id=options.include_patient_id,
        alerts_per_minute=options.alerts_per_minute,
    )
