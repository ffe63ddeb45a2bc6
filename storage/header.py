"""Reading what the index needs to know of a received instance (PS3.3 C.7), without trusting a byte of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, dictionary_VR

from storage.dicom_json import dataset_from_json, header_to_json
from storage.errors import UnreadableInstance
from storage.header_scan import plain_integer, plain_text, scan
from storage.part10 import open_part10

__all__ = ["IndexAttributes", "InstanceHeader", "dataset_from_json", "read_header", "read_index_attributes"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_CHARACTERS = frozenset("0123456789.")
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


UID_ATTRIBUTES = {
    "study_instance_uid": "0020000D",
    "series_instance_uid": "0020000E",
    "sop_instance_uid": "00080018",
    "sop_class_uid": "00080016",
}
INTEGER_ATTRIBUTES = {
    "series_number": "00200011",
    "instance_number": "00200013",
    "number_of_frames": "00280008",
}
_TEXT_ATTRIBUTES = {**PATIENT_ATTRIBUTES, **STUDY_ATTRIBUTES, **SERIES_ATTRIBUTES}
_SPECIFIC_CHARACTER_SET = "00080005"
_WANTED = {
    int(key, 16): dictionary_VR(int(key, 16)).encode()
    for key in (
        _SPECIFIC_CHARACTER_SET,
        *UID_ATTRIBUTES.values(),
        *INTEGER_ATTRIBUTES.values(),
        *_TEXT_ATTRIBUTES.values(),
    )
}


@dataclass(frozen=True)
class IndexAttributes:
    """What the index's columns hold of an instance. Text is Unicode without NUL; an absent text is empty.

    ``patient``, ``study`` and ``series`` hold the text attributes by the names of the index's columns; a person name
    is written with all its component groups (``Alphabetic=Ideographic=Phonetic``), several values with backslashes.
    ``faults`` names each element that could not be read, with the reason but never the value.
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
    faults: list[str]


@dataclass(frozen=True)
class InstanceHeader(IndexAttributes):
    """The whole header of an instance: ``json`` is the DICOM JSON of the data set without bulk data."""

    json: dict[str, Any]


def read_index_attributes(path: Path) -> IndexAttributes:
    """Read the index's attributes of the Part 10 file at ``path``: quickly where its header is plain.

    Where it is not (other encodings, text beyond ASCII, anything unsound) this is `read_header`, with all it raises.
    """
    return _quick_attributes(path) or read_header(path)


def _quick_attributes(path: Path) -> IndexAttributes | None:
    """The attributes if all of them are plain, None if not."""
    scanned = scan(path, _WANTED)
    if scanned is None:
        return None
    syntax, values = scanned
    if not all(map(_keeps_ascii, values.get(int(_SPECIFIC_CHARACTER_SET, 16), b"").split(b"\\"))):
        return None
    texts: dict[str, str] = {}
    for name, key in (*UID_ATTRIBUTES.items(), *_TEXT_ATTRIBUTES.items()):
        text = plain_text(values.get(int(key, 16), b""))
        if text is None or len(text) > _MAX_CHARACTERS.get(name, _MAX_TEXT_CHARACTERS):
            return None
        texts[name] = text
    if not all(map(_is_uid, (syntax, *(texts[name] for name in UID_ATTRIBUTES)))):
        return None
    numbers: dict[str, int | None] = {}
    for name, key in INTEGER_ATTRIBUTES.items():
        value = values.get(int(key, 16), b"").rstrip(b"\0 ")
        number = plain_integer(value)
        if value and (number is None or not -_INTEGER_STRING_LIMIT <= number < _INTEGER_STRING_LIMIT):
            return None
        numbers[name] = number
    return IndexAttributes(
        study_instance_uid=texts["study_instance_uid"],
        series_instance_uid=texts["series_instance_uid"],
        sop_instance_uid=texts["sop_instance_uid"],
        sop_class_uid=texts["sop_class_uid"],
        transfer_syntax_uid=syntax,
        patient={name: texts[name] for name in PATIENT_ATTRIBUTES},
        study={name: texts[name] for name in STUDY_ATTRIBUTES},
        series={name: texts[name] for name in SERIES_ATTRIBUTES},
        series_number=numbers["series_number"],
        instance_number=numbers["instance_number"],
        number_of_frames=numbers["number_of_frames"],
        faults=[],
    )


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
        study_instance_uid=reader.uid("study_instance_uid"),
        series_instance_uid=reader.uid("series_instance_uid"),
        sop_instance_uid=reader.uid("sop_instance_uid"),
        sop_class_uid=reader.uid("sop_class_uid"),
        transfer_syntax_uid=_checked_uid(part10.transfer_syntax_uid, "Transfer Syntax UID"),
        patient={name: reader.text(name, key) for name, key in PATIENT_ATTRIBUTES.items()},
        study={name: reader.text(name, key) for name, key in STUDY_ATTRIBUTES.items()},
        series={name: reader.text(name, key) for name, key in SERIES_ATTRIBUTES.items()},
        series_number=reader.integer("series_number"),
        instance_number=reader.integer("instance_number"),
        number_of_frames=reader.integer("number_of_frames"),
        json=document,
        faults=faults,
    )


class _Attributes:
    """The attributes of a DICOM JSON data set as the index's columns want them."""

    def __init__(self, document: dict[str, Any], faults: list[str]) -> None:
        self._document = document
        self._faults = faults

    def uid(self, column: str) -> str:
        key = UID_ATTRIBUTES[column]
        values, name = self._values(key), dictionary_description(int(key, 16))
        if len(values) != 1:
            raise UnreadableInstance(f"it has {'several' if values else 'no'} {name}")
        return _checked_uid(str(values[0]), name)

    def text(self, name: str, key: str) -> str:
        text = "\\".join(_text(value) for value in self._values(key))
        limit = _MAX_CHARACTERS.get(name, _MAX_TEXT_CHARACTERS)
        if len(text) > limit:
            self._faults.append(f"{name}: far longer than its VR allows; the index holds {limit} characters of it")
        return text[:limit]

    def integer(self, name: str) -> int | None:
        value = next(iter(self._values(INTEGER_ATTRIBUTES[name])), None)
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


def _keeps_ascii(character_set: bytes) -> bool:
    """Whether it is one of DICOM's (PS3.3 C.12.1.1.2), in all of which ASCII means ASCII.

    pydicom takes the names of Python's codecs as well, UTF-16 and EBCDIC among them.
    """
    return character_set.strip(b"\0 ").decode("latin-1") in python_encoding


def _is_uid(uid: str) -> bool:
    return len(uid) <= _MAX_UID_CHARACTERS and _UID.fullmatch(uid) is not None


def _checked_uid(uid: str, name: str) -> str:
    if not _is_uid(uid):
        # Not the value: what is no UID may be a name, and this goes into the log.
        strange = next(
            (f"character {n} is none of 0-9 and ." for n, c in enumerate(uid, 1) if c not in _UID_CHARACTERS), ""
        )
        why = strange or f"its {len(uid)} characters are too many, or a component is empty"
        raise UnreadableInstance(f"its {name} is not a valid UID (PS3.5 9.1): {why}")
    return uid
