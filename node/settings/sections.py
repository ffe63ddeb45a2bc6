"""The sections of the configuration, each option with unit, default and the reason of the default."""

from pathlib import Path
from typing import Annotated

from pydantic import (
    Field,
    StringConstraints,
)

from node.settings.vocabulary import AETitle, Port, QueueName, Role, Section, SyslogTransport, TlsProfile
from storage.policies import DuplicatePolicy

GPU_WORKER = "gpu-worker"
"""Slot of the workers that only detect."""


class DicomSettings(Section):
    """The DICOM listener."""

    ae_title: AETitle = Field("PACSGATE", description="what scanners and the PACS call us")
    host: str = Field("127.0.0.1", description="loopback until you decide who may reach the node")
    port: Port = Field(11112, description="the registered DICOM port that needs no privileges")
    processes: int = Field(1, ge=1, le=16, description="one receiver fills a 1 Gbit/s line; more share the port")
    maximum_associations: int = Field(50, ge=1, le=1000, description="each open association costs a thread")
    require_called_ae_title: bool = Field(False, description="many scanners are set up with a wrong called AE title")
    network_timeout_s: float = Field(
        60, gt=0, description="silence in the middle of a message or PDU: the sender is lost, and its slot is freed"
    )


class AssociationSettings(Section):
    """Bounds of what one peer may take up."""

    maximum_associations_per_peer: int = Field(
        20, ge=1, le=1000, description="one scanner gone wrong must not take every slot; scanners open one to four"
    )
    maximum_bytes_per_association: int = Field(
        500_000_000_000,
        ge=1,
        description="more than a scanner makes in a day: ends a sender that repeats itself for ever",
    )
    idle_timeout_s: float = Field(
        3600,
        gt=0,
        description="scanners hold associations open all day, at no cost; after an hour they call again",
    )
    host_name_lifetime_s: float = Field(
        60, ge=1, description="a scanner whose address changed gets in a minute later; the name server is left in peace"
    )


class TlsSettings(Section):
    """TLS with mutual authentication (PS3.15 B.12, B.13): a second port, and connections to destinations."""

    certificate: Path | None = Field(
        None, description="PEM file: the node's certificate, then its intermediates; empty: no TLS port"
    )
    key: Path | None = Field(None, description="PEM file: its private key, without passphrase, readable by us alone")
    ca: Path | None = Field(None, description="PEM file: the authorities whose certificates we trust, no others")
    crl: Path | None = Field(
        None, description="PEM file: their revocation lists; once given, a list that has expired lets nobody in"
    )
    profile: TlsProfile = Field(TlsProfile.BCP195, description="what current modalities speak; never below TLS 1.2")
    host: str = Field("", description="empty: the address of [dicom] host")
    port: Port = Field(2762, description="the registered port of DICOM over TLS")
    require_client_certificate: bool = Field(True, description="without it anybody may claim an AE title")
    handshake_timeout_s: float = Field(15, gt=0, description="a peer that does not finish frees its slot")
    expiry_warning_days: int = Field(30, ge=1, description="time enough to get a certificate from a hospital's IT")

    @property
    def enabled(self) -> bool:
        """Whether there is a TLS port."""
        return self.certificate is not None


