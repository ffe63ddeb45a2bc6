"""Which slices of a stack are looked at closely: few, central, full of anatomy, and unlike each other.

The idea of seven salient slices is MedIQA's (arXiv 2507.19004), which publishes no rule for them; this rule is our own:
salience = coverage x signal energy, chosen greedily by salience x (1 - similarity to the slices already taken).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.quality.acquired import central_box
from ai.volumes.types import SliceReference, Volume

SALIENT_SLICES = 7

FOREGROUND_FRACTION = 0.1
"""Part of the stack's 99th percentile above which a pixel is anatomy; of the stack, so that empty slices stay empty."""

CENTRALITY_SD = 0.3
"""SD of the centre weight in units of the stack's extent: 1 in the middle, 0.25 at the ends, where no gland is."""

GLAND_MARGIN_MM = 3.0
"""SD of the weight outside a known gland: apex and base are told to one slice at best."""

THUMBNAIL = 24
"""Rows and columns of the block means that slices are compared on."""


@dataclass(frozen=True)
class SalientSlice:
    """A chosen slice.

    ``index`` counts the stored slices of the stack. ``salience`` is 0..1; ``dissimilarity`` is 1 minus the similarity
    to the slices taken before it (1 for the first).
    """

    index: int
    reference: SliceReference
    salience: float
    dissimilarity: float

    @property
    def score(self) -> float:
        """What it was chosen for: salience x dissimilarity."""
        return self.salience * self.dissimilarity


@dataclass(frozen=True)
class Selection:
    """Indices of chosen images in order of position, with salience and dissimilarity of each."""

    indices: tuple[int, ...]
    salience: tuple[float, ...]
    dissimilarity: tuple[float, ...]


def salient_slices(
    volume: Volume, count: int = SALIENT_SLICES, gland_mm: tuple[float, float] | None = None
) -> tuple[SalientSlice, ...]:
    """The slices of a volume worth a close look, in the order of the stack.

    ``gland_mm`` is the extent of the gland along the slice normal, in mm from the first slice of the grid. A stack of
    ``count`` or fewer slices is taken whole.
    """
    stack = volume.stack
    spacing_mm = 1.0 if stack.geometry is None else stack.geometry.spacing_mm[0]
    images = volume.pixels[list(stack.slice_indices)]
    positions_mm = np.array(stack.slice_indices, float) * spacing_mm
    chosen = select(images, positions_mm, count, gland_mm)
    return tuple(
        SalientSlice(index, stack.slices[index], salience, dissimilarity)
        for index, salience, dissimilarity in zip(chosen.indices, chosen.salience, chosen.dissimilarity, strict=True)
    )


def select(
    images: NDArray[np.floating],
    positions_mm: NDArray[np.float64],
    count: int = SALIENT_SLICES,
    gland_mm: tuple[float, float] | None = None,
) -> Selection:
    """Choose ``count`` of the images ``[n, row, column]`` at ``positions_mm`` ``[n]``, given in any order.

    Deterministic, and independent of the intensity scale. Images without anatomy come last.

    Raises:
        ValueError: there is no image, or ``count`` is below 1.
    """
    if len(images) == 0 or count < 1:
        raise ValueError(f"{count} of {len(images)} slices cannot be chosen")
    order = np.argsort(positions_mm, kind="stable")
    boxes = np.stack(
        [central_box(np.nan_to_num(images[index].astype(np.float64), posinf=0.0, neginf=0.0)) for index in order]
    )
    positions = np.asarray(positions_mm, np.float64)[order]
    salience = _salience(boxes, positions, gland_mm)
    extent_mm = float(np.ptp(positions)) if gland_mm is None else gland_mm[1] - gland_mm[0]
    taken = _greedy(salience, _similarity(boxes, positions, extent_mm / count), min(count, len(order)))
    ranks = sorted(taken)
    return Selection(
        tuple(int(order[rank]) for rank in ranks),
        tuple(float(salience[rank]) for rank in ranks),
        tuple(taken[rank] for rank in ranks),
    )


