"""Every option of the node: typed, with unit, default and the reason of the default.

One TOML file; environment variables override it (``PACSGATE_DICOM__PORT=11113``). ``pacsgate config show`` prints the
effective settings with these reasons.
"""

import ipaddress
import os
import re
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from storage.object_store import CLOUD_SCHEMES
from storage.policies import DuplicatePolicy

GPU_WORKER = "gpu-worker"
"""Slot of the workers that only detect."""

AETitle = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[ -\[\]-~]{1,16}$")]
"""Up to 16 printable ASCII characters without backslash (PS3.5 6.2, VR AE)."""
Port = Annotated[int, Field(ge=1, le=65535)]
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names the key and what to change."""


class Right(StrEnum):
    """What a peer may ask of the node, one right a service; `node.dimse.rights` tells which SOP classes each opens."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    MOVE = "move"
    GET = "get"
    WORKLIST = "worklist"
    PROCEDURE_STEP = "procedure-step"
    STORAGE_COMMITMENT = "storage-commitment"


class TlsProfile(StrEnum):
    """The TLS profiles of PS3.15 annex B that the node knows."""

    BCP195 = "bcp195"
    """B.12, which takes the place of the non-downgrading profile B.10: TLS 1.2 and 1.3, nothing older."""
    BCP195_EXTENDED = "bcp195-extended"
    """B.13, which takes the place of the extended profile B.11: in TLS 1.2 only 256-bit AES-GCM with ECDHE."""


class SyslogTransport(StrEnum):
    """How audit messages travel to a syslog receiver."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class ObjectKind(StrEnum):
    """Kinds of objects a destination can receive: results (this version makes the first three), and what came in."""

    QUALITY_REPORT = "quality-report"
    LESION_REPORT = "lesion-report"
    SEGMENTATION = "segmentation"
    LESION_MARKS = "lesion-marks"
    PRESENTATION_STATE = "presentation-state"
    SUMMARY_IMAGE = "summary-image"
    PARAMETRIC_MAP = "parametric-map"
    KEY_OBJECT_NOTE = "key-object-note"
    ORIGINAL = "original"


class Role(StrEnum):
    """What a host of the node does. One host does everything unless told otherwise."""

    RECEIVER = "receiver"
    WORKER = "worker"
    WEB = "web"


class QueueName(StrEnum):
    """The queues that workers take jobs from."""

    QUALITY = "quality"
    """Assemble, assess, gate, report; the verdicts on single series."""
    GPU = "gpu"
    """Detection."""
    DELIVER = "deliver"
    """Sending results; storage commitment."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DicomSettings(_Section):
    """The DICOM listener."""

    ae_title: AETitle = Field("PACSGATE", description="what scanners and the PACS call us")
    host: str = Field("127.0.0.1", description="loopback until you decide who may reach the node")
    port: Port = Field(11112, description="the registered DICOM port that needs no privileges")
    processes: int = Field(1, ge=1, le=16, description="one receiver fills a 1 Gbit/s line; more share the port")
    maximum_associations: int = Field(50, ge=1, le=1000, description="each open association costs two threads")
    require_called_ae_title: bool = Field(False, description="many scanners are set up with a wrong called AE title")
    network_timeout_s: float = Field(60, gt=0, description="a silent association is dropped so that it frees its slot")


class AssociationSettings(_Section):
    """Bounds of what one peer may take up."""

    maximum_associations_per_peer: int = Field(
        20, ge=1, le=1000, description="one scanner gone wrong must not take every slot; scanners open one to four"
    )
    maximum_bytes_per_association: int = Field(
        500_000_000_000,
        ge=1,
        description="more than a scanner makes in a day: ends a sender that repeats itself for ever",
    )
    host_name_lifetime_s: float = Field(
        60, ge=1, description="a scanner whose address changed gets in a minute later; the name server is left in peace"
    )


class TlsSettings(_Section):
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


class AuditSettings(_Section):
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


