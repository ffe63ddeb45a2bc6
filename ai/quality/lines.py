"""Whole rows and columns of one slice: fold-over at the phase borders, and zippers.

Fold-over puts what lies beyond one border of the field of view onto the opposite side: the image then runs on across
the border without a seam. A zipper is radio-frequency interference on one frequency, a bright or dotted line along the
phase axis (Heiland, AJNR 2008;29:835, table of artefacts).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BORDER_LINES = 3
"""Lines at each border that are compared: seams are sharp, and neighbouring lines carry the same anatomy."""

DETAIL_WINDOW_PIXELS = 17
"""A line's detail is what is left of it without its moving average: two unlike borders share no slow shading."""

BORDER_FLOOR = 0.5
"""Part of the median line's power of detail below which that of a border counts as this much."""

ZIPPER_NEIGHBOURS = (3, 7)
"""Distance in lines of those that tell what is usual at a line: a zipper is one or two lines wide."""

ZIPPER_BORDER_FRACTION = 0.06
"""Outer part of the field of view, where masks and distortion correction draw lines of their own."""

ZIPPER_FLOOR = 0.3
"""Part of the median line's roughness below which none counts as smooth, so that air cannot make a zipper."""


def wrap_continuity(image: NDArray[np.float64], phase_axis: int) -> float:
    """Correlation across the seam of the two phase borders of ``[row, column]``, less that of the frequency borders.

    About 0 where the object ends inside the field of view or is cut off by oversampling, towards 1 where it is folded
    over; never negative. Borders smoother than the median line count for less, so that air correlates with nothing.
    """
    phase, frequency = (_seam(image, axis) for axis in (phase_axis, 1 - phase_axis))
    return max(0.0, phase - max(0.0, frequency))


def _seam(image: NDArray[np.float64], axis: int) -> float:
    """Correlation of the detail of the first and of the last lines along ``axis``."""
    lines = np.moveaxis(image, axis, 0)
    detail = lines - ndimage.uniform_filter1d(lines, DETAIL_WINDOW_PIXELS, axis=1)
    first, last = detail[:BORDER_LINES].mean(axis=0), detail[-BORDER_LINES:].mean(axis=0)
    usual = BORDER_FLOOR * float(np.median(np.sum(detail**2, axis=1)))
    norm = max(float(np.linalg.norm(first) * np.linalg.norm(last)), usual)
    return float(first @ last) / norm if norm > 0 else 0.0


def zipper_ratio(image: NDArray[np.float64]) -> float | None:
    """Roughest row or column of ``[row, column]`` over the lines beside it; 1 to 2 without a zipper.

    A line's roughness is the median over its pixels of the second difference across it: anatomy is rough in places, a
    zipper all along. None where most lines are empty or the image is too small.
    """
    ratios = [_roughest(np.moveaxis(image, axis, 0)) for axis in (0, 1)]
    known = [ratio for ratio in ratios if ratio is not None]
    return max(known) if known else None


def _roughest(lines: NDArray[np.float64]) -> float | None:
    nearest, farthest = ZIPPER_NEIGHBOURS
    border = max(farthest, round(lines.shape[0] * ZIPPER_BORDER_FRACTION))
    second = np.abs(2.0 * lines[1:-1] - lines[:-2] - lines[2:])
    middle = second.shape[1] // 2
    roughness = np.partition(second, middle, axis=1)[:, middle]
    floor = ZIPPER_FLOOR * float(np.median(roughness))
    if floor <= 0 or roughness.size <= 2 * border:
        return None
    distances = [*range(-farthest, 1 - nearest), *range(nearest, farthest + 1)]
    beside = np.max([np.roll(roughness, distance) for distance in distances], axis=0)
    return float(np.max((roughness / np.maximum(beside, floor))[border:-border]))
