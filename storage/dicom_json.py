"""DICOM JSON (PS3.18 F) of a header, bounded, and back: one bad element costs that element, not the instance.

Differences from pydicom's own conversion: it goes on after a bad element and says which it was; depth and size are
bounded; text is freed of what PostgreSQL cannot store (NUL, lone surrogates); values that JSON has no number for (NaN)
are faults. Bulk data stay behind a ``BulkDataURI`` that is the element's tag, relative to the instance.
"""

import base64
import math
import re
from typing import Any

import orjson
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr_element
from pydicom.hooks import raw_element_vr
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from storage.part10 import MAX_INLINE_BYTES, PARSING_ERRORS, UNDEFINED_LENGTH, Part10Header

MAX_NESTING = 32
"""Sequences within sequences. The deepest real ones, SR content trees, stay below half of it."""
MAX_JSON_BYTES = 64 << 20
"""Of one header. An enhanced MR of 10,000 frames needs about half; PostgreSQL's JSONB ends at 256 MiB."""
MAX_FAULTS = 100
"""Faults named per instance; a broken stream would otherwise name every one of its elements."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT_CHARACTER = "\ufffd"
_SPECIFIC_CHARACTER_SET = "00080005"
_UTF_8: dict[str, Any] = {"vr": "CS", "Value": ["ISO_IR 192"]}


class ElementFault(ValueError):
    """An element cannot be represented. The message is the reason; it never holds the value."""


def header_to_json(header: Part10Header) -> tuple[dict[str, Any], list[str]]:
    """The DICOM JSON of a header, and the faults: each element left out or doubtful, with the reason.

    Text is Unicode, so (0008,0005) reads ISO_IR 192 whatever the sender used (PS3.18 F.2); the original is in the
    object. Group lengths are left out. Raises `UnreadableInstance` beyond the bounds of `storage.part10`.
    """
    converter = _Converter(header)
    document = converter.data_set(header.data_set, "", 0)
    if converter.beyond_ascii and _SPECIFIC_CHARACTER_SET not in document:
        document[_SPECIFIC_CHARACTER_SET] = _UTF_8
    faults = header.faults + converter.faults
    if converter.unnamed_faults:
        faults.append(f"and {converter.unnamed_faults} more")
    return document, faults


def dataset_from_json(document: dict[str, Any]) -> Dataset:
    """The data set of a header's DICOM JSON: binary values byte for byte, bulk data absent.

    Numbers of VR DS come back as the nearest double. Raises ValueError where ``document`` is not DICOM JSON.
    """
    data_set = Dataset()
    for key, element in document.items():
        if "BulkDataURI" not in element:
            data_set.add(_element_from_json(key, element))
    return data_set


def _element_from_json(key: str, element: dict[str, Any]) -> DataElement:
    vr = element["vr"]
    if "InlineBinary" in element:
        return DataElement(Tag(int(key, 16)), vr, base64.b64decode(element["InlineBinary"]))
    if vr == "SQ":
        items = [dataset_from_json(item) for item in element.get("Value", [])]
        return DataElement(Tag(int(key, 16)), vr, Sequence(items))
    value_key = "Value" if "Value" in element else None
    return DataElement.from_json(Dataset, key, vr, element.get("Value", [""]), value_key)


class _Converter:
    """Converts one header; holds what is left of its bounds."""

    def __init__(self, header: Part10Header) -> None:
        self.faults: list[str] = []
        self.unnamed_faults = 0
        self.beyond_ascii = False
        self._header = header
        self._enclosing: list[Dataset] = []  # the innermost first
        self._left_bytes = MAX_JSON_BYTES

    def data_set(self, data_set: Dataset, where: str, depth: int) -> dict[str, Any]:
        """The JSON of ``data_set``, which lies at ``where``, ``depth`` sequences deep."""
        self._enclosing.insert(0, data_set)
        document: dict[str, Any] = {}
        for tag, element in sorted(data_set.items()):
            if tag.element == 0:
                continue
            key = f"{tag:08X}"
            try:
                document[key] = self._element(data_set, tag, element, where, depth)
            except ElementFault as fault:
                self._fault(where, tag, str(fault))
            except PARSING_ERRORS as error:
                self._fault(where, tag, f"its value does not fit its VR ({type(error).__name__})")
        if _SPECIFIC_CHARACTER_SET in document:
            document[_SPECIFIC_CHARACTER_SET] = _UTF_8
        self._enclosing.pop(0)
        return document

    def _element(
        self, data_set: Dataset, tag: BaseTag, element: DataElement | RawDataElement, where: str, depth: int
    ) -> dict[str, Any]:
        if isinstance(element, DataElement):  # pydicom has parsed it already: a sequence of undefined length
            return self._sequence(element.value, f"{where}{tag}", depth)
        vr = self._checked_vr(data_set, element)
        if vr == "SQ":
            sequence = self._header.read_sequence(element, data_set.original_character_set)
            return self._sequence(sequence, f"{where}{tag}", depth)
        if len(element.value) > MAX_INLINE_BYTES if element.value is not None else element.length:
            return {"vr": vr.rpartition(" or ")[2], "BulkDataURI": f"{tag:08X}"}
        try:
            return self._value(self._converted(data_set, element), where)
        except ElementFault:
            raise
        except PARSING_ERRORS:
            if not tag.is_private or element.VR not in (None, "UN"):
                raise
            # The VR was not the sender's but pydicom's guess from the private creator, and the bytes say otherwise.
            return self._value(DataElement(tag, "UN", element.value), where)

    def _converted(self, data_set: Dataset, raw: RawDataElement) -> DataElement:
        """As ``data_set[raw.tag]``, but looked up once and with the enclosing data sets in mind."""
        element = convert_raw_data_element(raw, encoding=data_set.original_character_set, ds=data_set)
        if " or " in element.VR:
            correct_ambiguous_vr_element(element, data_set, raw.is_little_endian, self._enclosing)
        return element

    def _checked_vr(self, data_set: Dataset, raw: RawDataElement) -> str:
        there = self._header.size_bytes - raw.value_tell if raw.value is None else len(raw.value)
        if raw.length != UNDEFINED_LENGTH and there < raw.length:
            raise ElementFault(f"cut short, {max(there, 0)} of {raw.length} bytes are there")
        if raw.VR is not None and raw.VR != "UN":
            return raw.VR
        found: dict[str, Any] = {}
        raw_element_vr(raw, found, ds=data_set)
        return str(found["VR"])

    def _sequence(self, sequence: Sequence, where: str, depth: int) -> dict[str, Any]:
        if depth >= MAX_NESTING:
            raise ElementFault(f"left out, nested more than {MAX_NESTING} sequences deep")
        items = [self.data_set(item, f"{where}[{number}]", depth + 1) for number, item in enumerate(sequence, 1)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}

    def _value(self, element: DataElement, where: str) -> dict[str, Any]:
        if " or " in element.VR:
            raise ElementFault(f"its VR could be {element.VR} and nothing tells which")
        document = element.to_json_dict(None, 0)
        if "Value" in document:
            document["Value"] = [self._clean(value, element.tag, where) for value in document["Value"]]
        self._left_bytes -= len(orjson.dumps(document))
        if self._left_bytes < 0:
            raise ElementFault(f"left out, the header's JSON is full at {MAX_JSON_BYTES >> 20} MiB")
        return document

    def _clean(self, value: Any, tag: BaseTag, where: str) -> Any:
        if isinstance(value, dict):  # the component groups of a person name
            return {group: self._clean(text, tag, where) for group, text in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            raise ElementFault("not a finite number")
        if not isinstance(value, str) or (value.isascii() and "\x00" not in value):
            return value
        self.beyond_ascii = True
        if _REPLACEMENT_CHARACTER in value:
            self._fault(where, tag, "some of its bytes mean nothing in its character set; shown as U+FFFD")
        return _UNSTORABLE.sub("", value)

    def _fault(self, where: str, tag: BaseTag, reason: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(f"{where}{tag} {keyword_for_tag(tag)}".rstrip() + f": {reason}")
        else:
            self.unnamed_faults += 1