class WebSettings(_Section):
    """The HTTP listener."""

    host: str = Field("127.0.0.1", description="loopback until you decide who may reach the node")
    port: Port = Field(8080, description="the customary alternative HTTP port")


class StorageSettings(_Section):
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


class NodeSettings(_Section):
    """This host among those that share an index."""

    host_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = Field(
        "", description="empty: the machine's name; must differ between hosts that share an index"
    )
    roles: tuple[Role, ...] = Field(tuple(Role), min_length=1, description="one host does everything")
    heartbeat_interval_s: float = Field(5, ge=0.1, le=60, description="three of them fit into silent_after_s")
    silent_after_s: float = Field(
        15, ge=0.5, le=600, description="longer pauses happen to no healthy host; shorter ones to a busy database"
    )


class WorkerSettings(_Section):
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


class CompletionSettings(_Section):
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


class CommitmentSettings(_Section):
    """Storage commitment: reports to peers that ask us for it, requests to destinations that give it."""

    first_retry_s: float = Field(10, gt=0, description="a modality that restarts takes reports again within minutes")
    backoff_rate: float = Field(2, ge=1, le=100, description="each wait is this much longer than the one before")
    max_attempts: int = Field(12, ge=1, le=100, description="over three hours; by then modalities ask again themselves")
    report_wait_s: float = Field(5, ge=0, description="a PACS that reports on the same association does so at once")
    resend_after_s: float = Field(
        86_400, gt=0, description="a PACS may report after a night of archiving; without a report we deliver again"
    )


class DeliverySettings(_Section):
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


class DecodingSettings(_Section):
    """What decoding one compressed frame may cost; the decoders run in a process of their own."""

    memory_bytes: int = Field(
        1 << 30,
        ge=64 << 20,
        description="the largest detectors' JPEG 2000 frames need about 700 MB; a bomb wants more than any machine has",
    )
    deadline_s: float = Field(30, gt=0, le=600, description="the slowest real frame takes 5 s on a slow machine")


class MonitoringSettings(_Section):
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


class Peer(_Section):
    """Who may talk to us."""

    name: Name
    ae_title: AETitle
    host: str = Field(description="where the peer calls from: address, host name, or network such as 10.1.0.0/24")
    port: Port | None = Field(None, description="where the peer listens, if it does")
    rights: tuple[Right, ...] = Field((Right.ECHO, Right.STORE), description="echo, store")
    maximum_associations: int | None = Field(None, ge=1, description="empty: [association] has it for all")
    tls: bool = Field(False, description="the peer is let in by the TLS port only, and called over TLS")
    certificate_sha256: str = Field("", description="fingerprint of the one certificate that is the peer's")
    certificate_name: str = Field("", description="common name or subject alternative name it must bear")
    username: str = Field("", description="user identity (PS3.7 D.3.3.7) the peer has to give")
    passcode_hash: str = Field("", description="made by `pacsgate peer passcode`; the passcode itself is kept nowhere")

    @field_validator("host")
    @classmethod
    def _check_network(cls, host: str) -> str:
        if "/" in host:
            ipaddress.ip_network(host)
        return host

    @field_validator("certificate_sha256")
    @classmethod
    def _normalise_fingerprint(cls, fingerprint: str) -> str:
        digits = fingerprint.replace(":", "").lower()
        if digits and not re.fullmatch("[0-9a-f]{64}", digits):
            raise ValueError("a SHA-256 fingerprint has 64 hexadecimal digits")
        return digits

    @field_validator("passcode_hash")
    @classmethod
    def _check_hash(cls, passcode_hash: str) -> str:
        if passcode_hash and not passcode_hash.startswith("$argon2id$"):
            raise ValueError("not made by `pacsgate peer passcode`")
        return passcode_hash

    @model_validator(mode="after")
    def _check_identity(self) -> Self:
        if (self.certificate_sha256 or self.certificate_name) and not self.tls:
            raise ValueError("a certificate is asked for, but tls is not true")
        if self.passcode_hash and not self.username:
            raise ValueError("passcode_hash needs a username")
        return self


