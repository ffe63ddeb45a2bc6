"""Fat that suppression left: in echo-planar images it lies far from where it is."""

from dataclasses import replace

import numpy as np

from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace

FAT_PPM = -3.4
"""Chemical shift of the methylene peak against water (Hamilton et al., NMR Biomed 2011;24:784)."""
PROTON_MHZ_PER_T = 42.577
UNSUPPRESSED_SHARE = (0.05, 0.12, 0.3, 0.6, 1.0)
"""Share of the fat signal that the suppression pulse missed."""


def fat_shift_lines(kspace: KSpace) -> float:
    """How far fat is displaced along phase, in acquired pixels: its frequency x echo spacing x lines."""
    frequency_hz = FAT_PPM * PROTON_MHZ_PER_T * kspace.field_strength_t
    return frequency_hz * kspace.echo_spacing_ms / 1000.0 * kspace.phase_lines


def fat_shift(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """Failed fat suppression: fat comes back, displaced along phase by its chemical shift."""
    assert kspace.fat is not None
    cycles = kspace.phase_frequencies / kspace.phase_lines * fat_shift_lines(kspace)
    turn = np.exp((-2j * np.pi * cycles).astype(np.complex64))
    share = np.float32(strength(UNSUPPRESSED_SHARE, severity))
    return replace(kspace, data=kspace.data + share * kspace.fat * kspace.along_phase(turn))
