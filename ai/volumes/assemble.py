"""A study in volumes: splits the series, gives the roles, chooses what detection works on (PS3.3 A.1.2, C.7.6.2)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from pydicom.dataset import Dataset

from ai.volumes.header import Header
from ai.volumes.roles import assign_roles
from ai.volumes.select import choose
from ai.volumes.stacks import build_stacks
from ai.volumes.types import Assembly


def assemble(headers: Iterable[Dataset], quality: Mapping[str, float] | None = None) -> Assembly:
    """The assembly of one study from its instances' headers, in any order.

    Args:
        headers: from ``pydicom.dcmread(..., stop_before_pixels=True)`` or ``Dataset.from_json``.
        quality: Series Instance UID -> quality from 0 to 1, which decides between repeats where it is known.

    Raises:
        ValueError: the headers are of several studies; ``assemble_studies`` takes those.
    """
    known = list(headers)
    uids = {_study(header) for header in known} - {""}
    if len(uids) > 1:
        raise ValueError(f"headers of {len(uids)} studies; expected one")
    stacks, unreadable = build_stacks(known)
    roled = tuple(assign_roles(stacks))
    return Assembly(next(iter(uids), ""), roled, choose(roled, quality), unreadable)


def assemble_studies(headers: Iterable[Dataset]) -> list[Assembly]:
    """The assemblies of a folder, sorted by Study Instance UID; headers without one form an assembly named ""."""
    studies: dict[str, list[Dataset]] = defaultdict(list)
    for header in headers:
        studies[_study(header)].append(header)
    return [assemble(studies[uid]) for uid in sorted(studies)]


def _study(header: Dataset) -> str:
    return Header((header,)).text("StudyInstanceUID")
