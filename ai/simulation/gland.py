"""The prostate itself: zones, nodules, urethra, capsule and cancer, as parametric shapes.

Volumes and counts follow the figures of 219 public cases with clinically significant cancer (PI-CAI; log-normal fits
of gland and lesion volume, and number of lesions).
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.simulation.canvas import Canvas
from ai.simulation.noise_fields import smooth_noise
from ai.simulation.pelvis import GlandSize
from ai.simulation.tissues import Tissue

GLAND_VOLUME_LOG_ML = (3.805, 0.397)
"""Mean and standard deviation of ln(gland volume / ml) in the 219 cases."""
GLAND_VOLUME_RANGE_ML = (25.0, 88.0)
"""Their 5th and 95th percentile: beyond it the shapes here would not fit their surroundings."""
LESION_VOLUME_LOG_ML = (0.312, 1.175)
"""Mean and standard deviation of ln(lesion volume / ml) of the 233 lesions."""
LESION_VOLUME_RANGE_ML = (0.5, 3.0)
"""0.5 ml is the classic volume of a significant cancer; 3.0 ml their 75th percentile: larger ones leave their zone."""
SHAPE_OVER_ELLIPSOID = 1.05
"""Volume of the shape painted here over that of the ellipsoid with the same half axes (mean of eight seeds)."""
AXIS_RATIOS = (1.0, 0.70, 0.86)
"""Left-right, anterior-posterior, cranio-caudal extent of a typical gland, relative."""


class Zone(StrEnum):
    """Where a lesion lies."""

    PERIPHERAL = "peripheral"
    TRANSITION = "transition"


ZONE_TISSUES = {
    Zone.PERIPHERAL: (Tissue.PERIPHERAL_ZONE, Tissue.CAPSULE),
    Zone.TRANSITION: (Tissue.TRANSITION_ZONE, Tissue.GLANDULAR_NODULE, Tissue.STROMAL_NODULE),
}


def random_gland_size(rng: np.random.Generator) -> GlandSize:
    """Half axes of a gland whose volume follows the cases' log-normal, within their 5th to 95th percentile."""
    volume_ml = float(np.clip(rng.lognormal(*GLAND_VOLUME_LOG_ML), *GLAND_VOLUME_RANGE_ML))
    ratios = np.asarray(AXIS_RATIOS) * rng.uniform(0.95, 1.05, 3)
    left_right, anterior_posterior, cranio_caudal = ratios * np.cbrt(
        1000 * volume_ml / (4 / 3 * np.pi * SHAPE_OVER_ELLIPSOID * np.prod(ratios))
    )
    return GlandSize(float(left_right), float(anterior_posterior), float(cranio_caudal))


def random_lesion_volumes_ml(rng: np.random.Generator) -> tuple[float, ...]:
    """Volumes of the lesions of one patient: one in 204 of 219 cases, else two, within the range that fits a zone."""
    count = 1 if rng.random() < 204 / 219 else 2
    volumes = np.clip(rng.lognormal(*LESION_VOLUME_LOG_ML, count), *LESION_VOLUME_RANGE_ML)
    return tuple(sorted((float(volume) for volume in volumes), reverse=True))


def paint_gland(canvas: Canvas, size: GlandSize, rng: np.random.Generator) -> None:
    """Paint capsule, zones, nodules, stroma and urethra."""
    reach = (1.25 * size.left_right_mm, 1.2 * size.anterior_posterior_mm, 1.1 * size.cranio_caudal_mm)
    part = canvas.view((-reach[0], -reach[1], -reach[2]), reach)
    z, y, x = part.open_grid
    u, v, w = x / size.left_right_mm, y / size.anterior_posterior_mm, z / size.cranio_caudal_mm
    radius = _gland_radius(u, v, w)
    part.paint(Tissue.CAPSULE, radius < 1)
    part.paint(Tissue.PERIPHERAL_ZONE, radius < 1 - 1.0 / size.left_right_mm)
    transition = _transition_radius(u, v, w, size)
    inside = radius < 0.94
    part.paint(Tissue.CAPSULE, inside & (transition < 1))  # the surgical pseudo-capsule
    part.paint(Tissue.TRANSITION_ZONE, inside & (transition < 0.94))
    _paint_nodules(part, size, rng)
    stroma = (np.abs(u) < 0.10 + 0.33 * np.clip(-v - 0.35, 0, 1)) & (v < -0.38) & (w > -0.75) & (radius < 1)
    part.paint(Tissue.FIBROMUSCULAR_STROMA, stroma)
    _paint_urethra(part, size)


