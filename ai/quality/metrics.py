"""Image metrics of a volume and of its slices: every value with its UCUM unit, or a reason why there is none.

Formulas and sources are in the modules of one subject each: noise, sharpness, motion, ghosting, uniformity. All are
independent of the intensity scale except ``noise_sigma`` and ``signal``. Metrics are taken on the acquired grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.quality import ghosting, motion, noise, sharpness, uniformity
from ai.quality.acquired import AcquiredGrid, acquired_grid, central_box, to_acquired
from ai.quality.types import Metric
from ai.volumes.types import Role, SliceReference, Volume

ARBITRARY = "[arb'U]"
RATIO = "1"

MAP_ROLES = frozenset({Role.ADC, Role.DWI_CALCULATED})
"""Computed maps: no magnitude images, background set to zero, stored on the grid they were computed on."""

REBLUR_MM: Mapping[str, float] = {Role.DWI: 2.5, Role.DWI_CALCULATED: 2.5, Role.ADC: 2.5}
"""SD of the reblur for edge widths, about one acquired voxel of echo-planar images; others take REBLUR_MM_DEFAULT."""
REBLUR_MM_DEFAULT = 1.0

MAXIMUM_SLICES = 512
"""Slices measured at most: a longer stack is no prostate MR and would take minutes."""


@dataclass(frozen=True)
class Definition:
    """What a metric is: UCUM unit, meaning, and the reason given where it cannot be computed."""

    unit: str
    meaning: str
    absent: str


DEFINITIONS: Mapping[str, Definition] = {
    "noise_sigma": Definition(
        ARBITRARY, "Noise SD from the finest Haar detail of the central box", "too little tissue"
    ),
    "signal": Definition(ARBITRARY, "Median tissue signal of the central box", "too little tissue"),
    "snr": Definition(
        RATIO, "Signal over noise SD, corrected for the Rician floor of white noise", "no noise or too little tissue"
    ),
    "structure_to_noise": Definition(
        RATIO, "5th to 95th percentile range of the smoothed central box over noise SD", "no noise or too little tissue"
    ),
    "cnr": Definition(
        RATIO, "Difference of the two Otsu tissue classes over noise SD", "no noise or too little tissue"
    ),
    "edge_width": Definition(
        "mm", "Full width at half maximum of the blur of step edges", "gradients are noise or none"
    ),
    "gradient_concentration": Definition(RATIO, "RMS over mean gradient, 1.13 for noise", "flat image"),
    "phase_correlation_ratio": Definition(
        RATIO, "Long-range autocorrelation along phase over frequency", "phase direction unknown or image too small"
    ),
    "ghost_prominence": Definition(
        RATIO,
        "Sharpest autocorrelation peak along phase less that along frequency",
        "phase direction unknown or image too small",
    ),
    "entropy_focus": Definition(RATIO, "Entropy focus criterion, 0 focused to 1 spread", "empty image"),
    "bias_field_range": Definition(RATIO, "95th over 5th percentile of a second-order field", "too little tissue"),
    "hot_spot_ratio": Definition(RATIO, "99.5th percentile of slice over that of its central box", "empty centre"),
    "clipped_fraction": Definition(RATIO, "Share of tissue pixels at the volume's highest value", "empty image"),
    "signal_drop": Definition(RATIO, "Log drop of a slice's signal below its weaker neighbour", "too little tissue"),
    "valid_fraction": Definition(RATIO, "Share of the central box that is not zero, 0 if constant", "empty image"),
}
"""Metrics that every slice has; a volume has their medians (``signal_drop`` and ``clipped_fraction``: their maxima)."""

MAXIMUM_METRICS = frozenset({"signal_drop", "clipped_fraction"})


@dataclass(frozen=True)
class SliceMetrics:
    """The metrics of one slice of a stack, by name."""

    reference: SliceReference
    metrics: tuple[Metric, ...]

    def value(self, name: str) -> float | None:
        """The value of a metric, None where it could not be computed."""
        return next(metric.value for metric in self.metrics if metric.name == name)


def slice_metrics(volume: Volume, role: str) -> tuple[SliceMetrics, ...]:
    """Metrics of every stored slice of a volume, in the order of ``volume.stack.slices``.

    Raises:
        ValueError: the volume has no regular geometry or more than MAXIMUM_SLICES slices.
    """
    stack = volume.stack
    if len(stack.slices) > MAXIMUM_SLICES:
        raise ValueError(f"{len(stack.slices)} slices are more than the {MAXIMUM_SLICES} that are measured")
    grid = acquired_grid(stack)
    if role in MAP_ROLES:
        spacing = volume.geometry.spacing_mm
        grid = AcquiredGrid((stack.rows, stack.columns), (spacing[1], spacing[2]), grid.phase_axis, grid.known)
    pixels = [_finite(volume.pixels[index]) for index in stack.slice_indices]
    ceiling = max((float(image.max()) for image in pixels), default=0.0)
    values = [_slice_values(image, grid, role, ceiling) for image in pixels]
    signals = np.array([np.nan if image.mean() <= 0 else image.mean() for image in pixels])
    for value, drop in zip(values, uniformity.neighbour_deviation(signals), strict=True):
        value["signal_drop"] = None if np.isnan(drop) else float(drop)
    return tuple(
        SliceMetrics(reference, tuple(_metric(name, value[name]) for name in DEFINITIONS))
        for reference, value in zip(stack.slices, values, strict=True)
    )


def volume_metrics(volume: Volume, role: str, slices: Sequence[SliceMetrics] | None = None) -> tuple[Metric, ...]:
    """Metrics of a volume: medians over its slices, air-based ones from its middle slice, coverage and completeness.

    ``slices`` saves measuring the slices again.
    """
    measured = slice_metrics(volume, role) if slices is None else slices
    medians = tuple(_summary(name, measured) for name in DEFINITIONS)
    return medians + _air_metrics(volume, role) + completeness_metrics(volume)


def completeness_metrics(volume: Volume) -> tuple[Metric, ...]:
    """Coverage along the slice normal, missing and duplicate slices; they need no pixels."""
    stack = volume.stack
    count, spacing = volume.geometry.shape[0], volume.geometry.spacing_mm[0]
    thickness = stack.acquisition.slice_thickness_mm or spacing
    covered = (count - 1) * spacing + thickness
    missing = len(stack.missing_slice_indices)
    return (
        Metric("coverage", covered, "mm", "Extent from the first to the last slice, thickness included"),
        Metric("missing_slices", float(missing), "{slices}", "Gaps inside the stack"),
        Metric("missing_fraction", missing / count, RATIO, "Share of the grid without an image"),
        Metric("duplicate_slices", float(len(stack.duplicates)), "{slices}", "Further images at a taken position"),
    )


def _finite(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pixels as float64 with NaN and infinities as 0, so that a padding value cannot poison a whole slice."""
    return np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _slice_values(image: NDArray[np.float64], grid: AcquiredGrid, role: str, ceiling: float) -> dict[str, float | None]:
    values: dict[str, float | None] = dict.fromkeys(DEFINITIONS)
    values["clipped_fraction"] = uniformity.clipped_fraction(image, ceiling)
    centre = central_box(image)
    values["valid_fraction"] = float(np.mean(centre != 0)) if centre.max() > centre.min() else 0.0
    if image.max() <= 0 or image.min() == image.max() or min(grid.shape) < 32:
        return values
    acquired = to_acquired(image, grid)
    box = central_box(acquired)
    measured = noise.slice_noise(box, magnitude=role not in MAP_ROLES)
    sigma = measured.sigma if measured else 0.0
    if measured:
        values |= {"signal": measured.signal, "noise_sigma": sigma or None, "snr": measured.snr}
    values["structure_to_noise"] = noise.structure_to_noise(box, sigma)
    values["cnr"] = uniformity.contrast_to_noise(box, sigma)
    kernel = REBLUR_MM.get(role, REBLUR_MM_DEFAULT)
    values["edge_width"] = sharpness.edge_width_mm(box, grid.spacing_mm, kernel, sigma)
    values["gradient_concentration"] = motion.gradient_concentration(box, grid.spacing_mm)
    if grid.phase_axis is not None:
        correlation = motion.phase_correlation(box, grid.spacing_mm, grid.phase_axis)
        values["phase_correlation_ratio"] = correlation.ratio if correlation else None
        values["ghost_prominence"] = ghosting.ghost_prominence(acquired, grid.spacing_mm, grid.phase_axis)
    values["entropy_focus"] = uniformity.entropy_focus(acquired)
    values["bias_field_range"] = uniformity.bias_field_range(acquired)
    values["hot_spot_ratio"] = uniformity.hot_spot_ratio(acquired, box)
    return values


