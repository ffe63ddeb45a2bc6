"""Simulated studies as the node would see them: headers sorted into volumes, pixels from memory, truth beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ai.simulation.anatomy import FINE_SPACING_MM, Anatomy, random_anatomy
from ai.simulation.export import series_datasets
from ai.simulation.gland import Zone
from ai.simulation.protocol import DWI, T2_AXIAL, Protocol
from ai.simulation.study import GroundTruth, simulate_study
from ai.volumes.assemble import assemble
from ai.volumes.types import Assembly, SliceReference

FULL_PROTOCOLS: tuple[Protocol, ...] = (T2_AXIAL, DWI)
"""What the gate and the detector look at: axial T2, DWI, and the ADC map that comes with it."""

DRAWN_AT_ONCE = 2
"""Anatomies kept: a study's own, and the one with rectal gas that distortion needs."""


class MemorySource:
    """A ``PixelSource`` over images in memory."""

    def __init__(self, frames: dict[str, NDArray[np.float32]]) -> None:
        self._frames = frames

    def frame(self, reference: SliceReference) -> NDArray[np.float32]:
        """The image of a slice."""
        return self._frames[reference.sop_instance_uid]


@dataclass(frozen=True)
class SimulatedCase:
    """A simulated study ready to be assessed, and what is really there."""

    assembly: Assembly
    source: MemorySource
    truth: GroundTruth


class Simulator:
    """Makes cases of one protocol; the anatomy of a seed is drawn once for all artefacts that follow each other."""

    def __init__(
        self,
        protocols: Sequence[Protocol] = FULL_PROTOCOLS,
        spacing_mm: tuple[float, float, float] = FINE_SPACING_MM,
        lesion_zone: Zone = Zone.PERIPHERAL,
    ) -> None:
        self._protocols = tuple(protocols)
        self._spacing_mm = spacing_mm
        self._lesion_zone = lesion_zone
        self._draw: Callable[..., Anatomy] = lru_cache(DRAWN_AT_ONCE)(random_anatomy)

    def case(
        self, seed: int, artifact: str | None = None, severity: int = 0, with_lesion: bool = True
    ) -> SimulatedCase:
        """One study. Raises ValueError as ``simulate_study`` does."""
        study = simulate_study(
            seed,
            artifact,
            severity,
            with_lesion,
            lesion_zone=self._lesion_zone,
            protocols=self._protocols,
            spacing_mm=self._spacing_mm,
            draw=self._draw,
        )
        datasets = [dataset for series in study.series for dataset in series_datasets(study, series)]
        frames = {str(one.SOPInstanceUID): one.pixel_array.astype(np.float32) for one in datasets}
        return SimulatedCase(assemble(datasets), MemorySource(frames), study.truth)
