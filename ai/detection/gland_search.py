"""Finds the ellipsoid of gland-like proportions that stands out most from its surroundings, and the midline.

A matched filter: Cohen's d between an ellipsoid and the shell around it, for every place and nine sizes, with weak
log priors on size and place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from ai.volumes.types import Geometry

GLAND_LOG_VOLUME_MEAN_SD = (3.805, 0.397)
"""Natural logarithm of the gland volume in ml: mean and standard deviation of 219 public csPCa cases."""

SEMI_AXIS_RATIOS_SPL = (1.08, 0.90, 1.10)
"""Semi-axes along S, P and L over the radius of the sphere of equal volume: medians of the second moments of the 32
gland label maps of the Medical Segmentation Decathlon, task 5."""

CENTRE_PRIOR_SD_MM = (8.0, 13.0, 7.0)
"""How far the gland's centre lies from the middle of the field of view (S, P) and from the symmetry axis (L): twice
the scatter about the field of view in those label maps, because another site may plan its slices less carefully."""

PRIOR_WEIGHT = 0.15
"""Contrast (in standard deviations) that one unit of log prior is worth; chosen so that a gland two prior standard
deviations away still wins against any structure with 0.3 less contrast."""

SHELL_MM = 8.0
"""Thickness of the surroundings an ellipsoid is compared with: levator ani and periprostatic fat, not the hips."""

MINIMUM_INSIDE_SHARE = 0.85
"""An ellipsoid may leave the imaged volume by no more than this, or its contrast is measured on a remnant."""

MIDLINE_REACH_MM = 30.0
"""The symmetry plane is looked for this far to either side of the middle of the field of view."""


@dataclass(frozen=True)
class Ellipsoid:
    """A patient-aligned ellipsoid: centre in LPS mm, semi-axes along S, P and L in mm, and how well it fits."""

    centre_lps_mm: tuple[float, float, float]
    semi_axes_spl_mm: tuple[float, float, float]
    contrast: float
    """Cohen's d between its inside and the shell around it."""


def symmetry_midline_mm(image: NDArray[np.float32], grid: Geometry) -> float:
    """LPS x of the plane about which an image is most symmetric from left to right.

    The mirrored image is shifted against the image; the shift of the best match (per overlapping voxel) is twice the
    plane's distance from the middle of the grid.

    Args:
        image: ``[slice, row, column]`` on a patient-aligned isotropic ``grid``, NaN outside the images.
    """
    valid = np.isfinite(image)
    centred = np.where(valid, image - (image[valid].mean() if valid.any() else 0.0), 0.0)
    overlap = _mirror_match(valid.astype(np.float64))
    width = grid.shape[2]
    shift = np.arange(1 - width, width)
    near = np.abs(shift) * grid.spacing_mm[2] / 2 <= MIDLINE_REACH_MM
    match = np.where(near, _mirror_match(centred) / np.maximum(overlap, 1.0), -np.inf)
    middle = (width - 1 + shift[int(np.argmax(match))]) / 2
    return float(grid.to_lps_mm(np.array([[0.0, 0.0, middle]]))[0, 0])


def find_ellipsoid(feature: NDArray[np.float32], grid: Geometry, midline_mm: float) -> Ellipsoid | None:
    """The ellipsoid of anatomical proportions that stands out most.

    Args:
        feature: float32 ``[slice, row, column]`` on a patient-aligned isotropic ``grid``, NaN outside the images.
        midline_mm: LPS x of the patient's symmetry plane.

    Returns:
        None where no ellipsoid lies inside the images.
    """
    spacing = grid.spacing_mm[0]
    valid = np.isfinite(feature)
    values = np.where(valid, feature, 0.0)
    moments = (valid.astype(np.float64), values.astype(np.float64), np.square(values, dtype=np.float64))
    place = _place_log_prior(grid, midline_mm)
    best: tuple[float, Ellipsoid] | None = None
    for deviate in np.linspace(-2.0, 2.0, 9):
        semi_axes = _semi_axes_mm(float(deviate))
        contrast = _contrast(moments, semi_axes, spacing)
        score = contrast + PRIOR_WEIGHT * (place - deviate**2 / 2)
        peak = np.unravel_index(int(np.argmax(score)), score.shape)
        if np.isfinite(score[peak]) and (best is None or score[peak] > best[0]):
            x, y, z = grid.to_lps_mm(np.array([peak], np.float64))[0]
            found = Ellipsoid((float(x), float(y), float(z)), semi_axes, float(contrast[peak]))
            best = (float(score[peak]), found)
    return None if best is None else best[1]


