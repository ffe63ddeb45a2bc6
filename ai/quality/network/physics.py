"""The physical parameters that the network learns to see first, before it learns to see damage.

MedIQA's upstream stage (arXiv 2507.19004) learns one parameter per run; here they are one vector. What the header tells
comes from the header; noise and resolution are known where images are simulated, and measured elsewhere.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ai.volumes.types import Stack


class Physics(StrEnum):
    """One physical parameter of a slice and the scale it is learnt on (natural logarithms)."""

    LOG_NOISE = "log noise SD over tissue signal"
    RESOLUTION = "effective resolution in mm"
    FIELD_STRENGTH = "magnetic field strength in T"
    LOG_ECHO_TIME = "log echo time in ms"
    LOG_REPETITION_TIME = "log repetition time in ms"
    LOG_B_VALUE = "log(1 + b-value in s/mm2)"


PHYSICS = tuple(Physics)
"""The order of the parameters wherever they are numbers."""


def physics_of(
    stack: Stack, noise_over_signal: float | None = None, resolution_mm: float | None = None
) -> NDArray[np.float32]:
    """The parameters of a stack, float32 ``[parameter]``; NaN where neither header nor caller knows."""
    acquisition = stack.acquisition
    values = {
        Physics.LOG_NOISE: _log(noise_over_signal),
        Physics.RESOLUTION: resolution_mm,
        Physics.FIELD_STRENGTH: acquisition.magnetic_field_strength_t,
        Physics.LOG_ECHO_TIME: _log(acquisition.echo_time_ms),
        Physics.LOG_REPETITION_TIME: _log(acquisition.repetition_time_ms),
        Physics.LOG_B_VALUE: None if stack.b_value is None else _log(1.0 + stack.b_value.s_per_mm2),
    }
    return np.array([np.nan if values[name] is None else values[name] for name in PHYSICS], np.float32)


def _log(value: float | None) -> float | None:
    return float(np.log(value)) if value is not None and value > 0 else None
