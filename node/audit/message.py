"""The audit message of DICOM (PS3.15 A.5.1) and its XML.

The parts and their order are those of the standard's schema: one event, one or more active participants, one audit
source, any number of participant objects. Text that came from a peer is made fit for XML 1.0 and for a single line.
"""

import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Final
from xml.etree import ElementTree

from node.audit.codes import AUDIT_SOURCE_TYPE, Action, Code, ObjectRole, ObjectType, Outcome

MAXIMUM_TEXT_LENGTH: Final = 1024
"""Nothing a peer sends needs more; a message stays far below the 32 KiB a syslog receiver has to take (A.6)."""

_MACHINE_NAME: Final = "1"
_IP_ADDRESS: Final = "2"
_UNFIT = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow, and line breaks: a message is one line of the file."""


@dataclass(frozen=True)
class ActiveParticipant:
    """Who took part: a process of ours, a peer, a person. ``address`` is its IP address or host name."""

    user_id: str
    is_requestor: bool
    roles: tuple[Code, ...] = ()
    ae_title: str = ""
    user_name: str = ""
    address: str = ""

    def to_element(self) -> ElementTree.Element:
        """Return the ``ActiveParticipant`` element."""
        attributes = {"UserID": self.user_id, "UserIsRequestor": "true" if self.is_requestor else "false"}
        if self.ae_title:
            attributes["AlternativeUserID"] = f"AETITLES={self.ae_title}"
        if self.user_name:
            attributes["UserName"] = self.user_name
        if self.address:
            kind = _IP_ADDRESS if _is_ip_address(self.address) else _MACHINE_NAME
            attributes |= {"NetworkAccessPointID": self.address, "NetworkAccessPointTypeCode": kind}
        element = _element("ActiveParticipant", attributes)
        element.extend(_coded("RoleIDCode", role) for role in self.roles)
        return element


@dataclass(frozen=True)
class ParticipantObject:
    """What was acted upon. ``query`` replaces the name; ``instances`` counts them by SOP Class UID."""

    object_id: str
    id_type: Code
    type: ObjectType
    role: ObjectRole | None = None
    name: str = ""
    query: bytes | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    instances: Mapping[str, int] = field(default_factory=dict)

    def to_element(self) -> ElementTree.Element:
        """Return the ``ParticipantObjectIdentification`` element."""
        attributes = {"ParticipantObjectID": self.object_id, "ParticipantObjectTypeCode": self.type}
        if self.role is not None:
            attributes["ParticipantObjectTypeCodeRole"] = self.role
        element = _element("ParticipantObjectIdentification", attributes)
        element.append(_coded("ParticipantObjectIDTypeCode", self.id_type))
        if self.query is not None:
            element.append(_element("ParticipantObjectQuery", text=b64encode(self.query).decode()))
        else:
            element.append(_element("ParticipantObjectName", text=self.name))
        for kind, value in self.details.items():
            encoded = b64encode(fit(value).encode()).decode()
            element.append(_element("ParticipantObjectDetail", {"type": kind, "value": encoded}))
        if self.instances:
            description = ElementTree.SubElement(element, "ParticipantObjectDescription")
            for uid, count in self.instances.items():
                description.append(_element("SOPClass", {"UID": uid, "NumberOfInstances": str(count)}))
        return element


@dataclass(frozen=True)
class AuditSource:
    """Who reports: the node, and the site it belongs to."""

    source_id: str
    site_id: str = ""


@dataclass(frozen=True)
class AuditMessage:
    """One event of the audit trail. ``at`` is UTC."""

    event: Code
    action: Action
    outcome: Outcome
    source: AuditSource
    participants: tuple[ActiveParticipant, ...]
    types: tuple[Code, ...] = ()
    objects: tuple[ParticipantObject, ...] = ()
    description: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def xml(self) -> bytes:
        """The message as one line of XML in UTF-8, without XML declaration and line end."""
        root = ElementTree.Element("AuditMessage")
        root.append(self._event())
        root.extend(participant.to_element() for participant in self.participants)
        attributes = {"AuditSourceID": self.source.source_id}
        if self.source.site_id:
            attributes["AuditEnterpriseSiteID"] = self.source.site_id
        source = _element("AuditSourceIdentification", attributes)
        source.append(_element("AuditSourceTypeCode", {"csd-code": AUDIT_SOURCE_TYPE}))
        root.append(source)
        root.extend(item.to_element() for item in self.objects)
        return ElementTree.tostring(root, encoding="utf-8")

    def _event(self) -> ElementTree.Element:
        element = _element(
            "EventIdentification",
            {
                "EventActionCode": self.action,
                "EventDateTime": self.at.isoformat(),
                "EventOutcomeIndicator": self.outcome,
            },
        )
        element.append(_coded("EventID", self.event))
        element.extend(_coded("EventTypeCode", kind) for kind in self.types)
        if self.description:
            element.append(_element("EventOutcomeDescription", text=self.description))
        return element


def fit(text: str) -> str:
    """Return ``text`` as XML allows it, on one line, at most `MAXIMUM_TEXT_LENGTH` characters."""
    return _UNFIT.sub("\ufffd", text[:MAXIMUM_TEXT_LENGTH])


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _element(name: str, attributes: Mapping[str, str] | None = None, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.Element(name, {key: fit(value) for key, value in (attributes or {}).items()})
    if text is not None:
        element.text = text if name == "ParticipantObjectQuery" else fit(text)
    return element


def _coded(name: str, code: Code) -> ElementTree.Element:
    return _element(name, {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})
