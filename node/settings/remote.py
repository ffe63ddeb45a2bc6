"""The others: peers that may talk to us, destinations that results go to, rules that say which goes where."""

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from node.settings.sections import TlsSettings
from node.settings.vocabulary import AETitle, Name, ObjectKind, Port, Right, Section


class Peer(Section):
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


class Destination(Section):
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


class Conditions(Section):
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


class Rule(Section):
    """Where objects go. It holds where all conditions of ``when`` are met and none of ``unless``."""

    name: Name
    when: Conditions = Field(Conditions(), description="no condition: always")
    unless: Conditions = Field(Conditions(), description="each of these alone keeps the rule from holding")
    destinations: tuple[Name, ...] = Field(description="names of [[destinations]]; none: sent nowhere, on purpose")
    objects: tuple[ObjectKind, ...] | None = Field(None, description="which kinds; left out: what each receives")
    priority: Urgency | None = Field(None, description="left out: what the study itself asks for, else routine")
    hold_until_verdict: bool = Field(False, description="original images wait for the verdict on their study")
    last: bool = Field(False, description="where it holds, the rules after it are not looked at")
