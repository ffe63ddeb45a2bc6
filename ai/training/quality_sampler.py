"""From a clean series to its cases: every artefact at rising severity, mixtures of two, and the clean series itself.

Each slice is degraded in k-space, compared with its clean twin, measured, and cut for the network; that is all that
training and evaluation ever see of an image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.quality.acquired import AcquiredGrid, acquired_grid, acquired_resolution, central_box, to_acquired
from ai.quality.concepts import Concept
from ai.quality.definitions import METRIC_NAMES
from ai.quality.full_reference import damage_region, gmsd, haarpsi
from ai.quality.metrics import image_metrics
from ai.quality.network.inputs import intensity_limits, slice_input
from ai.quality.network.physics import physics_of
from ai.quality.noise import foreground, haar_noise_sigma
from ai.quality.prompts import prompt_of
from ai.quality.salience import salient_slices
from ai.simulation.artifacts import ARTIFACTS
from ai.simulation.artifacts.resolution import kept_share
from ai.simulation.substrate import Substrate, degrade_many, substrate_of
from ai.training.alignment import aligned
from ai.training.quality_cases import CONCEPT_OF_ARTIFACT, Case, CaseSet, Slices, concept_damage
from ai.training.substrates import CleanSeries

Artifacts = tuple[tuple[str, float], ...]
Degrade = Callable[[Substrate, Artifacts, int, Sequence[int]], NDArray[np.float32]]
"""How a simulator is called: substrate, artefacts with severities, seed, slices -> float32 [slice, row, column]."""

LEVELS = (0.6, 1.4, 2.3, 3.3, 4.4)
"""Severities of a case of each artefact; a random part of a level is added, so that they are not all alike."""
LEVEL_JITTER = 0.6
MIXTURES = 8
"""Cases with two artefacts of different concepts."""
CLEAN_CASES = 1
SLICES_PER_CASE = 5
"""Of the seven salient ones; neighbours say much the same."""


@dataclass(frozen=True)
class Plan:
    """What is made of one series: the corruptions, in the order in which they are made."""

    corruptions: tuple[Artifacts, ...]
    slices: tuple[int, ...]


def plan(substrate: Substrate, slices: Sequence[int], seed: int, mixtures: int = MIXTURES) -> Plan:
    """Clean once, every artefact that happens in this kind of series at ``LEVELS``, and ``mixtures`` of two."""
    rng = np.random.default_rng([seed, 13])
    names = [name for name, artifact in ARTIFACTS.items() if substrate.kind in artifact.applies_to]
    single = [((name, float(level + LEVEL_JITTER * rng.random())),) for name in names for level in LEVELS]
    mixed = []
    for _ in range(mixtures):
        first, second = rng.choice(names, 2, replace=False)
        mixed.append(((str(first), float(rng.uniform(0.3, 4))), (str(second), float(rng.uniform(0.3, 4)))))
    return Plan(((), *single, *mixed), tuple(slices))


def sample(series: CleanSeries, seed: int, mixtures: int = MIXTURES) -> CaseSet:
    """All cases of a series by our own simulator.

    Raises:
        ValueError: the series cannot be taken back to raw data; the message says why.
    """
    substrate = substrate_of(series.volume, series.entry.role, series.patient)
    chosen = [choice.index for choice in salient_slices(series.volume, SLICES_PER_CASE)]
    return sample_plan(series, substrate, plan(substrate, chosen, seed, mixtures), seed, _degrade, "pacsgate")


def _degrade(substrate: Substrate, artifacts: Artifacts, seed: int, slices: Sequence[int]) -> NDArray[np.float32]:
    return degrade_many(substrate, artifacts, seed, slices)


def sample_plan(
    series: CleanSeries, substrate: Substrate, wanted: Plan, seed: int, degrade: Degrade, simulator: str
) -> CaseSet:
    """The cases of a plan, made by any simulator."""
    grid = acquired_grid(series.entry.stack)
    clean = stored(degrade(substrate, (), seed, wanted.slices))
    originals = [to_acquired(image.astype(np.float64), grid) for image in clean]
    cases, rows = [], []
    for number, artifacts in enumerate(wanted.corruptions):
        case = Case(series.name, series.patient, series.vendor, series.family, artifacts, seed + number, simulator)
        cases.append(case)
        images = stored(degrade(substrate, artifacts, seed + number, wanted.slices)) if artifacts else clean
        rows += [(number, *row) for row in _rows(series, grid, case, images, originals)]
    return CaseSet(tuple(cases), _columns(rows))


def stored(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """As a scanner stores them, in whole numbers: the smallest steps of an image are part of what a metric sees."""
    return np.rint(images)


def _rows(
    series: CleanSeries,
    grid: AcquiredGrid,
    case: Case,
    images: NDArray[np.float32],
    originals: Sequence[NDArray[np.float64]],
) -> Iterator[tuple[object, ...]]:
    """Everything of each slice of a case, in the order of the columns of ``Slices`` after the first."""
    ceiling = float(images.max())
    prompt = prompt_of(series.entry).indices()
    acquired = [to_acquired(image.astype(np.float64), grid) for image in images]
    limits = intensity_limits(*acquired)
    for image, degraded, original in zip(images, acquired, originals, strict=True):
        region = damage_region(grid, degraded.shape)
        comparable = aligned(original, degraded, region) if case.displaces else degraded
        similarity = haarpsi(original, comparable, region)
        values = image_metrics(image.astype(np.float64), grid, series.entry.role, ceiling)
        cut = slice_input(degraded, grid.spacing_mm, limits)
        yield (
            similarity,
            gmsd(original, comparable, region),
            concept_damage(case.artifacts, 1.0 - similarity),
            physics_of(
                series.entry.stack,
                _noise_over_signal(case.artifacts, original, degraded),
                _resolution_mm(series, case.artifacts),
            ),
            [np.nan if values[name] is None else values[name] for name in METRIC_NAMES],
            prompt,
            cut.pixels[0],
            cut.pixel_mm,
        )


def _noise_over_signal(artifacts: Artifacts, clean: NDArray[np.float64], degraded: NDArray[np.float64]) -> float | None:
    """Own noise as measured and the noise that was added, over the median tissue signal; None where another artefact
    hides it."""
    if any(CONCEPT_OF_ARTIFACT[name] is not Concept.NOISE for name, _ in artifacts):
        return None
    box = central_box(clean)
    tissue = foreground(box)
    own = haar_noise_sigma(box)
    if own is None or not tissue.any():
        return None
    added = float(np.std((central_box(degraded) - box)[tissue])) if artifacts else 0.0
    return float(np.hypot(own, added)) / float(np.median(box[tissue]))


def _resolution_mm(series: CleanSeries, artifacts: Artifacts) -> float | None:
    """The coarser side of the acquired voxel, coarser still by what isotropic blur cut off."""
    if any(CONCEPT_OF_ARTIFACT[name] is Concept.BLUR and name != "blur" for name, _ in artifacts):
        return None
    resolution = acquired_resolution(series.entry.stack)
    if resolution.frequency_mm is None or resolution.phase_mm is None:
        return None
    kept = min((kept_share(severity) for name, severity in artifacts if name == "blur"), default=1.0)
    return max(resolution.frequency_mm, resolution.phase_mm) / kept


def _columns(rows: Sequence[tuple[object, ...]]) -> Slices:
    kinds = (np.int32, np.float32, np.float32, np.float32, np.float32, np.float32, np.int8, np.float16, np.float32)
    return Slices(*(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)))
