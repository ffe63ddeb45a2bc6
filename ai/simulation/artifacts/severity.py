"""Severity as one continuous scale, and what an artefact is.

0 is clean, 1 subtle, 3 clearly visible, 5 clearly non-diagnostic. Every artefact has a table of physical strength at
the five whole severities; between them strength is interpolated, so that it never falls as severity rises. The tables
were set by eye on simulated and real images; they are metadata, not measured human grades.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ai.simulation.kspace import KSpace
from ai.simulation.protocol import SeriesKind

SEVERITIES = range(1, 6)
CLEAN, WORST = 0, 5

Seed = int | Sequence[int]


def strength(table: Sequence[float], severity: float, clean: float = 0.0) -> float:
    """Physical strength at a severity 0..5: linear between the rows of the table, ``clean`` at 0."""
    return float(np.interp(severity, range(WORST + 1), (clean, *table)))


def check_severity(name: str, severity: float) -> None:
    """Raises ValueError for a severity outside 0..5."""
    if not CLEAN <= severity <= WORST:
        raise ValueError(f"severity of {name} must be 0..5, not {severity}")


@dataclass(frozen=True)
class Artifact:
    """One way to ruin raw data: its name, the series it happens in, and what it does at a severity.

    Attributes:
        needs_gas: it comes from the field of rectal gas, so the raw data must carry ``off_resonance_hz``.
        needs_fat: it brings up fat, so the raw data must carry ``fat``.
        needs_neighbours: slices take signal from those beside them.
        beyond_view: what lies outside the shown field of view matters.
        per_slice: it strikes every slice by itself; elsewhere a series meets one and the same fault.
    """

    name: str
    meaning: str
    applies_to: frozenset[SeriesKind]
    corrupt: Callable[[KSpace, float, np.random.Generator], KSpace]
    needs_gas: bool = False
    needs_fat: bool = False
    needs_neighbours: bool = False
    beyond_view: bool = False
    per_slice: bool = False

    def __call__(self, kspace: KSpace, severity: float, seed: Seed) -> KSpace:
        """Corrupt raw data. The same seed gives the same corruption; severity 0 leaves the data as they are.

        Raises:
            ValueError: severity is not 0..5, or the raw data lack what the artefact comes from.
        """
        check_severity(self.name, severity)
        if severity == CLEAN:
            return kspace
        if self.needs_gas and kspace.off_resonance_hz is None:
            raise ValueError(f"{self.name} needs echo-planar raw data with an off-resonance map")
        if self.needs_fat and kspace.fat is None:
            raise ValueError(f"{self.name} needs raw data of the fat that suppression should remove")
        return self.corrupt(kspace, severity, np.random.default_rng(seed))
