"""The task label: at which severity of an artefact the lesion detector loses the lesion it finds on clean images.

This is what a gate in front of that detector protects, measured without asking how the image looks. Simulated studies
only, and of one detector: a better detector may stand more, or less.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ai.evaluation.detection import judge
from ai.evaluation.simulated import FULL_PROTOCOLS, SimulatedCase, Simulator
from ai.evaluation.statistics import Estimate, proportion
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


@dataclass(frozen=True)
class LossSummary:
    """An artefact over the anatomies whose lesion is found clean.

    Attributes:
        lost: at how many of the studies the lesion is lost at any severity.
        median_lost_at: severity at which most lesions are lost; None where half of them or more never are.
        median_similarity: HaarPSI there, over the studies in which it is lost; None where it never is.
    """

    artifact: str
    lost: Estimate
    median_lost_at: float | None
    median_similarity: float | None


def summarise(losses: Iterable[Loss]) -> list[LossSummary]:
    """One line per artefact, in the order in which they come."""
    groups: dict[str, list[Loss]] = {}
    for loss in losses:
        groups.setdefault(loss.artifact, []).append(loss)
    return [_summary(artifact, own) for artifact, own in groups.items()]


def _summary(artifact: str, losses: Sequence[Loss]) -> LossSummary:
    lost = [loss for loss in losses if loss.lost_at is not None]
    median = float(np.median([np.inf if loss.lost_at is None else loss.lost_at for loss in losses]))
    return LossSummary(
        artifact,
        proportion(len(lost), len(losses)),
        median if np.isfinite(median) else None,
        float(np.median([loss.similarity for loss in lost])) if lost else None,
    )


def detector_losses(
    seeds: Sequence[int],
    artifacts: Sequence[str],
    simulator: Simulator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Loss]:
    """Raise the severity until the index lesion is hit no more; anatomies whose lesion is missed clean are left out.

    Raises:
        ValueError: an unknown artefact.
    """
    if unknown := sorted(set(artifacts) - set(ARTIFACTS)):
        raise ValueError(f"unknown artefact {', '.join(unknown)}; there are {', '.join(ARTIFACTS)}")
    made_by = simulator or Simulator(FULL_PROTOCOLS)
    for seed in seeds:
        clean = made_by.case(seed)
        if not _finds(clean, seed):
            progress(f"seed {seed}: its lesion is not found on clean images")
            continue
        for artifact in artifacts:
            progress(f"seed {seed}: {artifact}")
            yield _loss(made_by, clean, seed, artifact)


def _loss(made_by: Simulator, clean: SimulatedCase, seed: int, artifact: str) -> Loss:
    case = clean
    for severity in SEVERITIES:
        case = made_by.case(seed, artifact, severity)
        if not _finds(case, seed):
            return Loss(seed, artifact, severity, _similarity(clean, case, artifact))
    return Loss(seed, artifact, None, _similarity(clean, case, artifact))


def _finds(case: SimulatedCase, seed: int) -> bool:
    """Whether the largest lesion is hit."""
    return judge(case, seed, True).lesion_ious[0] >= HIT_IOU


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
