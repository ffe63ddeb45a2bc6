"""Ghosts by modulation of the phase lines."""

from dataclasses import replace

import numpy as np

from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace

GHOST_MODULATION = (0.10, 0.22, 0.45, 0.80, 1.30)
"""Relative swing of the signal; a ghost has half of it."""
GHOST_PERIOD_LINES = 6


def ghosting(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """Periodic modulation of the lines (breathing, bowel; alternating in echo-planar): ghosts at extent / period."""
    period = 2 if kspace.echo_planar else GHOST_PERIOD_LINES
    cycles = kspace.phase_frequencies / period
    swing = strength(GHOST_MODULATION, severity) * np.cos(2 * np.pi * cycles + rng.uniform(0, np.pi / 4))
    return replace(kspace, data=kspace.data * (1 + kspace.along_phase(swing.astype(np.float32))))
