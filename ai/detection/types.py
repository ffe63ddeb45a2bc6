"""The vocabulary of detection: candidates and the outcome of a run."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ai.volumes.types import Geometry, Stack


class DetectionState(StrEnum):
    """Outcome of the detector in the words of CID 6042 (PS3.16)."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_ATTEMPTED = "not-attempted"


@dataclass(frozen=True)
class Algorithm:
    """Which algorithm answered, for TID 4019 Algorithm Identification and the model card."""

    name: str
    version: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diffusion:
    """The diffusion maps a detector looks at: float32 ``[slice, row, column]`` on ``geometry``, NaN where unknown."""

    geometry: Geometry
    adc_um2_per_s: NDArray[np.float32]
    """Apparent diffusion coefficient in 10^-6 mm2/s (= um2/s)."""
    high_b: NDArray[np.float32]
    """Signal at the high b-value, acquired or computed."""
    b_s_per_mm2: float
    """b-value of ``high_b``."""


@dataclass(frozen=True)
class Candidate:
    """One lesion candidate on the T2 grid.

    ``label`` is its value in ``DetectionResult.labels`` (1..n, most suspicious first). ``probability`` is 0..1 and,
    for an uncalibrated detector, only probability-like. ``sector`` is a PI-RADS v2.1 sector name or None.
    """

    label: int
    probability: float
    above_operating_point: bool
    volume_ml: float
    centroid_lps_mm: tuple[float, float, float]
    long_axis_mm: float
    adc_mean_um2_per_s: float | None
    """Mean apparent diffusion coefficient in 10^-6 mm2/s (= um2/s)."""
    sector: str | None = None


@dataclass(frozen=True)
class DetectionResult:
    """What the detector found. With state ``succeeded``, ``t2w`` names the grid of ``labels`` and ``gland``."""

    state: DetectionState
    reason: str
    algorithm: Algorithm
    candidates: tuple[Candidate, ...] = ()
    t2w: Stack | None = None
    labels: NDArray[np.uint8] | None = None
    """uint8 ``[slice, row, column]``: 0 background, else ``Candidate.label``."""
    gland: NDArray[np.bool_] | None = None
    source_series_uids: tuple[str, ...] = ()
    """Series the detector looked at besides the T2 (ADC, high b)."""
    operating_point: float | None = None
