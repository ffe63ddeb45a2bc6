"""Reading what the index needs to know of a received instance (PS3.3 C.7), without trusting a byte of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.dicom_json import dataset_from_json, header_to_json
from storage.errors import UnreadableInstance
from storage.part10 import open_part10

__all__ = ["InstanceHeader", "dataset_from_json", "read_header"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAX_UID_CHARACTERS = 64
_INTEGER_STRING_LIMIT = 2**31
"""PS3.5 6.2: an IS lies in -2^31 .. 2^31 - 1."""
_MAX_TEXT_CHARACTERS = 1024
_MAX_CHARACTERS = {
    "patient_name": 256,
    "patient_id": 192,
    "issuer_of_patient_id": 96,
    "patient_birth_date": 32,
    "study_date": 32,
    "accession_number": 192,
}
"""More than their VRs allow, few enough for PostgreSQL's index entries (2,704 bytes; the first four share one)."""

PATIENT_ATTRIBUTES = {
    "patient_id": "00100020",
    "issuer_of_patient_id": "00100021",
    "patient_name": "00100010",
    "patient_birth_date": "00100030",
    "patient_sex": "00100040",
}
STUDY_ATTRIBUTES = {
    "study_date": "00080020",
    "study_time": "00080030",
    "study_id": "00200010",
    "accession_number": "00080050",
    "study_description": "00081030",
    "referring_physician_name": "00080090",
}
SERIES_ATTRIBUTES = {
    "modality": "00080060",
    "series_description": "0008103E",
    "body_part_examined": "00180015",
    "manufacturer": "00080070",
    "station_name": "00081010",
}
"""Text attributes of the index by column, with their tags."""


@dataclass(frozen=True)
class InstanceHeader:
    """The header of an instance. Text is Unicode without NUL; an absent text is empty.

    ``patient``, ``study`` and ``series`` hold the text attributes by the names of the index's columns; a person name
    is written with all its component groups (``Alphabetic=Ideographic=Phonetic``), several values with backslashes.
    ``json`` is the DICOM JSON of the data set without bulk data. ``faults`` names each element that could not be
    read, with the reason but never the value.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    patient: dict[str, str]
    study: dict[str, str]
    series: dict[str, str]
    series_number: int | None
    instance_number: int | None
    number_of_frames: int | None
    json: dict[str, Any]
    faults: list[str]


def read_header(path: Path) -> InstanceHeader:
    """Read the header of the DICOM Part 10 file at ``path``; its pixel data are not touched.

    Raises
    ------
    UnreadableInstance
        Not DICOM, broken beyond use, unreasonably large, or without valid UIDs.
    OSError
        The file cannot be read.
    """
    with open_part10(path) as part10:
        document, faults = header_to_json(part10)
    reader = _Attributes(document, faults)
    return InstanceHeader(
        study_instance_uid=reader.uid("0020000D", "Study Instance UID"),
        series_instance_uid=reader.uid("0020000E", "Series Instance UID"),
        sop_instance_uid=reader.uid("00080018", "SOP Instance UID"),
        sop_class_uid=reader.uid("00080016", "SOP Class UID"),
        transfer_syntax_uid=_checked_uid(part10.transfer_syntax_uid, "Transfer Syntax UID"),
        patient={name: reader.text(name, key) for name, key in PATIENT_ATTRIBUTES.items()},
        study={name: reader.text(name, key) for name, key in STUDY_ATTRIBUTES.items()},
        series={name: reader.text(name, key) for name, key in SERIES_ATTRIBUTES.items()},
        series_number=reader.integer("00200011", "series_number"),
        instance_number=reader.integer("00200013", "instance_number"),
        number_of_frames=reader.integer("00280008", "number_of_frames"),
        json=document,
        faults=faults,
    )


class _Attributes:
    """The attributes of a DICOM JSON data set as the index's columns want them."""

    def __init__(self, document: dict[str, Any], faults: list[str]) -> None:
        self._document = document
        self._faults = faults

    def uid(self, key: str, name: str) -> str:
        values = self._values(key)
        if len(values) != 1:
            raise UnreadableInstance(f"it has {'several' if values else 'no'} {name}")
        return _checked_uid(str(values[0]), name)

    def text(self, name: str, key: str) -> str:
        text = "\\".join(_text(value) for value in self._values(key))
        limit = _MAX_CHARACTERS.get(name, _MAX_TEXT_CHARACTERS)
        if len(text) > limit:
            self._faults.append(f"{name}: far longer than its VR allows; the index holds {limit} characters of it")
        return text[:limit]

    def integer(self, key: str, name: str) -> int | None:
        value = next(iter(self._values(key)), None)
        if value is None:
            return None
        if not isinstance(value, int) or not -_INTEGER_STRING_LIMIT <= value < _INTEGER_STRING_LIMIT:
            self._faults.append(f"{name}: not an integer of 32 bits")
            return None
        return value

    def _values(self, key: str) -> list[Any]:
        values = self._document.get(key, {}).get("Value", [])
        return values if isinstance(values, list) else []


def _text(value: Any) -> str:
    if isinstance(value, dict):
        groups = [value.get("Alphabetic", ""), value.get("Ideographic", ""), value.get("Phonetic", "")]
        return "=".join(groups).rstrip("=")
    return "" if value is None else str(value)


def _checked_uid(uid: str, name: str) -> str:
    if len(uid) > _MAX_UID_CHARACTERS or not _UID.fullmatch(uid):
        raise UnreadableInstance(f"its {name} is not a valid UID (PS3.5 9.1): {uid[:80]!r}")
    return uid
