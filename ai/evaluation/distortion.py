"""The distortion metrics against the simulator's field: how far the measured shift is from the true one.

The true shift of a voxel is field (Hz) x effective echo spacing x encoded field of view. Simulated rectal gas bends
images far more steeply than most patients' does, so errors at the higher severities are a worst case.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import pearsonr, spearmanr

from ai.evaluation.simulated import FULL_PROTOCOLS, MemorySource
from ai.quality.distortion import Displacement, displacement
from ai.simulation.anatomy import Anatomy, random_anatomy
from ai.simulation.artifacts.echo_planar import DISTORTION_FIELD_FACTOR
from ai.simulation.export import series_datasets
from ai.simulation.off_resonance import off_resonance_hz
from ai.simulation.protocol import DWI, SeriesKind
from ai.simulation.sequences import acquire
from ai.simulation.study import simulate_study
from ai.volumes.assemble import assemble
from ai.volumes.load import load_volume
from ai.volumes.types import Role, Volume

TUNING_SEEDS = frozenset({3, 4, 5, 6})
"""Simulated seeds on which the registration's constants were chosen, together with ProstateX-0000 and -0001."""

PERCENTILE = 95.0


@dataclass(frozen=True)
class DistortionRecord:
    """True and measured shift over the judged centre of one simulated study, in mm.

    ``true_p95_mm`` and ``measured_p95_mm`` are 95th percentiles of the distance from T2, ``..._rigid_mm`` medians with
    sign, ``error_mm`` the median distance between the two fields.
    """

    seed: int
    severity: int
    true_p95_mm: float
    measured_p95_mm: float
    true_rigid_mm: float
    measured_rigid_mm: float
    error_mm: float


@dataclass(frozen=True)
class SeverityRow:
    """Means over the seeds at one severity, in mm."""

    severity: int
    studies: int
    true_p95_mm: float
    measured_p95_mm: float
    bias_mm: float
    median_error_mm: float


@dataclass(frozen=True)
class DistortionSummary:
    """Agreement of measured and true displacement over all severities and seeds; None with fewer than three studies."""

    seeds: tuple[int, ...]
    held_out: bool
    pearson_p95: float | None
    spearman_p95: float | None
    pearson_rigid: float | None
    rows: tuple[SeverityRow, ...]

    def document(self) -> dict[str, Any]:
        """The summary for JSON."""
        return asdict(self)


def evaluate_distortion(
    seeds: Sequence[int],
    spacing_mm: tuple[float, float, float] = (1.0, 0.6, 0.6),
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[DistortionRecord]:
    """Simulate every seed clean and at every severity of distortion; compare the measured shift with the field."""
    draw: Callable[..., Anatomy] = lru_cache(1)(random_anatomy)
    for seed in seeds:
        for severity in range(len(DISTORTION_FIELD_FACTOR) + 1):
            progress(f"seed {seed}, distortion {severity}")
            anatomy = draw(seed, rectal_gas=True, spacing_mm=spacing_mm)
            t2, diffusion = _volumes(seed, severity, anatomy, spacing_mm)
            found = displacement(t2, diffusion)
            factor = DISTORTION_FIELD_FACTOR[severity - 1] if severity else 0.0
            yield _record(seed, severity, found, true_shift_mm(anatomy, diffusion, found, factor))


def true_shift_mm(anatomy: Anatomy, diffusion: Volume, found: Displacement, field_factor: float) -> NDArray[np.float64]:
    """The shift that ``field_factor`` times the field of the anatomy's gas causes, on the grid of ``found``."""
    raw = acquire(anatomy, DWI)[0]
    extent_mm = raw.extent_mm[raw.phase_axis - 1]
    per_hz_mm = DWI.echo_spacing_ms / 1000.0 * extent_mm
    shift_mm = off_resonance_hz(anatomy, DWI, raw) * per_hz_mm * field_factor
    voxels = np.stack(np.meshgrid(*(np.arange(size) for size in found.grid.shape), indexing="ij"), -1)
    index = diffusion.geometry.to_index(found.grid.to_lps_mm(voxels.reshape(-1, 3).astype(np.float64)))
    # Both grids have their transform's centre at index n // 2.
    for axis, (extent, samples) in enumerate(zip(raw.extent_mm, raw.data.shape[1:], strict=True), start=1):
        offset_mm = (index[:, axis] - diffusion.geometry.shape[axis] // 2) * diffusion.geometry.spacing_mm[axis]
        index[:, axis] = offset_mm / (extent / samples) + samples // 2
    return np.asarray(ndimage.map_coordinates(shift_mm, index.T, order=1, mode="nearest")).reshape(found.grid.shape)


def summarise(records: Sequence[DistortionRecord]) -> DistortionSummary:
    """Correlation over all records, bias per severity."""
    rows = []
    for severity in sorted({record.severity for record in records}):
        own = [record for record in records if record.severity == severity]
        true, measured, error = (
            float(np.mean([getattr(record, name) for record in own]))
            for name in ("true_p95_mm", "measured_p95_mm", "error_mm")
        )
        rows.append(SeverityRow(severity, len(own), true, measured, measured - true, error))
    seeds = tuple(sorted({record.seed for record in records}))
    pairs = [(record.true_p95_mm, record.measured_p95_mm) for record in records]
    rigid = [(record.true_rigid_mm, record.measured_rigid_mm) for record in records]
    return DistortionSummary(
        seeds=seeds,
        held_out=not TUNING_SEEDS.intersection(seeds),
        pearson_p95=_correlation(pearsonr, pairs),
        spearman_p95=_correlation(spearmanr, pairs),
        pearson_rigid=_correlation(pearsonr, rigid),
        rows=tuple(rows),
    )


def _correlation(of: Callable[..., Any], pairs: Sequence[tuple[float, float]]) -> float | None:
    if len(pairs) < 3:
        return None
    true, measured = zip(*pairs, strict=True)
    return float(of(true, measured)[0])


def _volumes(
    seed: int, severity: int, anatomy: Anatomy, spacing_mm: tuple[float, float, float]
) -> tuple[Volume, Volume]:
    """The axial T2 and the DWI of the lowest b-value; also the clean study has the gas, but no field."""
    study = simulate_study(
        seed, "distortion", severity, protocols=FULL_PROTOCOLS, spacing_mm=spacing_mm, draw=lambda *_, **__: anatomy
    )
    chosen = [study.of(SeriesKind.T2_AXIAL), study.of(SeriesKind.DWI)]
    datasets = [dataset for series in chosen for dataset in series_datasets(study, series)]
    source = MemorySource({str(one.SOPInstanceUID): one.pixel_array.astype(np.float32) for one in datasets})
    stacks = assemble(datasets).stacks
    t2 = next(entry.stack for entry in stacks if entry.role == Role.T2W_AXIAL)
    lowest = min(
        (entry.stack for entry in stacks if entry.role == Role.DWI),
        key=lambda stack: stack.b_value.s_per_mm2 if stack.b_value else 0.0,
    )
    return load_volume(t2, source), load_volume(lowest, source)


def _record(seed: int, severity: int, found: Displacement, true_mm: NDArray[np.float64]) -> DistortionRecord:
    true, measured = true_mm[found.centre], found.shift_mm[found.centre]
    return DistortionRecord(
        seed=seed,
        severity=severity,
        true_p95_mm=float(np.percentile(np.abs(true), PERCENTILE)),
        measured_p95_mm=float(np.percentile(np.abs(measured), PERCENTILE)),
        true_rigid_mm=float(np.median(true)),
        measured_rigid_mm=float(np.median(measured)),
        error_mm=float(np.median(np.abs(measured - true))),
    )
