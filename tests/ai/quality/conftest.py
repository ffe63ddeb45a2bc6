"""Volumes made for one purpose each, real studies read once, and a small k-space corruptor of its own.

The corruptor is written apart from ``ai.simulation`` on purpose: thresholds must hold for both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ai.volumes.assemble import assemble
from ai.volumes.load import DicomFileSource, load_volume
from ai.volumes.types import Acquisition, Assembly, BValue, Geometry, RoledStack, SliceReference, Stack, Volume
from tests.fixtures.folders import Folder

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
Image = NDArray[np.float64]


def make_stack(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] = (3.0, 0.5, 0.5),
    series: str = "1.2.3",
    b_value: float | None = None,
    **acquisition: Any,
) -> Stack:
    """An axial stack; ``acquisition`` overrides a header that meets PI-RADS v2.1 for T2W at 0.5 mm."""
    header: dict[str, Any] = {
        "modality": "MR",
        "slice_thickness_mm": spacing_mm[0],
        "in_plane_phase_encoding_direction": "ROW",
        "acquisition_matrix": (0, shape[1], shape[2], 0),
        "percent_sampling": 100.0,
        "percent_phase_field_of_view": 100.0 * shape[2] / shape[1],
    }
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    slices = tuple(
        SliceReference(f"{series}.{i}", MR_IMAGE_STORAGE, None, (0.0, 0.0, i * spacing_mm[0]), i)
        for i in range(shape[0])
    )
    return Stack(
        volume_id=f"{series}/{b_value}",
        study_instance_uid="1.2",
        series_instance_uid=series,
        frame_of_reference_uid="1.9",
        acquisition=Acquisition(**(header | acquisition)),
        rows=shape[1],
        columns=shape[2],
        slices=slices,
        slice_indices=tuple(range(shape[0])),
        geometry=Geometry(affine, shape),
        plane="axial",
        b_value=None if b_value is None else BValue(b_value, "test"),
    )


def make_volume(pixels: NDArray[Any], **arguments: Any) -> Volume:
    """A volume with the given pixels; other arguments as of ``make_stack``."""
    return Volume(make_stack(pixels.shape, **arguments), pixels.astype(np.float32))


def pelvis(slices: int = 12, size: int = 192, noise: float = 0.02, seed: int = 0) -> Image:
    """Ellipses of different brightness, slightly different on each slice, with Rician noise: not anatomy, but edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    shapes = [(0.0, 0.0, 0.95, 0.8, 0.35)]
    shapes += [(*rng.uniform(-0.5, 0.5, 2), *rng.uniform(0.05, 0.3, 2), rng.uniform(-0.3, 0.6)) for _ in range(25)]
    volume = np.zeros((slices, size, size))
    for index in range(slices):
        for cy, cx, ry, rx, value in shapes:
            grown = 1.0 + 0.1 * np.sin(index / 3.0 + 10.0 * cx)
            volume[index] += value * (((y - cy) / (ry * grown)) ** 2 + ((x - cx) / (rx * grown)) ** 2 < 1)
    volume = ndimage.gaussian_filter(np.maximum(volume, 0.02), (0, 0.6, 0.6))
    complex_noise = rng.normal(0, noise, (2, *volume.shape))
    return np.asarray(1000.0 * np.hypot(volume + complex_noise[0], complex_noise[1]))