def axes_spl_mm(grid: Geometry) -> list[NDArray[np.float64]]:
    """The S, P and L coordinate of every voxel of a patient-aligned grid, as broadcastable axes."""
    start = grid.affine_lps_mm[:3, 3][::-1]
    steps = [np.arange(size) * spacing for size, spacing in zip(grid.shape, grid.spacing_mm, strict=True)]
    s, p, left = (np.asarray(first + step, np.float64) for first, step in zip(start, steps, strict=True))
    return [s[:, None, None], p[None, :, None], left[None, None, :]]


def ellipsoidal_radius(offsets: list[NDArray[np.float64]], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ellipsoidal radius: 1 on the surface."""
    return np.asarray(np.sqrt(sum((offset / radius) ** 2 for offset, radius in zip(offsets, radii, strict=True))))


def _mirror_match(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of an image with its left-right mirror for every shift along columns, summed over slices and rows."""
    spectrum = np.fft.rfft(image, 2 * image.shape[2] - 1, axis=2)
    mirrored = np.fft.rfft(image[:, :, ::-1], 2 * image.shape[2] - 1, axis=2)
    power = (spectrum * np.conj(mirrored)).sum(axis=(0, 1))
    return np.fft.fftshift(np.fft.irfft(power, 2 * image.shape[2] - 1))


def _semi_axes_mm(deviate: float) -> tuple[float, float, float]:
    """Semi-axes of a gland whose log volume lies ``deviate`` standard deviations from the mean."""
    mean, sd = GLAND_LOG_VOLUME_MEAN_SD
    radius = (float(np.exp(mean + sd * deviate)) * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1 / 3)
    scale = radius / float(np.prod(SEMI_AXIS_RATIOS_SPL)) ** (1 / 3)
    s, p, left = (scale * ratio for ratio in SEMI_AXIS_RATIOS_SPL)
    return s, p, left


def _contrast(
    moments: tuple[NDArray[np.float64], ...], semi_axes: tuple[float, float, float], spacing: float
) -> NDArray[np.float64]:
    """Cohen's d between ellipsoid and shell for every centre; minus infinity where too little of it is imaged."""
    radii = np.asarray(semi_axes)
    reach = np.ceil((radii + SHELL_MM) / spacing).astype(int)
    axes = list(np.meshgrid(*[np.arange(-n, n + 1) * spacing for n in reach], indexing="ij"))
    inner = ellipsoidal_radius(axes, radii) <= 1
    shell = (ellipsoidal_radius(axes, radii + SHELL_MM) <= 1) & ~inner
    sums = [[fftconvolve(m, kernel.astype(np.float64), mode="same") for m in moments] for kernel in (inner, shell)]
    counts = [np.maximum(s[0], 1.0) for s in sums]
    means = [s[1] / n for s, n in zip(sums, counts, strict=True)]
    variances = [s[2] / n - mean**2 for s, n, mean in zip(sums, counts, means, strict=True)]
    pooled = np.sqrt(np.maximum((variances[0] + variances[1]) / 2, 1e-4))
    imaged = (sums[0][0] >= MINIMUM_INSIDE_SHARE * inner.sum()) & (sums[1][0] >= shell.sum() / 2)
    return np.where(imaged, (means[0] - means[1]) / pooled, -np.inf)


def _place_log_prior(grid: Geometry, midline_mm: float) -> NDArray[np.float64]:
    centre = grid.to_lps_mm((np.asarray([grid.shape], np.float64) - 1) / 2)[0]
    anchor = (float(centre[2]), float(centre[1]), midline_mm)
    return np.asarray(
        -sum(
            ((axis - at) / sd) ** 2 / 2
            for axis, at, sd in zip(axes_spl_mm(grid), anchor, CENTRE_PRIOR_SD_MM, strict=True)
        )
    )