def _metric(name: str, value: float | None) -> Metric:
    definition = DEFINITIONS[name]
    return Metric(name, value, definition.unit, definition.meaning, definition.absent if value is None else "")


def _summary(name: str, slices: Sequence[SliceMetrics]) -> Metric:
    values = [value for value in (entry.value(name) for entry in slices) if value is not None]
    if not values:
        return _metric(name, None)
    return _metric(name, float(np.max(values) if name in MAXIMUM_METRICS else np.median(values)))


def _air_metrics(volume: Volume, role: str) -> tuple[Metric, ...]:
    """Air-based noise and ghost ratio of the middle slice: references where there is air, never part of the score."""
    sigma_meaning, ghost_meaning = "Noise SD from air, Rayleigh corrected", "ACR ghosting ratio from air"
    if role in MAP_ROLES:
        reason = "a computed map has no noise in air"
        return (
            Metric("noise_sigma_air", None, ARBITRARY, sigma_meaning, reason),
            Metric("air_ghost_ratio", None, RATIO, ghost_meaning, reason),
        )
    grid = acquired_grid(volume.stack)
    image = to_acquired(_finite(volume.pixels[volume.stack.slice_indices[len(volume.stack.slices) // 2]]), grid)
    sigma, why_no_sigma = noise.air_noise_sigma(image)
    ghost, why_no_ghost = None, "phase direction unknown"
    if grid.phase_axis is not None:
        ghost, why_no_ghost = ghosting.air_ghost_ratio(image, grid.phase_axis)
    return (
        Metric("noise_sigma_air", sigma, ARBITRARY, sigma_meaning, why_no_sigma),
        Metric("air_ghost_ratio", ghost, RATIO, ghost_meaning, why_no_ghost),
    )
