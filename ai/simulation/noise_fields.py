"""Smooth deterministic noise: the texture and irregularity of simulated tissue."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def smooth_noise(
    shape: tuple[int, int, int], sigma_voxels: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian-filtered white noise float32 ``shape``, periodic, mean 0 and standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma_voxels, mode="wrap")
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def ridges(noise: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Thin sheets where smooth noise crosses zero, 0..1: they look like septa and fascia on every cut.

    ``width`` is in standard deviations of the noise.
    """
    return np.exp(-((noise / width) ** 2)).astype(np.float32)


class WavyField:
    """A sum of plane waves: a displacement in mm that costs only outer products to evaluate on a plane."""

    def __init__(
        self, amplitude_mm: float, shortest_wavelength_mm: float, waves: int, rng: np.random.Generator
    ) -> None:
        directions = rng.standard_normal((waves, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        wavelengths = shortest_wavelength_mm * rng.uniform(1.0, 3.0, waves)
        self._wave_vectors = 2 * np.pi * directions / wavelengths[:, None]
        self._phases = rng.uniform(0, 2 * np.pi, waves)
        self._amplitude_mm = amplitude_mm * np.sqrt(2.0 / waves)

    def on_plane(self, z_mm: float, y_mm: NDArray[np.float32], x_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Displacement in mm, float32 ``[y, x]``; its standard deviation is ``amplitude_mm``."""
        ky, kx = self._wave_vectors[:, 1], self._wave_vectors[:, 2]
        along_y = np.outer(y_mm, ky) + (self._wave_vectors[:, 0] * z_mm + self._phases)
        along_x = np.outer(x_mm, kx)
        # cos(a + b) = cos a cos b - sin a sin b: two matrix products instead of a cosine per pixel
        left = np.hstack([np.cos(along_y), -np.sin(along_y)]).astype(np.float32)
        right = np.hstack([np.cos(along_x), np.sin(along_x)]).astype(np.float32)
        return np.asarray(left @ right.T * np.float32(self._amplitude_mm))
