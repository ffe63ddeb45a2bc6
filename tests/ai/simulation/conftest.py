"""A small examination: every step of the real one on coarse grids, fast enough for unit tests."""

from dataclasses import replace

import pytest

from ai.simulation.protocol import DWI, T2_AXIAL, T2_CORONAL, T2_SAGITTAL, Protocol
from ai.simulation.study import SimulatedStudy, simulate_study

COARSE_MM = (2.0, 1.0, 1.0)


def small_protocols() -> tuple[Protocol, ...]:
    t2 = {"matrix": 128, "frequency_samples": 128, "phase_lines": 96}
    return (
        replace(T2_SAGITTAL, slices=4, **t2),
        replace(T2_AXIAL, slices=12, slice_thickness_mm=6.0, **t2),
        replace(T2_CORONAL, slices=4, **t2),
        replace(DWI, slices=10, slice_thickness_mm=6.0, matrix=64, frequency_samples=64, phase_lines=64),
    )


@pytest.fixture(scope="session")
def protocols() -> tuple[Protocol, ...]:
    return small_protocols()


@pytest.fixture(scope="session")
def clean_study() -> SimulatedStudy:
    return simulate_study(3, protocols=small_protocols(), spacing_mm=COARSE_MM)