class Corruptor:
    """Ruins an image stack ``[slice, row, column]`` in its Fourier plane; strengths in mm, degrees or relative."""

    def noise(self, volume: Image, relative: float, seed: int = 0) -> Image:
        """Rician noise of ``relative`` times the median of the brighter half of the volume."""
        rng = np.random.default_rng(seed)
        sigma = relative * float(np.median(volume[volume > 0.05 * np.percentile(volume, 99)]))
        return np.hypot(volume + rng.normal(0, sigma, volume.shape), rng.normal(0, sigma, volume.shape))

    def blur(self, volume: Image, fwhm_mm: float, spacing_mm: tuple[float, float]) -> Image:
        """Gaussian point spread function."""
        sigma = [fwhm_mm / 2.3548 / step for step in spacing_mm]
        return np.asarray(ndimage.gaussian_filter(volume, (0.0, *sigma)))

    def ghosts(self, volume: Image, modulation: float, period: int = 4) -> Image:
        """Amplitude and phase of the lines along columns vary with a period in lines."""
        lines = np.arange(volume.shape[2])
        swing = 2.0 * np.pi * lines / period
        weight = (1.0 + modulation * np.cos(swing)) * np.exp(2j * modulation * np.sin(swing))
        return np.abs(_image(_kspace(volume) * weight))

    def motion(self, volume: Image, mm: float, degrees: float, spacing_mm: tuple[float, float], seed: int = 0) -> Image:
        """Four rigid poses over sixteen interleaved echo trains, phase encoding along columns."""
        rng = np.random.default_rng(seed)
        train = np.arange(volume.shape[2]) % 16
        row_frequency = np.fft.fftshift(np.fft.fftfreq(volume.shape[1]))[:, None]
        column_frequency = np.fft.fftshift(np.fft.fftfreq(volume.shape[2]))[None, :]
        moved = []
        for image in volume:
            cuts = np.sort(rng.choice(np.arange(1, 16), 3, replace=False))
            pose_of_line = np.searchsorted(cuts, train, side="right")
            lines = _kspace(image)
            for pose in range(1, 4):
                down, across = rng.normal(0, mm, 2) / spacing_mm
                turned = ndimage.rotate(image, rng.normal(0, degrees), reshape=False, order=1, mode="nearest")
                shift = np.exp(-2j * np.pi * (row_frequency * down + column_frequency * across))
                lines[:, pose_of_line == pose] = (_kspace(turned) * shift)[:, pose_of_line == pose]
            moved.append(np.abs(_image(lines)))
        return np.stack(moved)


def _kspace(image: Image) -> NDArray[np.complex128]:
    return np.asarray(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=(-2, -1))), axes=(-2, -1)))


def _image(lines: NDArray[np.complex128]) -> NDArray[np.complex128]:
    return np.asarray(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(lines, axes=(-2, -1))), axes=(-2, -1)))


@dataclass(frozen=True)
class RealStudy:
    """A folder of shared data as an assembly with its pixels."""

    assembly: Assembly
    source: DicomFileSource

    def volume(self, role: str, series_number: int | None = None, b_value: float | None = None) -> Volume:
        """The first stack of the role, loaded."""
        return load_volume(self.entry(role, series_number, b_value).stack, self.source)

    def entry(self, role: str, series_number: int | None = None, b_value: float | None = None) -> RoledStack:
        """The first stack of the role."""
        return next(
            entry
            for entry in self.assembly.stacks
            if entry.role == role
            and series_number in (None, entry.stack.acquisition.series_number)
            and (b_value is None or (entry.stack.b_value and entry.stack.b_value.s_per_mm2 == b_value))
        )


class Toolbox:
    """The builders, handed to tests as one fixture because test folders are no packages."""

    stack = staticmethod(make_stack)
    volume = staticmethod(make_volume)
    pelvis = staticmethod(pelvis)
    corrupt = Corruptor()

    @staticmethod
    def with_pixels(volume: Volume, pixels: NDArray[Any]) -> Volume:
        """The same stack with other pixels."""
        return replace(volume, pixels=pixels.astype(np.float32))


@pytest.fixture(scope="session")
def made() -> type[Toolbox]:
    """Builders of stacks, volumes and ruined images."""
    return Toolbox


@pytest.fixture(scope="session")
def real(read_folder: Callable[[str], Folder]) -> Callable[[str], RealStudy]:
    """Assembles a folder of the real data once per session."""
    known: dict[str, RealStudy] = {}

    def read(name: str) -> RealStudy:
        if name not in known:
            folder = read_folder(name)
            known[name] = RealStudy(assemble(folder.headers), folder.source)
        return known[name]

    return read
