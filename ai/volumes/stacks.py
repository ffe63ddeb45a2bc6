"""Splits the series of a study into stacks: volumes without their pixels, one contrast each.

Orientation, matrix, pixel spacing, frame of reference, b-value, echo, temporal position and image type set stacks
apart. Where positions still repeat (diffusion directions, repetitions), the first attribute that shares the copies out
evenly splits them further; what remains is named as duplicates.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import structlog
from pydicom.dataset import Dataset

from ai.volumes.acquisition import acquisition_time
from ai.volumes.diffusion import adc_evidence
from ai.volumes.grid import Grid, fit_grid, plane_of, position_groups, slice_normal
from ai.volumes.header import Header
from ai.volumes.slices import NotInAnyVolume, Slice, read_slices
from ai.volumes.types import Acquisition, BValue, Stack, StackAnomaly

MAX_SLICES = 200_000
"""Frames of one call; the largest studies we know (dynamic series) have some ten thousand."""
SAME_ORIENTATION = 1e-3
"""Direction cosines closer than this are one orientation: rounding is below 1e-7, a deliberate tilt above 0.01."""
MAX_ORIENTATIONS = 256
"""Orientations of one series; a radial scan has some tens. Slices beyond them are kept without a geometry."""
MAX_STACKS = 2_000
"""Stacks of one study. Long tensor and dynamic protocols have some hundreds; a series that goes beyond is refused."""
TILED_IMAGE_TYPES = {
    "MOSAIC": "a Siemens mosaic: a whole volume packed into one image",
    "VFRAME": "a UIH VFRAME grid: a whole volume packed into one image",
}
PROJECTIONS = frozenset({"CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA"})
"""Projection X-ray (PS3.3 C.7.3.1.1.1): every instance is an exposure of its own, never a slice of another's volume."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Contrast:
    """Slices of one contrast of a series and the values that set them apart, from which the volume id is made."""

    slices: tuple[Slice, ...]
    key: tuple[Hashable, ...]
    mixed_orientation: bool
    series_is_diffusion: bool


def build_stacks(headers: Iterable[Dataset]) -> tuple[list[Stack], dict[str, str]]:
    """All stacks of the instances, sorted by series number, series UID and volume id, and the instances in none.

    Never raises for what is in a header. The second part maps SOP Instance UID to why the instance is in no volume.
    A SOP Instance UID that comes twice is read once.
    """
    slices, unreadable = _read(headers)
    by_series: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        by_series[one.series_instance_uid].append(one)
    stacks: list[Stack] = []
    for series in by_series.values():
        contrasts = _split(series)
        if len(stacks) + len(contrasts) > MAX_STACKS:
            reason = f"its series splits into {len(contrasts)} volumes; at most {MAX_STACKS} are read of a study"
            unreadable |= {one.reference.sop_instance_uid: reason for one in series}
        else:
            stacks.extend(_stack(contrast) for contrast in contrasts)
    return sorted(stacks, key=_reading_order), unreadable


def tiled(acquisition: Acquisition) -> str | None:
    """What packs several slices into one image, in words; None for plain images. Such stacks have no geometry."""
    return next((words for code, words in TILED_IMAGE_TYPES.items() if code in acquisition.image_type), None)


def _read(headers: Iterable[Dataset]) -> tuple[list[Slice], dict[str, str]]:
    slices: list[Slice] = []
    unreadable: dict[str, str] = {}
    seen: set[str] = set()
    for number, dataset in enumerate(headers, start=1):
        uid = Header((dataset,)).text("SOPInstanceUID") or f"(header {number}, no SOP Instance UID)"
        if uid in seen:
            _log.info("instance_repeated", sop_instance_uid=uid)
            continue
        seen.add(uid)
        try:
            new = list(read_slices(dataset))
        except NotInAnyVolume as error:
            unreadable[uid] = str(error)
            continue
        if len(slices) + len(new) > MAX_SLICES:
            unreadable[uid] = f"more than {MAX_SLICES} frames in one study"
            continue
        slices.extend(new)
    return slices, unreadable