def _gland_radius(u: NDArray[np.float32], v: NDArray[np.float32], w: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalised distance from the gland's centre: 1 at the capsule. Tapers to the apex, hollow behind."""
    across = np.abs(u) / (1 + 0.17 * w)
    groove = 1 - 0.10 * np.exp(-((u / 0.35) ** 2))
    depth = np.where(v > 0, v / (0.97 * groove), v / (1 + 0.05 * w))
    power = 2.25
    return np.asarray((across**power + np.abs(depth) ** power + np.abs(w) ** power) ** (1 / power))


def _transition_radius(
    u: NDArray[np.float32], v: NDArray[np.float32], w: NDArray[np.float32], size: GlandSize
) -> NDArray[np.float32]:
    """Two lobes around the urethra; hyperplasia grows them with the gland."""
    growth = np.clip(size.left_right_mm / 27.0, 0.90, 1.12)
    lobe = np.maximum(np.abs(u) - 0.20, 0) / (0.45 * growth)
    return np.asarray(np.sqrt(lobe**2 + ((v + 0.24) / (0.62 * growth)) ** 2 + ((w - 0.18) / (0.72 * growth)) ** 2))


def _paint_nodules(part: Canvas, size: GlandSize, rng: np.random.Generator) -> None:
    """Hyperplastic nodules: glandular (bright) and stromal (dark), each with a thin dark rim."""
    candidates = np.argwhere(part.labels == Tissue.TRANSITION_ZONE)
    count = int(6 + size.left_right_mm * 0.45)
    for index in candidates[rng.integers(0, len(candidates), count)]:
        centre = (float(part.x_mm[index[2]]), float(part.y_mm[index[1]]), float(part.z_mm[index[0]]))
        radius = float(np.clip(rng.lognormal(1.35, 0.35), 2.0, 0.28 * size.left_right_mm))
        radii = (radius * rng.uniform(0.8, 1.2), radius * rng.uniform(0.8, 1.2), radius * rng.uniform(0.9, 1.3))
        tissue = Tissue.GLANDULAR_NODULE if rng.random() < 0.6 else Tissue.STROMAL_NODULE
        box = part.view(
            (centre[0] - radii[0], centre[1] - radii[1], centre[2] - radii[2]),
            (centre[0] + radii[0], centre[1] + radii[1], centre[2] + radii[2]),
        )
        free = np.isin(box.labels, (Tissue.TRANSITION_ZONE, Tissue.GLANDULAR_NODULE, Tissue.STROMAL_NODULE))
        distance = np.sqrt(box.ellipsoid(centre, radii))
        box.paint(Tissue.CAPSULE, free & (distance < 1))
        box.paint(tissue, free & (distance < 1 - 0.6 / radius))


def _paint_urethra(part: Canvas, size: GlandSize) -> None:
    z, y, x = part.open_grid
    centre_y = size.anterior_posterior_mm * (0.02 - 0.25 * np.clip(z / size.cranio_caudal_mm, 0, 1))
    distance = np.hypot(x, y - centre_y)
    gland = np.isin(
        part.labels, (Tissue.PERIPHERAL_ZONE, Tissue.TRANSITION_ZONE, Tissue.CAPSULE, Tissue.GLANDULAR_NODULE)
    )
    part.paint(Tissue.FIBROMUSCULAR_STROMA, gland & (distance < 4.2))
    inside = np.isin(part.labels, (Tissue.FIBROMUSCULAR_STROMA,))
    part.paint(Tissue.URETHRA, inside & (distance < 2.0))


def paint_lesions(canvas: Canvas, zone: Zone, volumes_ml: Sequence[float], rng: np.random.Generator) -> None:
    """Paint cancers of given volumes in one zone; each keeps to its zone and takes its exact volume there.

    A lesion never takes more than a quarter of what its zone has left.
    """
    for volume_ml in volumes_ml:
        part = canvas.view((-45, -40, -40), (45, 40, 40))
        allowed = np.isin(part.labels, ZONE_TISSUES[zone])
        spacing_mm = tuple(float(np.diff(axis[:2])[0]) for axis in (part.z_mm, part.y_mm, part.x_mm))
        voxel_ml = float(np.prod(spacing_mm)) / 1000.0
        voxels = int(min(volume_ml / voxel_ml, 0.25 * allowed.sum()))
        centre = _lesion_centre(part, allowed, spacing_mm, rng)
        distance = _lesion_distance(part, centre, rng)
        distance[~allowed] = np.inf
        limit = np.partition(distance, voxels, axis=None)[voxels]
        part.paint(Tissue.LESION, distance < limit)


def _lesion_centre(
    part: Canvas, allowed: NDArray[np.bool_], spacing_mm: tuple[float, ...], rng: np.random.Generator
) -> tuple[float, float, float]:
    """A point well inside the zone, in the middle half of the gland from apex to base."""
    depth = ndimage.distance_transform_edt(allowed, sampling=spacing_mm)
    z, _, _ = part.open_grid
    height = np.abs(z) < 0.5 * np.abs(part.z_mm[np.any(allowed, axis=(1, 2))]).max()
    depth = np.where(height, depth, 0)
    candidates = np.argwhere(depth > 0.6 * depth.max())
    index = candidates[rng.integers(len(candidates))]
    return float(part.x_mm[index[2]]), float(part.y_mm[index[1]]), float(part.z_mm[index[0]])


def _lesion_distance(part: Canvas, centre: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.float32]:
    """Distance from a lesion's centre, stretched and roughened so that the lesion's edge is irregular."""
    stretch = rng.uniform(0.8, 1.25, 3)
    distance = np.sqrt(part.ellipsoid(centre, (float(stretch[0]), float(stretch[1]), float(stretch[2]))))
    rough = smooth_noise(part.labels.shape, (2.5, 6.0, 6.0), rng)
    return np.asarray(distance * (1 + 0.13 * rough), np.float32)
