"""Every option of the node: typed, with unit, default and the reason of the default.

One TOML file; environment variables override it (``PACSGATE_DICOM__PORT=11113``). ``pacsgate config show`` prints the
effective settings with these reasons.
"""

from node.settings.load import Settings, load_settings, refuse_unsafe
from node.settings.remote import Conditions, Destination, Pattern, Patterns, Peer, Rule, Urgency
from node.settings.sections import (
    GPU_WORKER,
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
from node.settings.vocabulary import (
    AETitle,
    ConfigurationError,
    Name,
    ObjectKind,
    Port,
    QueueName,
    Right,
    Role,
    SyslogTransport,
    TlsProfile,
)

__all__ = [
    "GPU_WORKER",
    "AETitle",
    "AssociationSettings",
    "AuditSettings",
    "CommitmentSettings",
    "CompletionSettings",
    "Conditions",
    "ConfigurationError",
    "DecodingSettings",
    "DeliverySettings",
    "Destination",
    "DicomSettings",
    "MonitoringSettings",
    "Name",
    "NodeSettings",
    "ObjectKind",
    "Pattern",
    "Patterns",
    "Peer",
    "Port",
    "QualitySettings",
    "QueueName",
    "Right",
    "Role",
    "Rule",
    "Settings",
    "StorageSettings",
    "SyslogTransport",
    "TlsProfile",
    "TlsSettings",
    "Urgency",
    "WebSettings",
    "WorkerSettings",
    "load_settings",
    "refuse_unsafe",
]
