"""Bends an ellipsoid to the image: two-class classification with the distance to the ellipsoid as prior."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from ai.detection.gland_search import Ellipsoid, axes_spl_mm, ellipsoidal_radius
from ai.volumes.types import Geometry

OUTLINE_SPACING_MM = 1.5

OUTLINE_ROUNDS = 4

OUTLINE_PRIOR_MM = 1.0
"""A voxel this far inside the ellipsoid gains one unit of log odds."""

OUTLINE_LIMIT_MM = 9.0
"""The outline never leaves the ellipsoid by more."""

OUTLINE_SMOOTHING_MM = 2.0

MAXIMUM_LOG_ODDS = 3.0
"""Evidence of one voxel is clipped here (odds 20 to 1), so that no outlier outweighs its neighbours."""

MINIMUM_SPREAD = 0.05
"""Least spread of the feature (natural logarithm, so 5 %): keeps noise-free images from infinite certainty."""


def outline(feature: NDArray[np.float32], grid: Geometry, ellipsoid: Ellipsoid) -> NDArray[np.float32]:
    """Log odds (smoothed, clipped) of belonging to the gland, from the feature and the distance to the ellipsoid."""
    depth = _depth_mm(grid, ellipsoid)
    near = depth > -OUTLINE_LIMIT_MM
    valid = np.isfinite(feature)
    values = np.where(valid, feature, 0.0)
    region = depth > 0
    log_odds = np.zeros(grid.shape)
    for _ in range(OUTLINE_ROUNDS):
        evidence = np.where(valid, _evidence(values, region & valid, near & ~region & valid), 0.0)
        log_odds = gaussian_filter(evidence + depth / OUTLINE_PRIOR_MM, OUTLINE_SMOOTHING_MM / grid.spacing_mm[0])
        log_odds = np.where(near, log_odds, -MAXIMUM_LOG_ODDS)
        largest = _largest_part(log_odds > 0)
        if np.array_equal(largest, region) or not largest.any():
            break
        region = largest
    # What is likely but not connected to the region is no gland: kept just below the boundary.
    log_odds = np.where(region, log_odds, np.minimum(log_odds, -0.1))
    return np.clip(log_odds, -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS).astype(np.float32)


def grid_around(ellipsoid: Ellipsoid) -> Geometry:
    """A fine patient-aligned grid that holds the ellipsoid and all its outline may reach."""
    reach = [axis + OUTLINE_LIMIT_MM + 2 * OUTLINE_SMOOTHING_MM for axis in ellipsoid.semi_axes_spl_mm]
    steps = np.ceil(np.asarray(reach) / OUTLINE_SPACING_MM).astype(int)
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = OUTLINE_SPACING_MM
    affine[:3, 3] = np.asarray(ellipsoid.centre_lps_mm) - OUTLINE_SPACING_MM * steps[::-1]
    affine[3, 3] = 1
    slices, rows, columns = (int(2 * n + 1) for n in steps)
    return Geometry(affine, (slices, rows, columns))


def _depth_mm(grid: Geometry, ellipsoid: Ellipsoid) -> NDArray[np.float64]:
    """Signed distance to the ellipsoid's surface in mm, positive inside (first order in the radius)."""
    centre = ellipsoid.centre_lps_mm[::-1]
    offsets = [axis - at for axis, at in zip(axes_spl_mm(grid), centre, strict=True)]
    radii = np.asarray(ellipsoid.semi_axes_spl_mm)
    return np.asarray((1 - ellipsoidal_radius(offsets, radii)) * float(np.prod(radii)) ** (1 / 3))


def _evidence(values: NDArray[np.float32], inside: NDArray[np.bool_], around: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Clipped log likelihood ratio of two Gaussians; what is brighter than the gland counts as gland."""
    if not inside.any() or not around.any():
        return np.zeros(values.shape)
    centre = float(np.median(values[inside]))
    spread = max(1.4826 * float(np.median(np.abs(values[inside] - centre))), MINIMUM_SPREAD)
    mean, sd = float(values[around].mean()), max(float(values[around].std()), MINIMUM_SPREAD)
    capped = np.minimum(values, centre)
    ratio = ((capped - mean) / sd) ** 2 / 2 - ((capped - centre) / spread) ** 2 / 2 + np.log(sd / spread)
    return np.clip(ratio, -MAXIMUM_LOG_ODDS, MAXIMUM_LOG_ODDS)


def _largest_part(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = label(region)
    if count == 0:
        return np.zeros(region.shape, bool)
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))
