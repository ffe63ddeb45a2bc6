"""The words of the configuration: names, ports, rights, roles, kinds of objects; and the error of a bad one."""

from enum import StrEnum
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

AETitle = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[ -\[\]-~]{1,16}$")]
"""Up to 16 printable ASCII characters without backslash (PS3.5 6.2, VR AE)."""


Port = Annotated[int, Field(ge=1, le=65535)]


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


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
