"""Raw data of a slice stack: from object to k-space, and from k-space to a magnitude image.

Fourier transforms are normalised "forward", so that intensities do not change with the matrix (zero-filling and
cropping keep the image's brightness).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft

KSpaceData = NDArray[np.complex64]
Scalar = TypeVar("Scalar", bound=np.generic)

FILTER_TAPER = 0.18
"""Outer share of k-space rolled off by the raw filter, as scanners do against Gibbs ringing; chosen by eye."""


@dataclass(frozen=True)
class KSpace:
    """What the receiver recorded: complex64 ``[slice, row, column]``, zero frequency in the middle.

    ``extent_mm`` is the field of view that the samples span along rows and columns, oversampling included.
    ``phase_axis`` (1 or 2) is the array axis that is phase-encoded. ``noise_sd`` is the thermal noise that
    reconstruction meets, per real and imaginary part, in image units. ``shown_mm`` is the field of view the
    reconstruction keeps. ``off_resonance_hz`` ``[slice, row, column]``, where given, is the field that bends
    echo-planar images.
    """

    data: KSpaceData
    extent_mm: tuple[float, float]
    shown_mm: float
    phase_axis: int
    echo_train_length: int
    echo_spacing_ms: float
    slice_thickness_mm: float
    noise_sd: float
    off_resonance_hz: NDArray[np.float32] | None = None

    @property
    def phase_lines(self) -> int:
        """Number of acquired phase-encoding lines."""
        return int(self.data.shape[self.phase_axis])

    @property
    def phase_frequencies(self) -> NDArray[np.int64]:
        """Spatial frequency of each phase line in cycles per extent, centred."""
        return np.arange(self.phase_lines) - self.phase_lines // 2

    def along_phase(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """One value per phase line, shaped to broadcast over ``data``."""
        shape = [1, 1, 1]
        shape[self.phase_axis] = -1
        return values.reshape(shape)


def to_kspace(image: NDArray[np.complex64] | NDArray[np.float32]) -> KSpaceData:
    """Centred Fourier transform of the last two axes."""
    spectrum = fft.fft2(fft.ifftshift(image, axes=(-2, -1)), norm="forward")
    return np.asarray(fft.fftshift(spectrum, axes=(-2, -1)), np.complex64)


def to_image(data: KSpaceData) -> NDArray[np.complex64]:
    """Inverse of ``to_kspace``."""
    image = fft.ifft2(fft.ifftshift(data, axes=(-2, -1)), norm="forward")
    return np.asarray(fft.fftshift(image, axes=(-2, -1)), np.complex64)


def resize_centre(array: NDArray[np.complex64], rows: int, columns: int) -> NDArray[np.complex64]:
    """Crop or zero-fill the last two axes about the zero frequency (index ``n // 2``)."""
    for axis, size in ((-2, rows), (-1, columns)):
        have = array.shape[axis]
        lead = have // 2 - size // 2
        if size <= have:
            array = np.take(array, range(lead, lead + size), axis=axis)
        else:
            padding = [(0, 0)] * array.ndim
            padding[axis] = (-lead, size - have + lead)
            array = np.pad(array, padding)
    return array


def raw_filter(size: int) -> NDArray[np.float32]:
    """Tukey window over k-space, 1 in the middle, falling over the outer ``FILTER_TAPER`` to 0.1."""
    distance = np.abs(np.arange(size) - size // 2) / (size / 2)
    roll_off = np.clip((distance - 1 + FILTER_TAPER) / FILTER_TAPER, 0, 1)
    return (0.55 + 0.45 * np.cos(np.pi * roll_off)).astype(np.float32)


def add_thermal_noise(kspace: KSpace, rng: np.random.Generator) -> KSpaceData:
    """White complex noise on every sample; magnitude images then have Rician noise (Gudbjartsson & Patz 1995)."""
    shape = kspace.data.shape
    per_sample = kspace.noise_sd / np.sqrt(shape[1] * shape[2])
    noise = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    return np.asarray(kspace.data + np.float32(per_sample) * noise, np.complex64)


def reconstruct(kspace: KSpace, matrix: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add noise, filter, zero-fill, transform, take magnitudes and keep the shown field of view.

    Returns:
        float32 ``[slice, matrix, matrix]``.
    """
    _, rows, columns = kspace.data.shape
    noisy = add_thermal_noise(kspace, rng) * raw_filter(rows)[None, :, None] * raw_filter(columns)[None, None, :]
    full = [round(matrix * extent / kspace.shown_mm) for extent in kspace.extent_mm]
    images = np.empty((noisy.shape[0], matrix, matrix), np.float32)
    for index, one_slice in enumerate(noisy):
        image = to_image(resize_centre(one_slice, full[0], full[1]))
        images[index] = np.abs(resize_centre(image, matrix, matrix))
    return images
