"""Raw data of a slice stack: from object to k-space, and from k-space to a magnitude image.

Fourier transforms are normalised "forward", so that intensities do not change with the matrix (zero-filling and
cropping keep the image's brightness).
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft

KSpaceData = NDArray[np.complex64]
Scalar = TypeVar("Scalar", bound=np.generic)

FILTER_TAPER = 0.18
"""Outer share of k-space rolled off by the raw filter, as scanners do against Gibbs ringing; chosen by eye."""


MAXIMUM_DRAWN_CHANNELS = 8
"""Noise of more channels than these enters as its expectation: summed, it then varies by less than it weighs."""


@dataclass(frozen=True)
class KSpace:
    """What the receiver recorded: complex64 ``[slice, row, column]``, zero frequency in the middle.

    Attributes:
        extent_mm: field of view that the samples span along rows and columns, oversampling included.
        shown_mm: field of view the reconstruction keeps.
        phase_axis: the array axis (1 or 2) that is phase-encoded.
        noise_sd: thermal noise that reconstruction adds, per real and imaginary part, in image units.
        typical_noise_sd: noise of a good scan of this kind, which the severities of noise are multiples of. Equal to
            ``noise_sd`` in simulated anatomy; a real image has it already and starts with a ``noise_sd`` of 0.
        averages: acquisitions averaged to reach that noise.
        channels: receive channels whose root sum of squares is shown; 1 where they are combined without a floor, a
            fraction where some are.
        filter_taper: outer share of k-space that the raw filter rolls off.
        margin: slices at either end that are there only for what they lend their neighbours.
        off_resonance_hz: ``[slice, row, column]``, the field that bends echo-planar images.
        gas: ``[slice, row, column]``, share of each voxel that gas takes although ``data`` have tissue there.
        fat: raw data of the fat that a failing suppression would leave, shaped as ``data``.
    """

    data: KSpaceData
    extent_mm: tuple[float, float]
    shown_mm: tuple[float, float]
    phase_axis: int
    echo_train_length: int
    echo_spacing_ms: float
    slice_thickness_mm: float
    noise_sd: float
    typical_noise_sd: float = 0.0
    averages: int = 1
    channels: float = 1
    filter_taper: float = FILTER_TAPER
    echo_planar: bool = False
    b_value: float = 0.0
    field_strength_t: float = 2.89
    margin: int = 0
    off_resonance_hz: NDArray[np.float32] | None = None
    gas: NDArray[np.float32] | None = None
    fat: KSpaceData | None = None

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
        return along(self.phase_axis, values)

    def without_margin(self) -> "KSpace":
        """The same without the slices that are only neighbours."""
        if not self.margin:
            return self
        inner = slice(self.margin, len(self.data) - self.margin)
        kept = {
            name: values[inner]
            for name in ("data", "off_resonance_hz", "gas", "fat")
            if (values := getattr(self, name)) is not None
        }
        return replace(self, margin=0, **kept)


def along(axis: int, values: NDArray[Scalar]) -> NDArray[Scalar]:
    """Values shaped to broadcast over ``[slice, row, column]`` along one axis."""
    shape = [1, 1, 1]
    shape[axis] = -1
    return values.reshape(shape)


def to_kspace(image: NDArray[np.complex64] | NDArray[np.float32]) -> KSpaceData:
    """Centred Fourier transform of the last two axes."""
    spectrum = fft.fft2(fft.ifftshift(image, axes=(-2, -1)), norm="forward")
    return np.asarray(fft.fftshift(spectrum, axes=(-2, -1)), np.complex64)


def to_image(data: KSpaceData) -> NDArray[np.complex64]:
    """Inverse of ``to_kspace``."""
    image = fft.ifft2(fft.ifftshift(data, axes=(-2, -1)), norm="forward")
    return np.asarray(fft.fftshift(image, axes=(-2, -1)), np.complex64)


def resize_centre(array: NDArray[Scalar], rows: int, columns: int) -> NDArray[Scalar]:
    """Crop or zero-fill the last two axes about the zero frequency (index ``n // 2``)."""
    for axis, size in ((-2, rows), (-1, columns)):
        have = array.shape[axis]
        lead = have // 2 - size // 2
        if size < have:
            array = array.take(range(lead, lead + size), axis=axis)
        elif size > have:
            padding = [(0, 0)] * array.ndim
            padding[axis] = (-lead, size - have + lead)
            array = np.pad(array, padding)
    return array


def raw_filter(size: int, taper: float = FILTER_TAPER) -> NDArray[np.float32]:
    """Tukey window over k-space, 1 in the middle, falling over the outer ``taper`` to 0.1."""
    if taper <= 0:
        return np.ones(size, np.float32)
    distance = np.abs(np.arange(size) - size // 2) / (size / 2)
    roll_off = np.clip((distance - 1 + taper) / taper, 0, 1)
    return (0.55 + 0.45 * np.cos(np.pi * roll_off)).astype(np.float32)


def thermal_noise(kspace: KSpace, rng: np.random.Generator) -> KSpaceData:
    """White complex noise for every sample; magnitude images then have Rician noise (Gudbjartsson & Patz 1995)."""
    shape = kspace.data.shape
    per_sample = kspace.noise_sd / np.sqrt(shape[1] * shape[2])
    noise = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    return np.asarray(np.float32(per_sample) * noise, np.complex64)


def reconstruct(kspace: KSpace, stored: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Add noise, filter, zero-fill, transform, take magnitudes and keep the shown field of view.

    With several channels the image is their root sum of squares: the signal is in one (the combination that matches
    it) and noise in all of them, so that magnitudes are non-central chi distributed (Constantinides et al. 1997).

    Args:
        kspace: raw data; slices of its margin are left out.
        stored: rows and columns of the image over ``shown_mm``.
        rng: draws the noise.

    Returns:
        float32 ``[slice, row, column]``.
    """
    kspace = kspace.without_margin()
    data = kspace.data if kspace.noise_sd == 0 else kspace.data + thermal_noise(kspace, rng)
    images = _shown_magnitudes(kspace, data, stored)
    if kspace.channels == 1 or kspace.noise_sd == 0:
        return images
    others = kspace.channels - 1
    drawn = min(int(others), MAXIMUM_DRAWN_CHANNELS - 1)
    power = np.full(images.shape, (others - drawn) * noise_power(kspace), np.float32)
    for _ in range(drawn):
        power += _shown_magnitudes(kspace, thermal_noise(kspace, rng), stored) ** 2
    return np.sqrt(images**2 + power)


def noise_power(kspace: KSpace) -> float:
    """Mean squared magnitude of one channel's noise in the image, after the raw filter."""
    passed = [float((raw_filter(size, kspace.filter_taper) ** 2).mean()) for size in kspace.data.shape[1:]]
    return 2 * kspace.noise_sd**2 * passed[0] * passed[1]


def _shown_magnitudes(kspace: KSpace, data: KSpaceData, stored: tuple[int, int]) -> NDArray[np.float32]:
    """Filter, zero-fill, transform and crop to the shown field of view."""
    if kspace.filter_taper > 0:
        for axis in (1, 2):
            data = data * along(axis, raw_filter(data.shape[axis], kspace.filter_taper))
    full = [
        round(size * extent / shown)
        for size, extent, shown in zip(stored, kspace.extent_mm, kspace.shown_mm, strict=True)
    ]
    images = np.empty((data.shape[0], *stored), np.float32)
    for index, one_slice in enumerate(data):
        image = to_image(resize_centre(one_slice, full[0], full[1]))
        np.abs(resize_centre(image, stored[0], stored[1]), out=images[index])
    return images