def _salience(
    boxes: NDArray[np.float64], positions_mm: NDArray[np.float64], gland_mm: tuple[float, float] | None
) -> NDArray[np.float64]:
    """Coverage x energy per slice, 0..1: place weight x share of anatomy x signal over the median slice (to 1)."""
    # Air is 0 in MR and the lowest value in CT; a map's few negative voxels are no floor.
    magnitude = np.maximum(boxes - min(float(np.percentile(boxes, 1.0)), 0.0), 0.0)
    foreground = magnitude > FOREGROUND_FRACTION * np.percentile(magnitude, 99.0)
    # A constant slice is padding, however bright.
    share = foreground.mean(axis=(1, 2)) * (np.ptp(boxes, axis=(1, 2)) > 0)
    energy = np.sqrt(np.mean((magnitude * foreground) ** 2, axis=(1, 2)))
    filled = energy[share > 0]
    if filled.size == 0:
        return np.zeros(len(boxes))
    return _place_weight(positions_mm, gland_mm) * share * np.minimum(energy / np.median(filled), 1.0)


def _place_weight(positions_mm: NDArray[np.float64], gland_mm: tuple[float, float] | None) -> NDArray[np.float64]:
    if gland_mm is not None:
        outside = np.maximum(np.maximum(gland_mm[0] - positions_mm, positions_mm - gland_mm[1]), 0.0)
        return np.asarray(np.exp(-0.5 * (outside / GLAND_MARGIN_MM) ** 2))
    extent = float(np.ptp(positions_mm))
    if extent == 0:
        return np.ones(len(positions_mm))
    offset = (positions_mm - (positions_mm[0] + positions_mm[-1]) / 2.0) / extent
    return np.asarray(np.exp(-0.5 * (offset / CENTRALITY_SD) ** 2))


def _similarity(boxes: NDArray[np.float64], positions_mm: NDArray[np.float64], pitch_mm: float) -> NDArray[np.float64]:
    """Similarity 0..1 of every pair: correlation of thumbnails, or nearness, whichever is more.

    Nearness counts because slices ruined by noise resemble nothing, their neighbours neither; it ends at
    ``pitch_mm``, the distance of evenly spread slices.
    """
    thumbnails = np.stack([_thumbnail(box).ravel() for box in boxes])
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(thumbnails, axis=1, keepdims=True)
    unit = np.divide(thumbnails, norms, out=np.zeros_like(thumbnails), where=norms > 0)
    distance_mm = np.abs(positions_mm[:, None] - positions_mm[None, :])
    nearness = 1.0 - distance_mm / pitch_mm if pitch_mm > 0 else np.zeros_like(distance_mm)
    return np.clip(np.maximum(unit @ unit.T, nearness), 0.0, 1.0)


def _thumbnail(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over at most THUMBNAIL x THUMBNAIL blocks of nearly equal size."""
    rows, columns = (np.linspace(0, size, min(size, THUMBNAIL) + 1).astype(int)[:-1] for size in box.shape)
    sums = np.add.reduceat(np.add.reduceat(box, rows, axis=0), columns, axis=1)
    areas = np.outer(np.diff([*rows, box.shape[0]]), np.diff([*columns, box.shape[1]]))
    return np.asarray(sums / areas)


def _greedy(salience: NDArray[np.float64], similarity: NDArray[np.float64], count: int) -> dict[int, float]:
    """Rank -> dissimilarity when it was taken. Slices with anatomy go before those without, ties to the lower rank."""
    taken: dict[int, float] = {}
    nearest = np.zeros(len(salience))
    while len(taken) < count:
        gain = salience * (1.0 - nearest)
        # Last key first: anatomy or none, then gain, then salience; lexsort is stable, so that ties go to the lower.
        ranking = np.lexsort((-salience, -gain, salience <= 0))
        rank = next(int(rank) for rank in ranking if int(rank) not in taken)
        taken[rank] = float(1.0 - nearest[rank])
        nearest = np.maximum(nearest, similarity[rank])
    return taken
