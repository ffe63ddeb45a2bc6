"""Tolerant reading of DICOM headers: one frame's attributes, through the functional group macros of PS3.3 C.7.6.16.

Real headers carry wrong VRs, several values where one belongs, text where a number belongs and private elements whose
VR is unknown (PS3.5 6.2.2). Every accessor answers with the value or with "nothing"; none raises.
"""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag, Tag

UNREADABLE_ELEMENT = (
    BytesLengthException,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    EOFError,
    OSError,
    struct.error,
)
"""What pydicom raises when it converts a damaged raw element on access (values, VRs, character sets, nesting)."""

MAX_TEXT_CHARACTERS = 1024
"""LO is 64 characters and ST 1024 (PS3.5 6.2); longer text in a header is damage and is cut."""
MAX_VALUES = 64
"""No multi-valued attribute read here has more than a dozen values; the rest of a longer one is ignored."""

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def element_value(dataset: Dataset, tag: int | BaseTag) -> Any:
    """The value of an element, or None where it is absent, empty or cannot be converted."""
    try:
        return dataset[tag].value if tag in dataset else None
    except UNREADABLE_ELEMENT:
        return None


def items(dataset: Dataset, keyword: str | BaseTag) -> Sequence[Dataset]:
    """The items of a sequence; empty where it is absent or not a sequence."""
    value = element_value(dataset, _tag(keyword) if isinstance(keyword, str) else keyword)
    return value if isinstance(value, pydicom.Sequence) else ()


def first_item(dataset: Dataset, keyword: str | BaseTag) -> Dataset | None:
    """The first item of a sequence, or None."""
    return next(iter(items(dataset, keyword)), None)


@dataclass(frozen=True)
class Header:
    """The attributes of one frame: its own macros first, then the shared ones, then the instance's."""

    layers: tuple[Dataset, ...]

    def value(self, keyword: str) -> Any:
        """The raw value, or None where absent, empty or unreadable."""
        tag = _tag(keyword)
        for layer in self.layers:
            if tag in layer:
                value = element_value(layer, tag)
                if value is not None and value != "":
                    return value
        return None

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values as stripped text."""
        return tuple(texts(self.value(keyword)))

    def text(self, keyword: str) -> str:
        """All values as one line of text, separated by backslashes as in the file."""
        return "\\".join(self.texts(keyword))[:MAX_TEXT_CHARACTERS]

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """All values as numbers; empty where any of them is not finite or not a number."""
        return numbers(self.value(keyword))

    def number(self, keyword: str) -> float | None:
        """The first value as a finite number."""
        return next(iter(self.numbers(keyword)), None)

    def integer(self, keyword: str) -> int | None:
        """The first value where it is a whole number."""
        number = self.number(keyword)
        return int(number) if number is not None and number.is_integer() else None

    def vector(self, keyword: str, length: int) -> tuple[float, ...] | None:
        """All values where there are exactly ``length`` finite ones."""
        values = self.numbers(keyword)
        return values if len(values) == length else None

    def item(self, keyword: str) -> Dataset | None:
        """The first item of a sequence."""
        return next((item for layer in self.layers if (item := first_item(layer, keyword)) is not None), None)

    def private(self, group: int, element: int, creator: str) -> Any:
        """The value of a private element of ``creator``.

        The block is looked up as PS3.5 7.8.1 says; where the creator element was lost (de-identification), block 10 is
        read, which is where every vendor's scanner writes it.
        """
        for layer in self.layers:
            for block in _private_blocks(layer, group, creator):
                value = element_value(layer, Tag(group, (block << 8) | element))
                if value is not None:
                    return value
        return None


def texts(value: Any) -> Iterator[str]:
    """The values of an element as stripped text, bytes read as Latin-1, long text cut."""
    if value is None or isinstance(value, Dataset):
        return
    if isinstance(value, bytes):
        value = value[:MAX_TEXT_CHARACTERS].decode("latin-1").split("\\")
    elif isinstance(value, str) or not isinstance(value, Sequence):
        value = (value,)
    for part in value[:MAX_VALUES]:
        if isinstance(part, Dataset):
            continue
        yield str(part)[:MAX_TEXT_CHARACTERS].replace("\0", " ").strip()


def numbers(value: Any) -> tuple[float, ...]:
    """The values of an element as finite numbers, whatever its VR; empty where one of them is not a number."""
    found: list[float] = []
    for part in texts(value):
        if not _NUMBER.fullmatch(part):
            return ()
        number = float(part)
        if not math.isfinite(number):
            return ()
        found.append(number)
    return tuple(found)


def binary_number(value: Any, layout: Literal["<f", "<d", "<i"]) -> float | None:
    """A number that is either decoded already or still the little-endian bytes of an FL, FD or SL element."""
    if isinstance(value, bytes):
        if len(value) != struct.calcsize(layout):
            return None
        number = float(struct.unpack(layout, value)[0])
        return number if math.isfinite(number) else None
    return next(iter(numbers(value)), None)


def _private_blocks(layer: Dataset, group: int, creator: str) -> Iterator[int]:
    named = [block for block in range(0x10, 0x20) if Tag(group, block) in layer]
    for block in named:
        if creator.casefold() in " ".join(texts(element_value(layer, Tag(group, block)))).casefold():
            yield block
    if 0x10 not in named:
        yield 0x10


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"not a DICOM keyword: {keyword}")
    return tag