class Destination(_Section):
    """Where results go."""

    name: Name
    ae_title: AETitle
    host: str
    port: Port
    receives: tuple[ObjectKind, ...] = Field(
        tuple(kind for kind in ObjectKind if kind is not ObjectKind.ORIGINAL),
        description="which objects: every kind of result by default; original images only where you ask for them",
    )
    tls: bool = Field(False, description="connect by TLS, with the certificate of [tls], and verify the destination's")
    tls_server_name: str = Field("", description="the name its certificate bears; empty: its host")
    _credentials: TlsSettings | None = PrivateAttr(None)

    @property
    def credentials(self) -> TlsSettings | None:
        """The [tls] section where the destination is called by TLS, else None."""
        return self._credentials if self.tls else None

    def with_credentials(self, tls: TlsSettings) -> Self:
        """The same destination, able to connect by TLS."""
        copy = self.model_copy()
        copy._credentials = tls
        return copy

    request_commitment: bool = Field(False, description="many PACS have no Storage Commitment; ask yours to be sure")

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"


# Routing rules ---------------------------------------------------------------------------------------------------


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Pattern = Annotated[str, StringConstraints(strip_whitespace=True, max_length=64)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=64)]
"""Any of these; ``*`` stands for any text, ``?`` for one character; upper and lower case are the same."""
_Window = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]


class Urgency(StrEnum):
    """Priorities as rules name them."""

    STAT = "stat"
    HIGH = "high"
    ROUTINE = "routine"
    LOW = "low"


class Conditions(_Section):
    """What a rule asks of a study or series. Each condition is a list: one of its values is enough."""

    source_ae_title: Patterns | None = Field(None, description="AE title of the sender")
    modality: Patterns | None = Field(None, description="Modality (0008,0060)")
    body_part: Patterns | None = Field(None, description="Body Part Examined (0018,0015)")
    station_name: Patterns | None = Field(None, description="Station Name (0008,1010)")
    manufacturer: Patterns | None = Field(None, description="Manufacturer (0008,0070)")
    study_description: Patterns | None = Field(None, description="Study Description (0008,1030)")
    series_description: Patterns | None = Field(None, description="Series Description (0008,103E)")
    role: Patterns | None = Field(None, description="role of the series: t2w-axial, dwi, adc, ...")
    verdict: Annotated[
        tuple[Literal["diagnostic", "limited", "non-diagnostic", "not-assessed"], ...] | None,
        BeforeValidator(_as_list),
    ] = Field(None, description="quality verdict on the study")
    detection_state: Annotated[
        tuple[Literal["succeeded", "failed", "not-attempted"], ...] | None, BeforeValidator(_as_list)
    ] = Field(None, description="whether lesion detection ran")
    candidate_above_operating_point: bool | None = Field(None, description="whether a lesion candidate is reported")
    requested_priority: Annotated[tuple[Urgency, ...] | None, BeforeValidator(_as_list)] = Field(
        None, description="Requested Procedure Priority (0040,1003) or Reporting Priority (0040,1009)"
    )
    time_of_day: Annotated[tuple[_Window, ...] | None, BeforeValidator(_as_list)] = Field(
        None, description="local time at which the study or series was complete, such as 18:00-07:00"
    )
    weekday: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] | None, BeforeValidator(_as_list)
    ] = Field(None, description="local day on which the study or series was complete")


class Rule(_Section):
    """Where objects go. It holds where all conditions of ``when`` are met and none of ``unless``."""

    name: Name
    when: Conditions = Field(Conditions(), description="no condition: always")
    unless: Conditions = Field(Conditions(), description="each of these alone keeps the rule from holding")
    destinations: tuple[Name, ...] = Field(description="names of [[destinations]]; none: sent nowhere, on purpose")
    objects: tuple[ObjectKind, ...] | None = Field(None, description="which kinds; left out: what each receives")
    priority: Urgency | None = Field(None, description="left out: what the study itself asks for, else routine")
    hold_until_verdict: bool = Field(False, description="original images wait for the verdict on their study")
    last: bool = Field(False, description="where it holds, the rules after it are not looked at")


