"""A parametric male pelvis with prostate, zones and lesions: the object that the simulated scanner looks at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.simulation.canvas import Canvas
from ai.simulation.gland import Zone, paint_gland, paint_lesions, random_gland_size, random_lesion_volumes_ml
from ai.simulation.noise_fields import WavyField, ridges, smooth_noise
from ai.simulation.pelvis import PelvisShape, paint_pelvis
from ai.simulation.tissues import GLAND_TABLE, Tissue

EXTENT_MM = (200.0, 200.0, 200.0)
"""Edge lengths of the block of anatomy along z, y and x: more than any field of view here, so tissue can fold in."""
CENTRE_MM = (0.0, -5.0, 0.0)
"""Centre of the block seen from the gland's centre: a scan is planned a little in front of the gland."""
FINE_SPACING_MM = (1.0, 0.4, 0.4)
"""Grid of the label map: finer than any acquired voxel in its slice plane."""


@dataclass(frozen=True)
class Anatomy:
    """What is in the scanner.

    ``labels`` uint8 ``[z, y, x]`` holds ``Tissue`` values on a grid of ``spacing_mm``; its axes point superior,
    posterior and to the patient's left in the gland's own frame. ``grain`` and ``septa`` float32 vary the tissues on
    a grid twice as coarse. ``frame_to_lps`` (4 x 4) maps the frame's (x, y, z) in mm to LPS mm: the gland is tilted,
    so that images planned along it are slightly oblique.
    """

    seed: int
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    grain: NDArray[np.float32]
    septa: NDArray[np.float32]
    frame_to_lps: NDArray[np.float64]

    @property
    def centres_mm(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Voxel centres along z, y and x in mm from the gland's centre."""
        return _voxel_centres(self.labels.shape, self.spacing_mm)

    @property
    def gland(self) -> NDArray[np.bool_]:
        """The prostate, bool ``[z, y, x]``."""
        return GLAND_TABLE[self.labels]

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """All cancers, bool ``[z, y, x]``."""
        return np.asarray(self.labels == Tissue.LESION)


def random_anatomy(
    seed: int,
    with_lesion: bool = True,
    *,
    lesion_zone: Zone = Zone.PERIPHERAL,
    rectal_gas: bool = False,
    spacing_mm: tuple[float, float, float] = FINE_SPACING_MM,
) -> Anatomy:
    """A pelvis drawn from a seed: the same seed gives the same anatomy, with or without its lesions.

    Args:
        seed: any non-negative integer.
        with_lesion: plant cancers.
        lesion_zone: which zone they are in.
        rectal_gas: fill the rectum with gas, the cause of distortion in echo-planar images.
        spacing_mm: label grid along z, y, x; tests take a coarser one.

    Raises:
        ValueError: a negative seed, or a spacing that is not between 0.2 and 10 mm.
    """
    if seed < 0 or not all(0.2 <= edge <= 10.0 for edge in spacing_mm):
        raise ValueError(f"seed must not be negative and spacing within 0.2..10 mm, not {seed} and {spacing_mm}")
    streams = [np.random.default_rng([seed, stream]) for stream in range(6)]
    size = random_gland_size(streams[0])
    shape = PelvisShape.random(streams[1], rectal_gas)
    canvas = _empty_canvas(spacing_mm)
    paint_pelvis(canvas, shape, size, streams[1])
    paint_gland(canvas, size, streams[2])
    if with_lesion:
        paint_lesions(canvas, lesion_zone, random_lesion_volumes_ml(streams[3]), streams[3])
    grain, septa = _texture(canvas.labels.shape, spacing_mm, streams[5])
    return Anatomy(
        seed=seed,
        labels=_warped(canvas, streams[4]),
        spacing_mm=spacing_mm,
        grain=grain,
        septa=septa,
        frame_to_lps=_tilt(streams[4]),
    )


def _voxel_centres(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    z, y, x = (
        ((np.arange(n) - (n - 1) / 2) * step + centre).astype(np.float32)
        for n, step, centre in zip(shape, spacing_mm, CENTRE_MM, strict=True)
    )
    return z, y, x


def _empty_canvas(spacing_mm: tuple[float, float, float]) -> Canvas:
    shape = tuple(2 * round(extent / step / 2) for extent, step in zip(EXTENT_MM, spacing_mm, strict=True))
    return Canvas(np.zeros(shape, np.uint8), *_voxel_centres(shape, spacing_mm))


def _warped(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bend the geometric shapes smoothly within each plane, so that nothing is symmetric or straight."""
    bends = [WavyField(1.3, 38.0, 6, rng) for _ in range(2)]
    ripples = [WavyField(0.35, 9.0, 5, rng) for _ in range(2)]
    rows, columns = canvas.y_mm.size, canvas.x_mm.size
    steps = float(canvas.y_mm[1] - canvas.y_mm[0]), float(canvas.x_mm[1] - canvas.x_mm[0])
    row, column = np.arange(rows)[:, None], np.arange(columns)[None, :]
    warped = np.empty_like(canvas.labels)
    for plane, z in enumerate(canvas.z_mm):
        down, right = (
            bend.on_plane(float(z), canvas.y_mm, canvas.x_mm) + ripple.on_plane(float(z), canvas.y_mm, canvas.x_mm)
            for bend, ripple in zip(bends, ripples, strict=True)
        )
        source_row = np.clip(row + np.rint(down / steps[0]).astype(np.intp), 0, rows - 1)
        source_column = np.clip(column + np.rint(right / steps[1]).astype(np.intp), 0, columns - 1)
        warped[plane] = canvas.labels[plane][source_row, source_column]
    return warped


def _texture(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Grain (standard deviation about 1) and septa (0..1) on a grid twice as coarse as the labels."""
    coarse = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    sigma = [(size / (2 * z), size / (2 * y), size / (2 * x)) for size in (0.6, 2.2) for z, y, x in (spacing_mm,)]
    fine_grain, medium_grain = (smooth_noise(coarse, one, rng) for one in sigma)
    septa_sigma = (2.4 / (2 * spacing_mm[0]), 1.7 / (2 * spacing_mm[1]), 1.7 / (2 * spacing_mm[2]))
    septa = ridges(smooth_noise(coarse, septa_sigma, rng), 0.16)
    return (0.55 * fine_grain + 0.83 * medium_grain).astype(np.float32), septa


def _tilt(rng: np.random.Generator) -> NDArray[np.float64]:
    """The gland's frame in the patient: tilted 10 to 20 degrees about left-right, little otherwise."""
    pitch, roll, yaw = np.deg2rad([rng.uniform(10, 20), rng.uniform(-2, 2), rng.uniform(-3, 3)])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    frame = np.eye(4)
    frame[:3, :3] = about_z @ about_y @ about_x
    frame[:3, 3] = [rng.uniform(-4, 4), rng.uniform(10, 30), rng.uniform(-60, -20)]
    return frame
