"""The task label: at which severity of an artefact the lesion detector loses the lesion it finds on clean images.

This is what a gate in front of that detector protects, measured without asking how the image looks. Simulated studies
only, and of one detector: a better detector may stand more, or less.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ai.evaluation.detection import judge
from ai.evaluation.simulated import FULL_PROTOCOLS, SimulatedCase, Simulator
from ai.quality.acquired import acquired_grid, to_acquired
from ai.quality.full_reference import damage_region, haarpsi
from ai.simulation.artifacts import ARTIFACTS, SEVERITIES
from ai.simulation.protocol import SeriesKind
from ai.volumes.load import load_volume
from ai.volumes.types import Role, Volume

HIT_IOU = 0.1
"""PI-CAI's criterion of a hit."""

_ROLE = {SeriesKind.T2_AXIAL: Role.T2W_AXIAL, SeriesKind.DWI: Role.DWI}


@dataclass(frozen=True)
class Loss:
    """One anatomy and artefact. ``lost_at`` is None where severity 5 still shows the lesion.

    ``similarity`` is the HaarPSI of the hit series at that severity (the last one where it was never lost), its slices
    averaged.
    """

    seed: int
    artifact: str
    lost_at: int | None
    similarity: float


def detector_losses(
    seeds: Sequence[int],
    artifacts: Sequence[str],
    simulator: Simulator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Loss]:
    """Raise the severity until the index lesion is hit no more; anatomies whose lesion is missed clean are left out."""
    made_by = simulator or Simulator(FULL_PROTOCOLS)
    for seed in seeds:
        clean = made_by.case(seed)
        if not judge(clean, seed, True).hits(HIT_IOU):
            progress(f"seed {seed}: its lesion is not found on clean images")
            continue
        for artifact in artifacts:
            progress(f"seed {seed}: {artifact}")
            yield _loss(made_by, clean, seed, artifact)


def _loss(made_by: Simulator, clean: SimulatedCase, seed: int, artifact: str) -> Loss:
    case = clean
    for severity in SEVERITIES:
        case = made_by.case(seed, artifact, severity)
        if not judge(case, seed, True).hits(HIT_IOU):
            return Loss(seed, artifact, severity, _similarity(clean, case, artifact))
    return Loss(seed, artifact, None, _similarity(clean, case, artifact))


def _similarity(clean: SimulatedCase, case: SimulatedCase, artifact: str) -> float:
    """Mean HaarPSI of the axial series that the artefact hits, the worst of them (b-values)."""
    roles = [role for kind, role in _ROLE.items() if kind in ARTIFACTS[artifact].applies_to]
    similarities = []
    for before, after in zip(clean.assembly.stacks, case.assembly.stacks, strict=True):
        if before.role in roles:
            original = load_volume(before.stack, clean.source)
            similarities.append(_volume_similarity(original, load_volume(after.stack, case.source)))
    return min(similarities)


def _volume_similarity(clean: Volume, degraded: Volume) -> float:
    grid = acquired_grid(clean.stack)
    similarities = []
    for original, image in zip(clean.pixels, degraded.pixels, strict=True):
        first, second = (to_acquired(one.astype(np.float64), grid) for one in (original, image))
        similarities.append(haarpsi(first, second, damage_region(grid, first.shape)))
    return float(np.mean(similarities))
