"""Reading the configuration: one TOML file, the environment over it; and refusing what is well-formed and unsafe."""

import os
import socket
from pathlib import Path
from typing import Any, Self

from pydantic import (
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from node.settings.remote import Destination, Peer, Rule
from node.settings.sections import (
    AssociationSettings,
    AuditSettings,
    CommitmentSettings,
    CompletionSettings,
    DecodingSettings,
    DeliverySettings,
    DicomSettings,
    MonitoringSettings,
    NodeSettings,
    QualitySettings,
    StorageSettings,
    TlsSettings,
    WebSettings,
    WorkerSettings,
)
from node.settings.vocabulary import ConfigurationError, Role, SyslogTransport
from storage.object_store import CLOUD_SCHEMES

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


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
    quality: QualitySettings = QualitySettings()
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
