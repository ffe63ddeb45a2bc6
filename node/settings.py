"""Every option of the node: typed, with unit, default and the reason of the default.

One TOML file; environment variables override it (``PACSGATE_DICOM__PORT=11113``). ``pacsgate config show`` prints the
effective settings with these reasons.
"""

import os
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from storage.object_store import CLOUD_SCHEMES

GPU_WORKER = "gpu-worker"
"""Slot of the workers that only detect."""

AETitle = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[ -\[\]-~]{1,16}$")]
"""Up to 16 printable ASCII characters without backslash (PS3.5 6.2, VR AE)."""
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names the key and what to change."""


class Right(StrEnum):
    """What a peer may ask of the node. This version serves echo and store; the others are granted ahead."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    MOVE = "move"
    GET = "get"
    WORKLIST = "worklist"


class ObjectKind(StrEnum):
    """Kinds of objects a destination can receive. This version makes the first three."""

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
    """Assemble, assess, gate, report."""
    GPU = "gpu"
    """Detection."""
    DELIVER = "deliver"
    """Sending results."""


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
    """When a series or study counts as complete. DICOM has no end-of-study message; silence has to do."""

    series_quiet_s: float = Field(5, gt=0, description="seconds without a new instance until a series is closed")
    study_quiet_s: float = Field(
        10, gt=0, description="seconds of silence once every association that sent it is released"
    )
    open_association_quiet_s: float = Field(
        60, gt=0, description="seconds of silence when an association stays open: some scanners hold one all day"
    )


class DeliverySettings(_Section):
    """How results reach their destinations."""

    first_retry_s: float = Field(5, gt=0, description="a PACS that restarts is back within seconds")
    backoff_rate: float = Field(2, ge=1, le=100, description="each wait is this much longer than the one before")
    max_attempts: int = Field(30, ge=1, le=100, description="about twenty hours in all; then `studies replay`")


class Peer(_Section):
    """Who may talk to us."""

    name: Name
    ae_title: AETitle
    host: str = Field(description="address the peer calls from")
    port: Port | None = Field(None, description="where the peer listens, if it does")
    rights: tuple[Right, ...] = Field((Right.ECHO, Right.STORE), description="echo, store")


class Destination(_Section):
    """Where results go."""

    name: Name
    ae_title: AETitle
    host: str
    port: Port
    receives: tuple[ObjectKind, ...] = Field(tuple(ObjectKind), description="which objects: all kinds by default")

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"


class Settings(BaseSettings):
    """The node's configuration."""

    model_config = SettingsConfigDict(env_prefix="PACSGATE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    dicom: DicomSettings = DicomSettings()
    web: WebSettings = WebSettings()
    storage: StorageSettings = StorageSettings()
    node: NodeSettings = NodeSettings()
    worker: WorkerSettings = WorkerSettings()
    completion: CompletionSettings = CompletionSettings()
    delivery: DeliverySettings = DeliverySettings()
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()

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
    _refuse_unsafe(settings)
    return settings


def _explain(error: ValidationError, path: Path | None) -> str:
    faults = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
    return f"{path or 'configuration'}: {faults}"


def _refuse_unsafe(settings: Settings) -> None:
    """Refuse what is well-formed and still a mistake: a node that others can reach must say who they are."""
    if settings.completion.study_quiet_s < settings.completion.series_quiet_s:
        raise ConfigurationError(
            "completion.study_quiet_s is shorter than series_quiet_s: a study would close before its series"
        )
    if settings.dicom.host not in {"127.0.0.1", "::1", "localhost"} and not settings.peers:
        raise ConfigurationError(
            f"dicom.host = {settings.dicom.host!r} lets other machines in: name them under [[peers]] first"
        )
    _refuse_unusable_hosts(settings)
    for kind, names in (
        ("peers", [p.name for p in settings.peers]),
        ("destinations", [d.name for d in settings.destinations]),
    ):
        if len(set(names)) != len(names):
            raise ConfigurationError(f"[[{kind}]]: two entries share a name")


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