class Settings(BaseSettings):
    """The node's configuration."""

    model_config = SettingsConfigDict(env_prefix="PACSGATE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    dicom: DicomSettings = DicomSettings()
    association: AssociationSettings = AssociationSettings()
    tls: TlsSettings = TlsSettings()
    audit: AuditSettings = AuditSettings()
    web: WebSettings = WebSettings()
    storage: StorageSettings = StorageSettings()
    node: NodeSettings = NodeSettings()
    worker: WorkerSettings = WorkerSettings()
    completion: CompletionSettings = CompletionSettings()
    commitment: CommitmentSettings = CommitmentSettings()
    delivery: DeliverySettings = DeliverySettings()
    decoding: DecodingSettings = DecodingSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _hand_credentials_to_destinations(self) -> Self:
        """Give the destinations what they need to connect by TLS, so that nobody has to carry two things around."""
        able = tuple(d.with_credentials(self.tls) if d.tls else d for d in self.destinations)
        object.__setattr__(self, "destinations", able)
        return self

    @property
    def tls_host(self) -> str:
        """Where the TLS port is bound."""
        return self.tls.host or self.dicom.host

    @property
    def audit_folder(self) -> Path:
        """Where the audit trail is written, absolute."""
        return (self.audit.folder or self.data_dir / "audit").absolute()

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        return self.storage.data_dir.absolute()

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the index."""
        return self.storage.database_url or f"sqlite:///{self.data_dir / 'index.db'}"

    @property
    def engine_url(self) -> str:
        """SQLAlchemy URL of the job engine: a file of its own beside the index, or a schema of the same PostgreSQL."""
        return self.storage.database_url or f"sqlite:///{self.data_dir / 'engine.db'}"

    @property
    def host_name(self) -> str:
        """What this host is called in the index."""
        return self.node.host_name or socket.gethostname()

    def receivers_of(self, kind: str) -> tuple[str, ...]:
        """Names of the destinations that receive objects of this kind."""
        return tuple(d.name for d in self.destinations if kind in d.receives)

    def destination(self, name: str) -> Destination | None:
        """The destination of that name, None if it is no longer configured."""
        return next((d for d in self.destinations if d.name == name), None)


def load_settings(config_file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings from ``config_file`` (default: the environment's ``PACSGATE_CONFIG``), environment, overrides.

    Raises:
        ConfigurationError: a key is unknown or a value unusable; the message says which.
    """
    path = config_file or (Path(os.environ["PACSGATE_CONFIG"]) if os.environ.get("PACSGATE_CONFIG") else None)
    if path is not None and not path.is_file():
        raise ConfigurationError(f"configuration file {path} does not exist")

    class FileSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature is pydantic's)
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    try:
        settings = FileSettings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, path)) from error
    except ValueError as error:  # the TOML itself
        raise ConfigurationError(f"{path}: {error}") from error
    refuse_unsafe(settings)
    return settings


def _explain(error: ValidationError, path: Path | None) -> str:
    faults = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
    return f"{path or 'configuration'}: {faults}"


