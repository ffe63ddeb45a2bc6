"""A pelvis in closed form, sampled on any grid, and the real studies with their evaluation masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from ai.detection.types import Diffusion
from ai.volumes.assemble import assemble
from ai.volumes.geometry import resample
from ai.volumes.load import DicomFileSource
from ai.volumes.types import Acquisition, Assembly, Geometry, Stack, Volume

B_S_PER_MM2 = 1400.0


def make_geometry(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    centre_lps_mm: Sequence[float] = (0.0, 0.0, 0.0),
    flips: tuple[bool, bool, bool] = (False, False, False),
    tilt_deg: float = 0.0,
) -> Geometry:
    """An axial grid; ``flips`` turn index directions round, ``tilt_deg`` rotates about the left-right axis."""
    angle = np.radians(tilt_deg)
    posterior = np.array([0.0, np.cos(angle), np.sin(angle)])
    superior = np.array([0.0, -np.sin(angle), np.cos(angle)])
    axes = [superior, posterior, np.array([1.0, 0.0, 0.0])]
    affine = np.eye(4)
    for column, (axis, spacing, flip) in enumerate(zip(axes, spacing_mm, flips, strict=True)):
        affine[:3, column] = axis * spacing * (-1 if flip else 1)
    affine[:3, 3] = np.asarray(centre_lps_mm) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(affine, shape)


def make_stack(geometry: Geometry, volume_id: str = "t2") -> Stack:
    return Stack(
        volume_id=volume_id,
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        frame_of_reference_uid="1.2.4",
        acquisition=Acquisition("MR"),
        rows=geometry.shape[1],
        columns=geometry.shape[2],
        slices=(),
        slice_indices=(),
        geometry=geometry,
        plane="axial",
    )


@dataclass(frozen=True)
class Phantom:
    """An ellipsoidal gland in muscle, in an elliptic body with fat at its rim; perhaps a ball-shaped lesion.

    Noise is a fixed pattern in patient space, so that any grid sees the same patient.
    """

    gland_centre_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gland_semi_axes_lps_mm: tuple[float, float, float] = (24.0, 19.0, 23.0)
    lesion_centre_lps_mm: tuple[float, float, float] | None = None
    lesion_radius_mm: float = 6.0
    body_centre_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def sample(self, t2: Geometry, dwi: Geometry, seed: int = 7) -> tuple[Volume, Diffusion]:
        fat, gland, lesion = (where(t2) for where in (self.fat, self.gland, self.lesion))
        signal = np.select([lesion, gland, fat], [110.0, 200.0, 450.0], 70.0) + noise(t2, seed, 15.0)
        fat, gland, lesion = (where(dwi) for where in (self.fat, self.gland, self.lesion))
        adc = np.select([lesion, gland, fat], [700.0, 1500.0, 300.0], 1250.0)
        s0 = np.select([lesion, gland, fat], [100.0, 100.0, 5.0], 30.0)
        high_b = s0 * np.exp(-B_S_PER_MM2 * adc * 1e-6) + noise(dwi, seed + 1, 1.0)
        adc = adc + noise(dwi, seed + 2, 80.0)
        volume = Volume(make_stack(t2), signal.astype(np.float32))
        return volume, Diffusion(dwi, adc.astype(np.float32), high_b.astype(np.float32), B_S_PER_MM2)

    def gland(self, grid: Geometry) -> NDArray[np.bool_]:
        return radius(grid, self.gland_centre_lps_mm, self.gland_semi_axes_lps_mm) <= 1

    def lesion(self, grid: Geometry) -> NDArray[np.bool_]:
        if self.lesion_centre_lps_mm is None:
            return np.zeros(grid.shape, bool)
        return radius(grid, self.lesion_centre_lps_mm, (self.lesion_radius_mm,) * 3) <= 1

    def fat(self, grid: Geometry) -> NDArray[np.bool_]:
        return radius(grid, self.body_centre_lps_mm, (65.0, 55.0, 1000.0)) > 1


def radius(grid: Geometry, centre: Sequence[float], semi_axes: Sequence[float]) -> NDArray[np.float64]:
    index = np.indices(grid.shape).reshape(3, -1).T.astype(np.float64)
    offset = (grid.to_lps_mm(index) - np.asarray(centre)) / np.asarray(semi_axes)
    return np.asarray(np.linalg.norm(offset, axis=1).reshape(grid.shape))


def noise(grid: Geometry, seed: int, sd: float) -> NDArray[np.float64]:
    """White noise on a fixed 3 x 2 x 2 mm patient grid, looked up by nearest neighbour."""
    lattice = make_geometry((60, 120, 120), (3.0, 2.0, 2.0))
    values = np.random.default_rng(seed).normal(0.0, sd, lattice.shape).astype(np.float32)
    return np.asarray(resample(values, lattice, grid, 0, 0.0), np.float64)


@pytest.fixture(scope="session")
def geometry_of() -> Callable[..., Geometry]:
    return make_geometry


@pytest.fixture(scope="session")
def stack_of() -> Callable[..., Stack]:
    return make_stack


@pytest.fixture(scope="session")
def phantom() -> type[Phantom]:
    return Phantom


@pytest.fixture(scope="session")
def grids() -> tuple[Geometry, Geometry]:
    """A T2 and a diffusion grid of the usual kind, coarser in plane than real ones to be quick."""
    return make_geometry((24, 140, 140), (3.0, 1.0, 1.0)), make_geometry((24, 80, 80), (3.0, 2.0, 2.0))


@dataclass(frozen=True)
class Case:
    assembly: Assembly
    source: DicomFileSource
    labels: Path

    def mask(self, pattern: str, grid: Geometry) -> NDArray[np.bool_]:
        """An evaluation mask (NIfTI, RAS) on an LPS grid."""
        (path,) = self.labels.glob(f"*{pattern}*")
        image = nibabel.load(path)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
        values = np.asarray(image.dataobj, np.float32)
        return resample(values, Geometry(affine, values.shape), grid, 0, 0.0) > 0


@pytest.fixture(scope="session")
def case(shared_data: Path) -> Callable[[str], Case]:
    """A real study by the name of its label folder."""

    def read(name: str) -> Case:
        (folder,) = [
            path
            for collection in ("prostate_prostatex_skyra", "prostate_prostate3t_skyra", "prostate_philips_erc")
            for path in (shared_data / collection).glob(name)
        ]
        files = sorted(folder.rglob("*.dcm"))
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
        paths = {header.SOPInstanceUID: path for header, path in zip(headers, files, strict=True)}
        return Case(assemble(headers), DicomFileSource(paths), shared_data / "labels_picai_nc" / name)

    return read