def _reading_order(stack: Stack) -> tuple[int, str, float, str]:
    number = stack.acquisition.series_number
    b_value = stack.b_value.s_per_mm2 if stack.b_value else -1.0
    return (number if number is not None else 0, stack.series_instance_uid, b_value, stack.volume_id)


def _split(series: Sequence[Slice]) -> list[_Contrast]:
    """The contrasts of one series. The order in which the instances came makes no difference."""
    ordered = sorted(series, key=_stored_order)
    orientations = _orientation_keys(ordered)
    groups: dict[tuple[Hashable, ...], list[Slice]] = defaultdict(list)
    for one, orientation in zip(ordered, orientations, strict=True):
        placed = one if orientation is not None else replace(one, orientation=None)
        groups[(orientation, *_contrast_key(one))].append(placed)
    mixed = len(set(orientations) - {None}) > 1
    is_diffusion = any(one.b_value and one.b_value.s_per_mm2 > 0 for one in ordered)
    return [
        _Contrast(part, (*key, *extra), mixed, is_diffusion)
        for key, group in groups.items()
        for part, extra in _share_out(tuple(group), tuple(_DISCRIMINATORS), ())
    ]


def _stored_order(one: Slice) -> tuple[int, str, int]:
    reference = one.reference
    return (reference.instance_number or 0, reference.sop_instance_uid, reference.frame_number or 0)


def _orientation_keys(slices: Sequence[Slice]) -> list[tuple[float, ...] | None]:
    """For each slice the orientation it shares with the first slice like it, rounded so that it can be a key.

    Two orientations further apart than ``SAME_ORIENTATION`` never round to the same three decimals.
    """
    known: list[tuple[float, ...]] = []
    keys: list[tuple[float, ...] | None] = []
    for one in slices:
        orientation = one.orientation
        same = next((seen for seen in known if _alike(seen, orientation)), None) if orientation else None
        if same is None and orientation and len(known) < MAX_ORIENTATIONS:
            known.append(orientation)
            same = orientation
        keys.append(tuple(round(cosine, 3) + 0.0 for cosine in same) if same else None)
    return keys


def _alike(a: Sequence[float], b: Sequence[float] | None) -> bool:
    return b is not None and all(abs(one - other) <= SAME_ORIENTATION for one, other in zip(a, b, strict=True))


def _contrast_key(one: Slice) -> tuple[Hashable, ...]:
    """What sets contrasts apart; real numbers rounded well below any deliberate difference."""
    echo_number, echo_time_ms = one.echo
    return (
        one.frame_of_reference_uid,
        (one.rows, one.columns),
        one.pixel_spacing_mm and tuple(round(spacing, 4) for spacing in one.pixel_spacing_mm),
        one.b_value and round(one.b_value.s_per_mm2),
        (echo_number, echo_time_ms and round(echo_time_ms, 1)),
        one.temporal_position,
        one.image_type,
        *((one.reference.sop_instance_uid,) if one.modality in PROJECTIONS else ()),
    )


_DISCRIMINATORS: dict[str, Callable[[Slice], Hashable]] = {
    "direction": lambda one: one.direction and tuple(round(cosine, 4) for cosine in one.direction),
    "acquisition number": lambda one: one.header.integer("AcquisitionNumber"),
    "trigger time": lambda one: one.header.number("TriggerTime"),
    "acquisition time": lambda one: acquisition_time(one.header),
}


def _share_out(
    slices: tuple[Slice, ...], names: tuple[str, ...], extra: tuple[Hashable, ...]
) -> list[tuple[tuple[Slice, ...], tuple[Hashable, ...]]]:
    """Split slices at repeated positions by the first attribute that shares the copies out without fragmenting them."""
    copies = _copies(slices)
    if copies <= 1:
        return [(slices, extra)]
    for number, name in enumerate(names):
        groups: dict[Hashable, list[Slice]] = defaultdict(list)
        for one in slices:
            groups[_DISCRIMINATORS[name](one)].append(one)
        parts = [(value, tuple(group)) for value, group in groups.items()]
        if len(parts) > 1 and sum(_copies(part) for _, part in parts) == copies:
            return [
                shared
                for value, part in parts
                for shared in _share_out(part, names[number + 1 :], (*extra, (name, value)))
            ]
    return _by_repetition(slices, copies, extra)


