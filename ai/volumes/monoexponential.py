"""The mono-exponential diffusion model S(b) = S0 exp(-b ADC), fitted and evaluated (Stejskal & Tanner 1965).

ADC is in um2/s, which is 1e-6 mm2/s, the unit scanners store.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

HIGH_B_S_PER_MM2 = 1400.0
"""The high b-value PI-RADS v2.1 asks for."""
MM2_PER_UM2 = 1e-6
LOG_MAX_SIGNAL = float(np.log(np.finfo(np.float32).max)) - 1.0
"""Predictions are cut here instead of becoming infinite; only noise around zero signal ever gets there."""


def fit_adc(volumes_by_b: Mapping[float, NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unweighted log-linear least squares over all b-values: ADC in um2/s and S0, float32 of the volumes' shape.

    NaN where any signal is missing or not positive, since its logarithm does not exist. Measured against the Skyra's
    own maps: r >= 0.998, the scanner's values 0.94 to 0.97 of these; signal-weighted fits come no closer.

    Args:
        volumes_by_b: b in s/mm2 -> signal, all of one shape.

    Raises:
        ValueError: fewer than two b-values, or shapes that differ.
    """
    if len(volumes_by_b) < 2:
        raise ValueError("a mono-exponential fit needs two b-values")
    b_values = np.array(sorted(volumes_by_b), dtype=np.float64)
    if len({volume.shape for volume in volumes_by_b.values()}) > 1:
        raise ValueError("diffusion volumes of different shapes")
    # With few b-values the normal equations are two weighted sums over b; no stack of all volumes is needed.
    centred = b_values - b_values.mean()
    slope = np.zeros(volumes_by_b[b_values[0]].shape, dtype=np.float64)
    mean_log = np.zeros_like(slope)
    for b_value, weight in zip(b_values, centred, strict=True):
        log_signal = positive_log(volumes_by_b[b_value])
        slope += weight * log_signal
        mean_log += log_signal
    slope /= float(centred @ centred)
    mean_log /= len(b_values)
    s0 = np.exp(np.minimum(mean_log - slope * b_values.mean(), LOG_MAX_SIGNAL))
    return (-slope / MM2_PER_UM2).astype(np.float32), s0.astype(np.float32)


def calculated_b(
    s0: NDArray[np.float32], adc_um2_per_s: NDArray[np.float32], b: float = HIGH_B_S_PER_MM2
) -> NDArray[np.float32]:
    """The signal the model predicts at ``b`` in s/mm2: float32 of the maps' shape, NaN where they are."""
    exponent = -b * MM2_PER_UM2 * adc_um2_per_s.astype(np.float64)
    return np.exp(np.minimum(exponent + positive_log(s0), LOG_MAX_SIGNAL)).astype(np.float32)


def positive_log(signal: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural logarithm; NaN where the signal is not positive."""
    return np.log(signal, where=signal > 0, out=np.full(signal.shape, np.nan), dtype=np.float64)


def geometric_mean(volumes: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The voxelwise geometric mean of at least one volume; NaN where any signal is not positive."""
    total, count = None, 0
    for volume in volumes:
        logarithm = positive_log(volume)
        total = logarithm if total is None else total + logarithm
        count += 1
    if total is None:
        raise ValueError("a mean needs at least one volume")
    return np.exp(total / count).astype(np.float32)
