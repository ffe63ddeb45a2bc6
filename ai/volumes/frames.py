"""Frames of an image instance: classic, enhanced (functional groups, PS3.3 C.7.6.16) or a plain multi-frame cine."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from ai.volumes.header import Header, first_item, items

MAX_FRAMES_PER_INSTANCE = 16_384
"""A 4-D enhanced MR object has a few thousand frames; more than this in one object is not a study we know."""


class TooManyFrames(ValueError):
    """The instance claims more frames than we are willing to expand."""


def frame_count(dataset: Dataset) -> int:
    """How many frames the instance has: Number of Frames, else the number of functional group items, else 1.

    Raises:
        TooManyFrames: more than ``MAX_FRAMES_PER_INSTANCE``.
    """
    count = Header((dataset,)).integer("NumberOfFrames")
    if count is None or count < 1:
        count = len(items(dataset, "PerFrameFunctionalGroupsSequence")) or 1
    if count > MAX_FRAMES_PER_INSTANCE:
        raise TooManyFrames(f"{count} frames claimed; at most {MAX_FRAMES_PER_INSTANCE} are read")
    return count


def frame_headers(dataset: Dataset) -> Iterator[tuple[int | None, Header]]:
    """The frames of an instance as (frame number counting from 1, header), in stored order.

    A single-frame instance without functional groups gives one pair with None. Frames without a functional group item
    have the shared groups only.

    Raises:
        TooManyFrames: before anything is expanded.
    """
    count = frame_count(dataset)
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = _shared_layers(dataset)
    if count == 1 and not groups:
        yield None, Header((*shared, dataset))
        return
    for index in range(count):
        own = _macros(groups[index]) if index < len(groups) else ()
        yield index + 1, Header((*own, *shared, dataset))


def frame_header(dataset: Dataset, frame_number: int | None = None) -> Header:
    """The header of one frame, counting from 1; of the first one where ``frame_number`` is None."""
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    index = (frame_number or 1) - 1
    own = _macros(groups[index]) if 0 <= index < len(groups) else ()
    return Header((*own, *_shared_layers(dataset), dataset))


def _shared_layers(dataset: Dataset) -> tuple[Dataset, ...]:
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    return _macros(shared) if shared is not None else ()


def _macros(group_item: Dataset) -> tuple[Dataset, ...]:
    """The items of the standard macros of a functional group item, one item each.

    Private macros are left out: Philips puts a whole classic header into one, which would shadow the standard one.
    """
    macros = (first_item(group_item, tag) for tag in sorted(group_item.keys()) if not tag.is_private)
    return tuple(macro for macro in macros if macro is not None)