class AuditSettings(Section):
    """The audit trail in DICOM's audit message format (PS3.15 A.5)."""

    file: bool = Field(True, description="a trail nobody asked for is better than one nobody has")
    folder: Path | None = Field(None, description="empty: data_dir/audit")
    file_maximum_bytes: int = Field(50_000_000, ge=100_000, description="a size that editors open; then a new file")
    syslog_host: str = Field("", description="empty: no syslog; else the site's audit record repository")
    syslog_port: Port | None = Field(None, description="empty: 514, or 6514 with TLS, as registered")
    syslog_transport: SyslogTransport = Field(
        SyslogTransport.TLS, description="UDP loses messages without a sign, and only TLS keeps them from being read"
    )
    syslog_ca: Path | None = Field(None, description="PEM file: who signed the receiver's certificate; empty: [tls] ca")
    queue_length: int = Field(
        10_000, ge=100, le=1_000_000, description="about 20 MB while a receiver is away; then messages are counted out"
    )
    include_patient_id: bool = Field(
        False, description="no identity leaves the index unasked; study UIDs lead those who may know to the patient"
    )
    source_id: str = Field("", description="empty: the node's AE title")
    site_id: str = Field("", description="the enterprise site, if the repository wants it")
    transfer_interval_s: float = Field(
        600, ge=1, description="associations that stay open all day are reported this often"
    )
    alerts_per_minute: int = Field(
        20, ge=1, description="from one address; the rest is counted: a port scanner must not fill the disk"
    )

    @property
    def syslog_port_number(self) -> int:
        """The port, given or registered."""
        return self.syslog_port or (6514 if self.syslog_transport is SyslogTransport.TLS else 514)


class WebSettings(Section):
    """The HTTP listener."""

    host: str = Field("127.0.0.1", description="loopback until you decide who may reach the node")
    port: Port = Field(8080, description="the customary alternative HTTP port")


class StorageSettings(Section):
    """Where everything stays."""

    data_dir: Path = Field(Path("pacsgate-data"), description="index, objects and spool live together on one volume")
    database_url: str = Field("", description="empty: SQLite under data_dir; postgresql+psycopg://... for PostgreSQL")
    objects_url: str = Field(
        "", description="empty: files under data_dir/objects; s3://bucket/prefix, gs://, az:// where hosts share them"
    )
    objects_endpoint_url: str = Field("", description="empty: Amazon's own; address of another S3 server")
    cache_max_bytes: int = Field(
        20_000_000_000,
        ge=100_000_000,
        description="local copies of objects from objects_url: some forty prostate MRI, so that no step fetches twice",
    )
    minimum_free_bytes: int = Field(
        1_000_000_000,
        ge=0,
        description="below this instances are refused (0xA700) so that the index never hits a full disk",
    )
    recovered_free_bytes: int | None = Field(
        None,
        ge=0,
        description="with so much free, receiving goes on; empty: half as much again as the minimum, against flapping",
    )
    duplicates: DuplicatePolicy = Field(
        DuplicatePolicy.REPLACE_IF_CHANGED,
        description="keep-first, replace-if-changed or replace-always: an image sent again after a correction counts",
    )


class NodeSettings(Section):
    """This host among those that share an index."""

    host_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = Field(
        "", description="empty: the machine's name; must differ between hosts that share an index"
    )
    roles: tuple[Role, ...] = Field(tuple(Role), min_length=1, description="one host does everything")
    heartbeat_interval_s: float = Field(5, ge=0.1, le=60, description="three of them fit into silent_after_s")
    silent_after_s: float = Field(
        15, ge=0.5, le=600, description="longer pauses happen to no healthy host; shorter ones to a busy database"
    )


class WorkerSettings(Section):
    """The worker processes of this host."""

    queues: tuple[QueueName, ...] = Field(tuple(QueueName), min_length=1, description="one worker does everything")
    processes: int = Field(1, ge=1, le=64, description="each takes one study at a time, a core and 0.4 GB")
    gpu_processes: int = Field(
        0, ge=0, le=16, description="0: the processes above detect, too; else one per GPU takes detection off them"
    )

    def queues_of(self, slot: str) -> tuple[QueueName, ...]:
        """The queues of the worker process in ``slot``: a GPU worker only detects, and then the others do not."""
        if slot.startswith(GPU_WORKER):
            return (QueueName.GPU,)
        return tuple(q for q in self.queues if q is not QueueName.GPU or not self.gpu_processes)

    def slots(self) -> tuple[str, ...]:
        """The slots of this host's worker processes."""
        general = tuple(f"worker-{n}" for n in range(self.processes)) if self.queues_of("worker") else ()
        gpu = self.gpu_processes if QueueName.GPU in self.queues else 0
        return general + tuple(f"{GPU_WORKER}-{n}" for n in range(gpu))