def _by_repetition(
    slices: tuple[Slice, ...], copies: int, extra: tuple[Hashable, ...]
) -> list[tuple[tuple[Slice, ...], tuple[Hashable, ...]]]:
    """Diffusion-weighted directions without a readable direction: the k-th copy of every position is volume k.

    Only where every position has the same number of copies; elsewhere repeated positions are duplicates.
    """
    groups = _groups(slices)
    b_value = slices[0].b_value
    if b_value is None or b_value.s_per_mm2 == 0 or any(len(group) != copies for group in groups):
        return [(slices, extra)]
    return [
        (tuple(slices[group[copy]] for group in groups), (*extra, ("repetition", copy + 1))) for copy in range(copies)
    ]


def _groups(slices: Sequence[Slice]) -> list[list[int]]:
    """Slice numbers by position along the normal; every slice on its own where there is no geometry."""
    positions = [one.reference.position_lps_mm for one in slices]
    orientation = slices[0].orientation
    if orientation is None or None in positions or tiled(Acquisition("MR", image_type=slices[0].image_type)):
        return [[number] for number in range(len(slices))]
    return position_groups(np.array(positions, dtype=np.float64), slice_normal(orientation))


def _copies(slices: Sequence[Slice]) -> int:
    return max(len(group) for group in _groups(slices))


def _stack(contrast: _Contrast) -> Stack:
    groups = _groups(contrast.slices)
    kept = [contrast.slices[group[0]] for group in groups]
    duplicates = tuple(contrast.slices[number].reference for group in groups for number in group[1:])
    first = kept[0]
    acquisition = replace(first.acquisition, modality=first.modality)
    grid = _grid(kept, acquisition)
    anomalies = (
        *grid.anomalies,
        *((StackAnomaly.DUPLICATE_POSITION,) if duplicates else ()),
        *((StackAnomaly.MIXED_ORIENTATION,) if contrast.mixed_orientation else ()),
    )
    return Stack(
        volume_id=_volume_id(first.series_instance_uid, contrast.key),
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        acquisition=acquisition,
        rows=first.rows,
        columns=first.columns,
        slices=tuple(one.reference for one in kept),
        slice_indices=grid.indices,
        geometry=grid.geometry,
        plane=plane_of(first.orientation) if first.orientation is not None else None,
        b_value=_b_value(contrast, acquisition),
        anomalies=anomalies,
        duplicates=duplicates,
    )


def _b_value(contrast: _Contrast, acquisition: Acquisition) -> BValue | None:
    """The b-value where it means something.

    An ADC map keeps its source's b-value in the header but has none itself; Philips and GE write b = 0 on images that
    have nothing to do with diffusion.
    """
    b_value = contrast.slices[0].b_value
    if b_value is None or adc_evidence(acquisition):
        return None
    if b_value.s_per_mm2 == 0 and not contrast.series_is_diffusion and "DIFFUSION" not in acquisition.image_type:
        return None
    return b_value


def _grid(kept: Sequence[Slice], acquisition: Acquisition) -> Grid:
    first = kept[0]
    positions = [one.reference.position_lps_mm for one in kept]
    if None in positions or first.orientation is None or first.pixel_spacing_mm is None or tiled(acquisition):
        return Grid(None, tuple(range(len(kept))), (StackAnomaly.NO_GEOMETRY,))
    return fit_grid(
        np.array(positions, dtype=np.float64),
        first.orientation,
        first.pixel_spacing_mm,
        (first.rows, first.columns),
        acquisition.spacing_between_slices_mm or acquisition.slice_thickness_mm,
    )


def _volume_id(series_instance_uid: str, key: tuple[Hashable, ...]) -> str:
    """Series UID and a digest of what sets the stack apart: the same stack keeps its id when others arrive late."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).hexdigest()
    return f"{series_instance_uid}-{digest}"
