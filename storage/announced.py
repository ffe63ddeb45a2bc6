"""Counts that headers announce: how many instances a series, acquisition, concatenation or study has (PS3.3 C.7.6.1,
C.7.6.16.2.2.4; PS3.4 C.3.4 for the related-instance numbers, which some senders write into images).

Read from DICOM JSON, whose values a sender chose: what is no plausible count is no evidence.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from storage.evidence import Evidence, EvidenceKind

NUMBER_OF_SERIES_RELATED_INSTANCES = "00201209"
NUMBER_OF_STUDY_RELATED_INSTANCES = "00201208"
IMAGES_IN_ACQUISITION = "00201002"
ACQUISITION_NUMBER = "00200012"
CONCATENATION_UID = "00209161"
IN_CONCATENATION_TOTAL_NUMBER = "00209163"
NUMBER_OF_TEMPORAL_POSITIONS = "00200105"
MAXIMUM_COUNT = 1_000_000
"""No series has more instances."""

Header = Mapping[str, Any]


def announced_study_instances(headers: Sequence[Header]) -> int | None:
    """The largest Number of Study Related Instances among the headers."""
    return max((n for header in headers if (n := _count(header, NUMBER_OF_STUDY_RELATED_INSTANCES))), default=None)


def announced_temporal_positions(headers: Sequence[Header]) -> int | None:
    """The largest Number of Temporal Positions among the headers."""
    return max((n for header in headers if (n := _count(header, NUMBER_OF_TEMPORAL_POSITIONS))), default=None)


def announced_evidence(headers: Sequence[Header]) -> Evidence | None:
    """Whether the counts announced in the headers of a series are met; None where none is announced.

    The first of these that is there: Number of Series Related Instances, the parts of concatenations, Images in
    Acquisition. The last speaks only where it is met exactly: an acquisition may be spread over several series, and
    then its number says nothing about one of them.
    """
    return _of_series(headers) or _of_concatenations(headers) or _of_acquisitions(headers)


def _of_series(headers: Sequence[Header]) -> Evidence | None:
    announced = max((n for header in headers if (n := _count(header, NUMBER_OF_SERIES_RELATED_INSTANCES))), default=0)
    if not announced:
        return None
    reason = f"{len(headers)} instances here, {announced} announced for the series (0020,1209)"
    return Evidence(EvidenceKind.ANNOUNCED_COUNT, max(announced - len(headers), 0), reason)


def _of_concatenations(headers: Sequence[Header]) -> Evidence | None:
    """All instances are parts of concatenations, whose lengths are known."""
    parts: Counter[str] = Counter()
    totals: dict[str, int] = {}
    for header in headers:
        uid, total = _text(header, CONCATENATION_UID), _count(header, IN_CONCATENATION_TOTAL_NUMBER)
        if not uid or total is None:
            return None
        parts[uid] += 1
        totals[uid] = max(total, totals.get(uid, 0))
    if not totals:
        return None
    missing = sum(max(total - parts[uid], 0) for uid, total in totals.items())
    reason = (
        f"{len(headers)} parts of {len(totals)} concatenation(s) here, {sum(totals.values())} announced (0020,9163)"
    )
    return Evidence(EvidenceKind.ANNOUNCED_COUNT, missing, reason, open_ended=True)


def _of_acquisitions(headers: Sequence[Header]) -> Evidence | None:
    found: Counter[int] = Counter()
    announced: dict[int, set[int | None]] = {}
    for header in headers:
        number = _integer(header, ACQUISITION_NUMBER) or 0
        found[number] += 1
        announced.setdefault(number, set()).add(_count(header, IMAGES_IN_ACQUISITION))
    if not found or any(announced[number] != {count} for number, count in found.items()):
        return None
    reason = f"{len(headers)} images here, as announced for {len(found)} acquisition(s) (0020,1002)"
    return Evidence(EvidenceKind.ANNOUNCED_COUNT, 0, reason, open_ended=True)


def _count(header: Header, key: str) -> int | None:
    number = _integer(header, key)
    return number if number is not None and 0 < number <= MAXIMUM_COUNT else None


def _integer(header: Header, key: str) -> int | None:
    value = _first(header, key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(header: Header, key: str) -> str:
    value = _first(header, key)
    return value if isinstance(value, str) else ""


def _first(header: Header, key: str) -> Any:
    element = header.get(key)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values[0] if isinstance(values, list) and values else None
