"""From a suspicion map to lesion candidates and their measurements.

The extraction is the dynamic rule of the PI-CAI challenge (report-guided annotation, Bosma et al. 2023): take the
peak, keep its 26-connected surroundings above 40 % of the peak probability, remove them, repeat at most five times;
drop what is too small and what touches an earlier candidate. Two things are added. Where a lesion is so conspicuous
that the probability saturates, its edge is where the deviation has fallen to half its peak, as for any blurred object
(full width at half maximum). And bounds on the volume follow from lesions as radiology reports them, not from voxels.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from ai.detection.suspicion import deviation_of, probability_like
from ai.detection.types import Candidate
from ai.volumes.types import Geometry

PEAK_SHARE = 0.4
HALF_MAXIMUM = 0.5
MAXIMUM_CANDIDATES = 5
MINIMUM_VOXELS = 11
"""The rule drops blobs of ten voxels or fewer."""

MINIMUM_VOLUME_ML = 0.065
"""A ball of 5 mm diameter: smaller foci are neither reported nor targeted in practice."""

MAXIMUM_VOLUME_ML = 28.2
"""99.5 % quantile of the log-normal volume distribution of 233 public csPCa lesions, exp(0.312 + 2.576 x 1.175)."""

MINIMUM_PROBABILITY = 0.1
"""Peaks below are the gland's ordinary texture (the rule stops at 0.01, which here is typical tissue)."""

NEIGHBOURS_26 = np.ones((3, 3, 3), bool)


def extract_candidates(
    deviation: NDArray[np.float32], geometry: Geometry
) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """Candidate masks and their peak probabilities, most suspicious first.

    Args:
        deviation: float32 ``[slice, row, column]`` on ``geometry`` as ``suspicion`` gives it, minus infinity where
            nothing may be found.

    Returns:
        uint8 labels (0 background, 1..n) and the n peak probabilities in falling order.
    """
    labels = np.zeros(deviation.shape, np.uint8)
    peaks: list[float] = []
    claimed = np.zeros(deviation.shape, bool)
    for peak, blob, around in _dynamic_blobs(deviation):
        voxels = int(blob.sum())
        volume_ml = voxels * geometry.voxel_volume_ml
        sized = voxels >= MINIMUM_VOXELS and MINIMUM_VOLUME_ML <= volume_ml <= MAXIMUM_VOLUME_ML
        # The foothills of an earlier peak are part of it, even where its candidate ends at half its height.
        touching = bool(claimed[binary_dilation(around, NEIGHBOURS_26)].any())
        claimed |= around
        if sized and not touching:
            peaks.append(peak)
            labels[blob] = len(peaks)
    return labels, tuple(peaks)


def measure(
    labels: NDArray[np.uint8],
    peaks: tuple[float, ...],
    geometry: Geometry,
    adc: NDArray[np.float32] | None,
    operating_point: float,
) -> tuple[Candidate, ...]:
    """Volume, centroid, long axis and mean ADC of every label.

    Args:
        labels: as ``extract_candidates`` gives them, on ``geometry``.
        peaks: probability of label 1..n.
        adc: um2/s on the same grid, NaN or non-positive where unknown; None where there is none.
        operating_point: probability from which a candidate counts as a detection.
    """
    candidates = []
    for number, peak in enumerate(peaks, start=1):
        mask = labels == number
        centroid = geometry.to_lps_mm(np.argwhere(mask).mean(axis=0, keepdims=True))[0]
        candidates.append(
            Candidate(
                label=number,
                probability=peak,
                above_operating_point=peak >= operating_point,
                volume_ml=float(mask.sum()) * geometry.voxel_volume_ml,
                centroid_lps_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
                long_axis_mm=long_axis_mm(mask, geometry),
                adc_mean_um2_per_s=None if adc is None else _mean_of_known(adc[mask]),
            )
        )
    return tuple(candidates)


def long_axis_mm(mask: NDArray[np.bool_], geometry: Geometry) -> float:
    """Largest in-plane diameter in mm: the widest pair of points on the outline of any one slice.

    The outline runs through the middle of the voxels' outer edges, so n voxels in a row measure n times the spacing.
    """
    return max((_diameter_mm(mask[index], geometry) for index in np.flatnonzero(mask.any(axis=(1, 2)))), default=0.0)


def _dynamic_blobs(deviation: NDArray[np.float32]) -> Iterator[tuple[float, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Peak probability of up to five blobs, their mask, and all around it above 40 % of the peak."""
    remaining = deviation.copy()
    for _ in range(MAXIMUM_CANDIDATES):
        top = np.unravel_index(int(np.argmax(remaining)), remaining.shape)
        height = float(remaining[top])
        probability = probability_like(height)
        if probability < MINIMUM_PROBABILITY:
            return
        around = _connected(remaining > deviation_of(PEAK_SHARE * probability), top)
        blob = _connected(around & (remaining > HALF_MAXIMUM * height), top)
        remaining[around] = -np.inf
        yield probability, blob, around


def _connected(region: NDArray[np.bool_], seed: tuple[np.intp, ...]) -> NDArray[np.bool_]:
    parts, _ = label(region, NEIGHBOURS_26)
    return np.asarray(parts == parts[seed])


def _diameter_mm(section: NDArray[np.bool_], geometry: Geometry) -> float:
    centres = np.argwhere(section).astype(np.float64)
    half_steps = 0.5 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    points = (centres[:, None, :] + half_steps).reshape(-1, 2) @ geometry.affine_lps_mm[:3, 1:3].T
    # In the plane two coordinates suffice; the hull wants no third, flat one.
    basis = np.linalg.qr(geometry.affine_lps_mm[:3, 1:3])[0]
    plane = points @ basis
    return float(pdist(plane[ConvexHull(plane).vertices]).max())


def _mean_of_known(values: NDArray[np.float32]) -> float | None:
    known = values[np.isfinite(values) & (values > 0)]
    return float(known.mean(dtype=np.float64)) if known.size else None
