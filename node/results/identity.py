"""Who made a result object, from what, and under which UIDs: the same input always gives the same object.

UIDs are derived ones, 2.25.<UUID as integer> of PS3.5 B.2, with the name-based version 5 UUID of RFC 4122.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.uid import UID

from node.settings import ObjectKind

MANUFACTURER = "pacsgate"
MODEL_NAME = "pacsgate node"

_NAMESPACE = uuid.UUID("6b7d4b0e-2f7a-5c55-9d0a-8f6f3e1b7a41")
_SERIES_NUMBER_BLOCK = 9000
"""Scanners number their series from 1; a block far above them keeps ours last in every viewer's list."""
_SERIES_PER_REVISION = 10
_SERIES_OFFSET = {ObjectKind.QUALITY_REPORT: 1, ObjectKind.SEGMENTATION: 2, ObjectKind.LESION_REPORT: 3}


def derived_uid(*parts: str | int) -> UID:
    """The UID that always belongs to these parts. Parts are told apart: ("ab", "c") differs from ("a", "bc")."""
    name = "".join(f"{len(str(part))}:{part}" for part in parts)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


@dataclass(frozen=True)
class ResultIdentity:
    """Study, revision of its contents and pipeline version: what every UID of a result derives from.

    ``created_at`` must be time-zone aware and stay the same on a repeat; it is written in UTC.
    """

    study_instance_uid: str
    revision: int
    pipeline_version: str
    created_at: datetime

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            raise ValueError("created_at needs a time zone: result objects are stamped in UTC")
        if self.revision < 0:
            raise ValueError(f"revision {self.revision} is negative")

    def uid(self, *parts: str | int) -> UID:
        """A UID for ``parts`` of this study, revision and pipeline version."""
        return derived_uid(self.study_instance_uid, self.revision, self.pipeline_version, *parts)

    def sop_instance_uid(self, kind: ObjectKind) -> UID:
        """SOP Instance UID of the object of this kind."""
        return self.uid("sop-instance", kind)

    def series_instance_uid(self, kind: ObjectKind) -> UID:
        """Series Instance UID of the object of this kind: every object has a series of its own."""
        return self.uid("series", kind)

    def series_number(self, kind: ObjectKind) -> int:
        """Series Number of the object of this kind (one authored here); differs between kinds and revisions."""
        return _SERIES_NUMBER_BLOCK + _SERIES_PER_REVISION * self.revision + _SERIES_OFFSET[kind]

    @property
    def device_uid(self) -> UID:
        """Device Observer UID: this software in this version."""
        return derived_uid("device", MANUFACTURER, MODEL_NAME, self.pipeline_version)

    @property
    def created_utc(self) -> datetime:
        """``created_at`` in UTC."""
        return self.created_at.astimezone(UTC)