class CompletionSettings(Section):
    """When a series or study counts as complete: by evidence of its sender, else by silence (docs/completion.md)."""

    series_quiet_s: float = Field(5, gt=0, description="seconds without a new instance until a series is closed")
    study_quiet_s: float = Field(
        10, gt=0, description="seconds of silence once every association that sent it is released"
    )
    open_association_quiet_s: float = Field(
        60, gt=0, description="seconds of silence when an association stays open: some scanners hold one all day"
    )
    evidence_guard_s: float = Field(
        1, ge=0, description="seconds of silence even with evidence: instances overtake each other on the way"
    )
    incomplete_wait_s: float = Field(
        60, gt=0, description="seconds of silence while instances are known to be missing: a sender retries within them"
    )
    procedure_step_wait_s: float = Field(
        1800, gt=0, description="seconds of silence of a study whose MPPS is in progress: the patient is on the table"
    )


class CommitmentSettings(Section):
    """Storage commitment: reports to peers that ask us for it, requests to destinations that give it."""

    first_retry_s: float = Field(10, gt=0, description="a modality that restarts takes reports again within minutes")
    backoff_rate: float = Field(2, ge=1, le=100, description="each wait is this much longer than the one before")
    max_attempts: int = Field(12, ge=1, le=100, description="over three hours; by then modalities ask again themselves")
    report_wait_s: float = Field(5, ge=0, description="a PACS that reports on the same association does so at once")
    resend_after_s: float = Field(
        86_400, gt=0, description="a PACS may report after a night of archiving; without a report we deliver again"
    )


class DeliverySettings(Section):
    """How results reach their destinations."""

    first_retry_s: float = Field(5, gt=0, description="a PACS that restarts is back within seconds")
    backoff_rate: float = Field(2, ge=1, le=100, description="each wait is this much longer than the one before")
    max_attempts: int = Field(30, ge=1, le=100, description="about twenty hours in all; then `deliveries retry`")
    jitter: float = Field(
        0.2, ge=0, le=1, description="spread of each wait, so that many nodes do not fall upon a PACS that is back"
    )
    timeout_s: float = Field(60, gt=0, description="for each answer: a PACS that stores a large object answers late")
    batch_objects: int = Field(
        100, ge=1, le=2000, description="sent over one association; what is more urgent waits for one batch at most"
    )
    maximum_rounds: int = Field(
        5, ge=1, le=1000, description="an instance that returns changed this often is in a loop between routers"
    )
    maximum_decompressed_bytes: int = Field(
        2_000_000_000, gt=0, description="a larger image is not decompressed for a PACS that takes no compression"
    )
    decompression_timeout_s: float = Field(
        120, gt=0, description="a decoder that takes longer for one object hangs; it is ended and the object refused"
    )


class QualitySettings(Section):
    """How image quality is judged."""

    calibration: Path | None = Field(
        None,
        description="record of `pacsgate train calibrate`; empty: the cut points as shipped, without probabilities",
    )


class DecodingSettings(Section):
    """What decoding one compressed frame may cost; the decoders run in a process of their own."""

    memory_bytes: int = Field(
        1 << 30,
        ge=64 << 20,
        description="the largest detectors' JPEG 2000 frames need about 700 MB; a bomb wants more than any machine has",
    )
    deadline_s: float = Field(30, gt=0, le=600, description="the slowest real frame takes 5 s on a slow machine")


class MonitoringSettings(Section):
    """What health checks and metrics look at."""

    queue_age_warning_s: float = Field(
        600,
        gt=0,
        description="a study takes seconds: one that has waited this long means that the workers do not keep up",
    )
    delivery_age_warning_s: float = Field(
        3600, gt=0, description="a PACS may be restarted; after an hour somebody should look at it"
    )
    metrics_port: Port | None = Field(
        None, description="off: the web process serves /metrics; a port for hosts that run no web process"
    )
    metrics_host: str = Field("127.0.0.1", description="loopback until you decide who may reach the metrics port")
