"""Objects whose artefacts are known in closed form."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ai.simulation.kspace import KSpace, to_kspace

SIZE = 96


def kspace_of(image: NDArray[np.float32], phase_axis: int = 2, **changes: object) -> KSpace:
    """Raw data of an image ``[slice, row, column]`` with pixels of 1 mm."""
    extent_mm = (float(image.shape[1]), float(image.shape[2]))
    kspace = KSpace(
        data=to_kspace(image),
        extent_mm=extent_mm,
        shown_mm=extent_mm,
        phase_axis=phase_axis,
        echo_train_length=12,
        echo_spacing_ms=0.5,
        slice_thickness_mm=3.0,
        noise_sd=0.0,
    )
    return replace(kspace, **changes)


def disc(centre: tuple[float, float] = (0.0, 0.0), radius: float = 5.0, slices: int = 1) -> NDArray[np.float32]:
    """A Gaussian spot, ``[slice, row, column]``; the centre is in pixels from the middle."""
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = np.exp(-(((row - centre[0]) ** 2 + (column - centre[1]) ** 2) / radius**2))
    return np.repeat(image[None].astype(np.float32), slices, axis=0)
