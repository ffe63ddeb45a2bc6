"""Every option of the node: typed, with unit, default and the reason of the default.

One TOML file; environment variables override it (``PACSGATE_DICOM__PORT=11113``). ``pacsgate config show`` prints the
effective settings with these reasons.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

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
    objects_url: str = Field("", description="empty: files under data_dir/objects")
    minimum_free_bytes: int = Field(
        1_000_000_000,
        ge=0,
        description="below this instances are refused (0xA700) so that the index never hits a full disk",
    )


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
    request_commitment: bool = Field(False, description="many PACS have no Storage Commitment; ask yours to be sure")

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
    completion: CompletionSettings = CompletionSettings()
    commitment: CommitmentSettings = CommitmentSettings()
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
    if settings.storage.objects_url:
        raise ConfigurationError("storage.objects_url: only local files are supported in this version; leave it empty")
    for kind, names in (
        ("peers", [p.name for p in settings.peers]),
        ("destinations", [d.name for d in settings.destinations]),
    ):
        if len(set(names)) != len(names):
            raise ConfigurationError(f"[[{kind}]]: two entries share a name")
