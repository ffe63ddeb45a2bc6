"""What surrounds the prostate in a male pelvis, as parametric shapes (no patient's data).

Positions were set by eye against textbook anatomy at the level of the gland; they carry a random variation per seed.
"""

from dataclasses import dataclass

import numpy as np

from ai.simulation.canvas import Canvas, Coordinates
from ai.simulation.tissues import Tissue

PERIPROSTATIC_VESSELS = 130
"""How many are painted; chosen by eye."""


@dataclass(frozen=True)
class GlandSize:
    """Half axes of the gland in mm: left-right, anterior-posterior, cranio-caudal."""

    left_right_mm: float
    anterior_posterior_mm: float
    cranio_caudal_mm: float


@dataclass(frozen=True)
class PelvisShape:
    """How this pelvis differs from the average one. Lengths in mm."""

    scale: float
    skin_mm: float
    bladder_radius_mm: float
    rectum_radius_mm: float
    rectal_gas_radius_mm: float
    """0: the rectum holds stool only."""

    @staticmethod
    def random(rng: np.random.Generator, rectal_gas: bool) -> "PelvisShape":
        """Draw a shape; ranges span adult men without pathology, chosen by eye."""
        return PelvisShape(
            scale=float(rng.uniform(0.95, 1.06)),
            skin_mm=float(rng.uniform(-96, -86)),
            bladder_radius_mm=float(rng.uniform(25, 36)),
            rectum_radius_mm=float(rng.uniform(12, 15)),
            rectal_gas_radius_mm=float(rng.uniform(12, 16)) if rectal_gas else 0.0,
        )


def paint_pelvis(canvas: Canvas, shape: PelvisShape, gland: GlandSize, rng: np.random.Generator) -> None:
    """Paint everything but the gland; fat fills the body."""
    _paint_body(canvas, shape)
    _paint_muscles(canvas, shape)
    _paint_bones(canvas, shape)
    _paint_obturator(canvas, shape)
    _paint_vessels(canvas, shape)
    _paint_bladder_and_vesicles(canvas, shape, gland)
    _paint_levator(canvas, gland)
    _paint_rectum(canvas, shape, gland)
    _paint_below_apex(canvas, gland)
    _paint_periprostatic_vessels(canvas, gland, rng)


def _paint_body(canvas: Canvas, shape: PelvisShape) -> None:
    _, y, x = canvas.open_grid
    canvas.paint(Tissue.FAT, y > shape.skin_mm + 0.0016 * x**2)


def _paint_muscles(canvas: Canvas, shape: PelvisShape) -> None:
    s = shape.scale
    canvas.paint_both_sides(Tissue.MUSCLE, (70 * s, 86 * s, -5), (64, 30, 115))  # gluteus maximus
    canvas.paint_both_sides(Tissue.MUSCLE, (13, shape.skin_mm + 22, 40), (13.5, 6, 90))  # rectus abdominis
    canvas.paint_both_sides(Tissue.MUSCLE, (60 * s, -46 * s, -58), (36, 24, 42))  # obturator externus, adductors
    canvas.paint_both_sides(Tissue.MUSCLE, (84 * s, -46 * s, 10), (24, 17, 55))  # iliopsoas, pectineus
    canvas.paint_ellipsoid(Tissue.MUSCLE, (0, 72, -30), (5, 16, 34))  # anococcygeal raphe
    for x, y, z, r in ((20, -40, 84, 13), (-16, -18, 90, 14), (2, -52, 70, 10), (-34, -44, 78, 11), (38, -10, 88, 12)):
        canvas.paint_ellipsoid(Tissue.BOWEL, (x, y, z), (1.5 * r, r, r), (Tissue.BLADDER_WALL, 2.0))


def _paint_bones(canvas: Canvas, shape: PelvisShape) -> None:
    s = shape.scale
    cortex = (Tissue.CORTEX, 1.6)
    for step in np.linspace(0, 1, 9):  # superior ramus, from the symphysis to the acetabulum
        centre = (s * (15 + 55 * step), s * (-51 + 26 * step), -34 + 42 * step)
        canvas.paint_both_sides(Tissue.CORTEX, centre, (14, 12, 14))
    for step in np.linspace(0, 1, 9):
        centre = (s * (15 + 55 * step), s * (-51 + 26 * step), -34 + 42 * step)
        canvas.paint_both_sides(Tissue.MARROW, centre, (12.4, 10.4, 12.4))
    canvas.paint_both_sides(Tissue.MARROW, (73 * s, 2, 10), (18, 31, 38), cortex)  # acetabulum
    canvas.paint_both_sides(Tissue.MARROW, (67 * s, 36, -30), (16, 17, 40), cortex)  # ischium and its tuberosity
    canvas.paint_both_sides(Tissue.CORTEX, (97 * s, -8, 14), (28, 28, 28))  # joint space and labrum
    canvas.paint_both_sides(Tissue.MARROW, (97 * s, -8, 14), (25, 25, 25), (Tissue.CORTEX, 1.2))  # femoral head
    for y, z, r in ((78, 22, 6), (84, 40, 9), (82, 62, 12), (76, 88, 15)):  # coccyx and sacrum
        canvas.paint_ellipsoid(Tissue.MARROW, (0, y, z), (2.2 * r, r, 11), cortex)
    symphysis = canvas.view((-2.2, -68 * s, -56), (2.2, -36 * s, -14))
    symphysis.paint(Tissue.CORTEX, symphysis.labels == Tissue.MARROW)


