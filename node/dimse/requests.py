"""Reading what a DIMSE-N request carries without trusting it: UIDs, texts, referenced instances, all bounded."""

import re
from collections.abc import Iterator
from typing import Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from ai.volumes.header import UNREADABLE_ELEMENT, element_value, items, texts

__all__ = ["MAXIMUM_REFERENCES", "UNREADABLE_ELEMENT", "InvalidRequest", "items", "referenced", "text_of", "uid_of"]

MAXIMUM_REFERENCES: Final = 100_000
"""Instances that one request names; far more than an examination makes."""
MAXIMUM_TEXT_CHARACTERS: Final = 64
"""Of what we keep of a request: all short and long strings of their VRs (PS3.5 6.2)."""
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAXIMUM_UID_CHARACTERS: Final = 64


class InvalidRequest(Exception):
    """A request that cannot be served: a DIMSE status of PS3.7 C and what is wrong, without any of its values."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


MISSING_ATTRIBUTE: Final = 0x0120
INVALID_ATTRIBUTE_VALUE: Final = 0x0106


def uid_of(
    dataset: Dataset, keyword: str, missing: int = MISSING_ATTRIBUTE, invalid: int = INVALID_ATTRIBUTE_VALUE
) -> str:
    """The UID in ``keyword``. Raises InvalidRequest with ``missing`` or ``invalid`` as its status."""
    uid = _first_text(dataset, keyword)
    if not uid:
        raise InvalidRequest(missing, f"{keyword} is missing")
    return checked_uid(uid, keyword, invalid)


def checked_uid(uid: str, name: str, invalid: int = INVALID_ATTRIBUTE_VALUE) -> str:
    """``uid`` if it is one (PS3.5 9.1; leading zeros are tolerated). Raises InvalidRequest."""
    if len(uid) > _MAXIMUM_UID_CHARACTERS or not _UID.fullmatch(uid):
        raise InvalidRequest(invalid, f"{name} is not a valid UID")
    return uid


def text_of(dataset: Dataset, keyword: str) -> str:
    """The first value as text without NUL, cut to `MAXIMUM_TEXT_CHARACTERS`; empty where absent or unreadable."""
    return _first_text(dataset, keyword)[:MAXIMUM_TEXT_CHARACTERS]


def referenced(
    dataset: Dataset, sequence: str, missing: int = MISSING_ATTRIBUTE, invalid: int = INVALID_ATTRIBUTE_VALUE
) -> Iterator[tuple[str, str]]:
    """SOP Class UID and SOP Instance UID of each item of a reference sequence. Raises InvalidRequest."""
    for item in items(dataset, sequence):
        yield (
            uid_of(item, "ReferencedSOPClassUID", missing, invalid),
            uid_of(item, "ReferencedSOPInstanceUID", missing, invalid),
        )


def _first_text(dataset: Dataset, keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return "" if tag is None else next(texts(element_value(dataset, tag)), "")