def _refuse_half_tls(settings: Settings) -> None:
    """TLS with a part missing would be no TLS, or none that authenticates."""
    tls = settings.tls
    files = {"certificate": tls.certificate, "key": tls.key, "ca": tls.ca}
    missing = [name for name, path in files.items() if path is None]
    if len(missing) in (1, 2):
        raise ConfigurationError(f"[tls] needs certificate, key and ca together; missing: {', '.join(missing)}")
    if missing:
        users = [f"peers.{p.name}" for p in settings.peers if p.tls]
        users += [f"destinations.{d.name}" for d in settings.destinations if d.tls]
        if users:
            raise ConfigurationError(f"{users[0]}: tls = true needs certificate, key and ca under [tls]")
    elif settings.tls_host not in _LOOPBACK and not settings.peers:
        raise ConfigurationError(
            f"tls.host = {settings.tls_host!r} lets other machines in: name them under [[peers]] first"
        )
    audit = settings.audit
    if audit.syslog_host and audit.syslog_transport is SyslogTransport.TLS and not (audit.syslog_ca or tls.ca):
        raise ConfigurationError("audit.syslog_ca: TLS to the syslog receiver needs the authority it is verified by")


def refuse_unsafe(settings: Settings) -> None:
    """Refuse what is well-formed and still a mistake: a node that others can reach must say who they are.

    Raises:
        ConfigurationError: the message names the keys.
    """
    if settings.completion.study_quiet_s < settings.completion.series_quiet_s:
        raise ConfigurationError(
            "completion.study_quiet_s is shorter than series_quiet_s: a study would close before its series"
        )
    if settings.dicom.host not in _LOOPBACK and not settings.peers:
        raise ConfigurationError(
            f"dicom.host = {settings.dicom.host!r} lets other machines in: name them under [[peers]] first"
        )
    _refuse_half_tls(settings)
    _refuse_unusable_hosts(settings)
    recovered = settings.storage.recovered_free_bytes
    if recovered is not None and recovered < settings.storage.minimum_free_bytes:
        raise ConfigurationError("storage.recovered_free_bytes is less than minimum_free_bytes: raise it above")
    for kind, names in (
        ("peers", [p.name for p in settings.peers]),
        ("destinations", [d.name for d in settings.destinations]),
        ("rules", [r.name for r in settings.rules]),
    ):
        if len(set(names)) != len(names):
            raise ConfigurationError(f"[[{kind}]]: two entries share a name")
    _refuse_unsafe_routes(settings)


def _refuse_unsafe_routes(settings: Settings) -> None:
    names = {destination.name for destination in settings.destinations}
    for rule in settings.rules:
        if unknown := sorted(set(rule.destinations) - names):
            raise ConfigurationError(f"[[rules]] {rule.name}: no [[destinations]] entry is named {', '.join(unknown)}")
    own_hosts = {"127.0.0.1", "::1", "localhost", settings.dicom.host}
    for destination in settings.destinations:
        if destination.port == settings.dicom.port and destination.host in own_hosts:
            raise ConfigurationError(
                f"[[destinations]] {destination.name}: {destination.host}:{destination.port} is this node itself"
            )


def _refuse_unusable_hosts(settings: Settings) -> None:
    """Refuse what cannot work across machines, or would lose a live host's work."""
    storage, node = settings.storage, settings.node
    scheme = storage.objects_url.partition("://")[0]
    if storage.objects_url and scheme not in CLOUD_SCHEMES:
        raise ConfigurationError(
            f"storage.objects_url = {storage.objects_url!r}: leave it empty for local files, or begin with "
            + " or ".join(f"{known}://" for known in CLOUD_SCHEMES)
        )
    if "@" in storage.objects_url:
        raise ConfigurationError("storage.objects_url holds no credentials; give them in the environment")
    if storage.objects_endpoint_url and scheme != "s3":
        raise ConfigurationError("storage.objects_endpoint_url is for objects_url = s3://... only")
    if node.silent_after_s < 3 * node.heartbeat_interval_s:
        raise ConfigurationError(
            "node.silent_after_s is shorter than three heartbeat_interval_s: one late heartbeat would take a live host "
            "for dead"
        )
    if node.roles == (Role.WORKER,) and settings.database_url.startswith("sqlite"):
        raise ConfigurationError(
            "node.roles = worker alone needs an index that other hosts reach: set storage.database_url to PostgreSQL"
        )