def _paint_obturator(canvas: Canvas, shape: PelvisShape) -> None:
    """Obturator internus: the dark band along the pelvic side wall, turning outwards behind the ischium."""
    s = shape.scale
    for side in (-1, 1):
        low, high = sorted((side * 34.0 * s, side * 78.0 * s))
        part = canvas.view((low, -46 * s, -52), (high, 50 * s, 34))
        z, y, x = part.open_grid
        medial = s * (40 + 0.0045 * (y + 4) ** 2 + 0.004 * (z + 8) ** 2)
        thickness = 19.0 * s * np.clip(1.15 - ((y + 2) / (52 * s)) ** 2, 0, 1) * np.clip((36 - z) / 25, 0, 1)
        part.paint(Tissue.MUSCLE, (np.abs(x) > medial) & (np.abs(x) < medial + thickness))


def _paint_vessels(canvas: Canvas, shape: PelvisShape) -> None:
    s = shape.scale
    for side in (-1.0, 1.0):
        for centre_x, centre_y, radius in ((66, -66, 5.2), (54, -64, 5.8), (47, 12, 1.6), (50, 16, 1.4), (45, 5, 1.2)):
            _paint_vessel(canvas, (side * centre_x * s, centre_y * s), radius)


def _paint_vessel(canvas: Canvas, centre: tuple[float, float], radius: float) -> None:
    def path(z: Coordinates) -> tuple[Coordinates, Coordinates]:
        return centre[0] + 2.5 * np.sin(z / 23 + centre[1]), centre[1] + 2.5 * np.cos(z / 19)

    def widths(share: float, z: Coordinates) -> tuple[Coordinates, Coordinates]:
        return np.full_like(z, share * radius), np.full_like(z, share * radius)

    canvas.paint_tube(Tissue.BLADDER_WALL, path, lambda z: widths(1.0, z), (-90, 90))
    canvas.paint_tube(Tissue.VESSEL_FLOW_VOID, path, lambda z: widths(0.8, z), (-90, 90))


def _paint_bladder_and_vesicles(canvas: Canvas, shape: PelvisShape, gland: GlandSize) -> None:
    radius = shape.bladder_radius_mm
    base = gland.cranio_caudal_mm
    centre = (0.0, -16.0, base + 0.72 * radius - 4)
    radii = (1.18 * radius, 0.92 * radius, 0.86 * radius)
    canvas.paint_ellipsoid(Tissue.URINE, centre, radii, (Tissue.BLADDER_WALL, 3.6))
    behind = 0.55 * gland.anterior_posterior_mm + 5
    for step in np.linspace(0, 1, 6):
        centre = (6 + 22 * step, behind + 4 * step, base + 2 + 9 * step)
        canvas.paint_both_sides(Tissue.SEMINAL_VESICLE, centre, (6.0, 4.6 - step, 5.0))
    canvas.paint_both_sides(Tissue.BLADDER_WALL, (3.0, behind, base + 7), (2.4, 2.4, 12))  # vas deferens


def _paint_levator(canvas: Canvas, gland: GlandSize) -> None:
    """Levator ani: a thin funnel around gland and rectum, narrow below the apex."""
    part = canvas.view((-60, -40, -48), (60, 70, 16))
    z, y, x = part.open_grid
    half_width = gland.left_right_mm + 5.0 + 0.32 * np.minimum(z, 0)
    half_depth = gland.anterior_posterior_mm + 22 + 0.2 * np.minimum(z, 0)
    radius = (np.abs(x / half_width) ** 1.7 + np.abs((y - 9) / half_depth) ** 1.7) ** (1 / 1.7)
    sheet = (np.abs(radius - 1) * half_width < 1.0 + 0.04 * np.clip(y, 0, 40)) & (y > -14)
    part.paint(Tissue.MUSCLE, sheet & (part.labels == Tissue.FAT))


def _paint_rectum(canvas: Canvas, shape: PelvisShape, gland: GlandSize) -> None:
    behind = gland.anterior_posterior_mm + shape.rectum_radius_mm - 1.2
    apex = -gland.cranio_caudal_mm

    def path(z: Coordinates) -> tuple[Coordinates, Coordinates]:
        sideways = 5 * np.sin(z / 30)
        return sideways, behind + 16 * np.sin(np.clip((z - 5) / 70, 0, 1) * np.pi) + 0.1 * np.minimum(z - apex, 0)

    def radius(share: float) -> tuple[float, float, float]:
        return share * 1.12 * shape.rectum_radius_mm, share * shape.rectum_radius_mm, share * 10.5

    def widths(share: float, z: Coordinates) -> tuple[Coordinates, Coordinates]:
        wide, deep, canal = radius(share)
        opening = 1 / (1 + np.exp(-(z - apex) / 4))  # the anal canal is narrow, the ampulla wide
        return canal + (wide - canal) * opening, canal + (deep - canal) * opening

    canvas.paint_tube(Tissue.RECTAL_WALL, path, lambda z: widths(1.0, z), (-70, 100))
    canvas.paint_tube(Tissue.STOOL, path, lambda z: widths(0.72, z), (apex + 2, 100))
    canvas.paint_tube(Tissue.SEMINAL_VESICLE, path, lambda z: widths(0.10, z), (-66, apex + 2))  # mucosa of the canal
    if shape.rectal_gas_radius_mm > 0:
        radii = (1.15 * shape.rectal_gas_radius_mm, shape.rectal_gas_radius_mm, 1.4 * shape.rectal_gas_radius_mm)
        centre = (0.0, gland.anterior_posterior_mm + 2.0 + radii[1], 2.0)
        wall = (radii[0] + 2.5, radii[1] + 2.5, radii[2] + 2.5)
        canvas.paint_ellipsoid(Tissue.RECTAL_GAS, centre, wall, (Tissue.RECTAL_WALL, 2.5))


def _paint_below_apex(canvas: Canvas, gland: GlandSize) -> None:
    apex = -gland.cranio_caudal_mm
    canvas.paint_ellipsoid(Tissue.MUSCLE, (0, 0, apex - 8), (9.5, 9.5, 13))  # external sphincter
    canvas.paint_ellipsoid(Tissue.URETHRA, (0, 0, apex - 8), (2.2, 2.2, 14))
    canvas.paint_ellipsoid(Tissue.VENOUS_PLEXUS, (0, -4, apex - 28), (10, 13, 9))  # bulb of the penis
    canvas.paint_both_sides(Tissue.VENOUS_PLEXUS, (22, -14, apex - 34), (6, 16, 8))  # crura
    front = -gland.anterior_posterior_mm - 5
    canvas.paint_ellipsoid(Tissue.VENOUS_PLEXUS, (0, front + 1, -8), (15, 4.5, 12))  # dorsal venous complex
    canvas.paint_both_sides(
        Tissue.VENOUS_PLEXUS, (gland.left_right_mm + 1.5, 4, 0), (2.6, 8, 12)
    )  # lateral periprostatic veins


def _paint_periprostatic_vessels(canvas: Canvas, gland: GlandSize, rng: np.random.Generator) -> None:
    """Small veins and arteries in the fat in front of and beside the gland, and the two neurovascular bundles."""
    half_axes = np.array([gland.left_right_mm, gland.anterior_posterior_mm, gland.cranio_caudal_mm])
    for _ in range(PERIPROSTATIC_VESSELS):
        angle = rng.uniform(-np.pi, 0) if rng.random() < 0.6 else rng.choice([0.25, np.pi - 0.25]) + rng.normal(0, 0.3)
        height = rng.uniform(-0.9, 0.9)
        around = np.array([np.cos(angle), np.sin(angle), height]) * half_axes * rng.uniform(1.12, 1.6)
        radius = rng.uniform(0.7, 1.8)
        centre = (float(around[0]), float(around[1]), float(around[2]))
        radii = (radius, radius, radius * rng.uniform(1.5, 4.0))
        part = canvas.view(
            (centre[0] - radii[0], centre[1] - radii[1], centre[2] - radii[2]),
            (centre[0] + radii[0], centre[1] + radii[1], centre[2] + radii[2]),
        )
        tissue = Tissue.VENOUS_PLEXUS if rng.random() < 0.35 else Tissue.BLADDER_WALL  # vessel walls are as dark
        part.paint(tissue, (part.ellipsoid(centre, radii) < 1) & (part.labels == Tissue.FAT))
