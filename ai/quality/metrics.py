"""Image metrics of a volume and of its slices: every value with its UCUM unit, or a reason why there is none.

The list is in ``definitions``; formulas and sources are in the modules of one subject each: noise, sharpness, spectrum,
naturalness, motion, ghosting, lines, uniformity. All are independent of the intensity scale except ``noise_sigma`` and
``signal``, and of flips. Metrics are taken on the acquired grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.quality import ghosting, lines, motion, naturalness, noise, sharpness, spectrum, uniformity
from ai.quality.acquired import AcquiredGrid, acquired_grid, central_box, stored_grid, to_acquired
from ai.quality.definitions import ARBITRARY, DEFINITIONS, MAXIMUM_METRICS, METRIC_NAMES, RATIO
from ai.quality.types import Metric
from ai.volumes.types import Role, SliceReference, Volume

MAP_ROLES = frozenset({Role.ADC, Role.DWI_CALCULATED})
"""Computed maps: no magnitude images, background set to zero, stored on the grid they were computed on."""

REBLUR_MM: Mapping[str, float] = {Role.DWI: 2.5, Role.DWI_CALCULATED: 2.5, Role.ADC: 2.5}
"""SD of the reblur for edge widths, about one acquired voxel of echo-planar images; others take REBLUR_MM_DEFAULT."""
REBLUR_MM_DEFAULT = 1.0

MINIMUM_LINES = 32
"""Fewest acquired lines per axis of an image that is measured: below it is a scout's icon, no image."""

MAXIMUM_SLICES = 512
"""Slices measured at most: a longer stack is no prostate MR and would take minutes."""


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
    grid = stored_grid(stack) if role in MAP_ROLES else acquired_grid(stack)
    pixels = [_finite(volume.pixels[index]) for index in stack.slice_indices]
    ceiling = max((float(image.max()) for image in pixels), default=0.0)
    values = [image_metrics(image, grid, role, ceiling) for image in pixels]
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


def image_metrics(
    image: NDArray[np.float64], grid: AcquiredGrid, role: str, ceiling: float | None = None
) -> dict[str, float | None]:
    """Metrics of one slice ``[row, column]`` by name, in the order of METRIC_NAMES; None where one cannot be computed.

    Args:
        image: pixels of the stored grid.
        grid: what of it was acquired.
        role: a ``Role``; computed maps are no magnitude images.
        ceiling: highest value of the volume, against which clipping is counted; None: the image's own.

    Raises:
        ValueError: a pixel is not finite.
    """
    if not np.isfinite(image).all():
        raise ValueError("an image with pixels that are not finite has no metrics; replace them first")
    values: dict[str, float | None] = dict.fromkeys(METRIC_NAMES)
    highest = float(image.max())
    values["clipped_fraction"] = uniformity.clipped_fraction(image, highest if ceiling is None else ceiling)
    centre = central_box(image)
    values["valid_fraction"] = float(np.mean(centre != 0)) if centre.max() > centre.min() else 0.0
    if highest <= 0 or image.min() == highest or min(grid.shape) < MINIMUM_LINES:
        return values
    acquired = to_acquired(image, grid)
    box = central_box(acquired)
    tissue = noise.foreground(box)
    measured = noise.slice_noise(box, tissue, magnitude=role not in MAP_ROLES)
    sigma = measured.sigma if measured else 0.0
    if measured:
        values |= {"signal": measured.signal, "noise_sigma": sigma or None, "snr": measured.snr}
    values |= _noise_values(box, sigma)
    values |= _sharpness_values(box, grid, role, sigma)
    values |= _texture_values(box, grid)
    values |= _repetition_values(acquired, grid)
    values |= _uniformity_values(acquired, box, tissue, sigma)
    return values


def _noise_values(box: NDArray[np.float64], sigma: float) -> dict[str, float | None]:
    return {
        "structure_to_noise": noise.structure_to_noise(box, sigma),
        "laplacian_to_haar_noise": noise.laplacian_noise_sigma(box) / sigma if sigma > 0 else None,
        "haar_kurtosis": noise.haar_kurtosis(box),
    }


def _sharpness_values(box: NDArray[np.float64], grid: AcquiredGrid, role: str, sigma: float) -> dict[str, float | None]:
    kernel = REBLUR_MM.get(role, REBLUR_MM_DEFAULT)
    blurs = [sharpness.perceptual_blur(box, axis) for axis in (0, 1)]
    values = {"edge_width": sharpness.edge_width_mm(box, grid.spacing_mm, kernel, sigma)}
    if blurs[0] is not None and blurs[1] is not None:
        values["perceptual_blur"] = max(blurs[0], blurs[1])
        if grid.phase_axis is not None:
            along = blurs[0] - blurs[1]
            values["perceptual_blur_difference"] = along if grid.phase_axis == 0 else -along
    return values


def _texture_values(box: NDArray[np.float64], grid: AcquiredGrid) -> dict[str, float | None]:
    """Gradients, spectrum and local contrast of the central box."""
    gradient = motion.gradient_magnitude(box, grid.spacing_mm)
    power = spectrum.power_spectrum(box)
    contrast = naturalness.local_contrast(box)
    values = {
        "gradient_concentration": motion.gradient_concentration(gradient),
        "gradient_entropy": motion.gradient_entropy(gradient),
        "high_frequency_share": spectrum.high_frequency_share(power),
        "spectral_slope": spectrum.spectral_slope(power),
    }
    if grid.phase_axis is not None:
        values["spectral_anisotropy"] = spectrum.spectral_anisotropy(power, grid.phase_axis)
    if contrast is not None:
        values["mscn_shape"] = contrast.shape
        values["mscn_variance"] = contrast.variance
        values["mscn_product_asymmetry"] = contrast.product_asymmetry
    return values


def _repetition_values(acquired: NDArray[np.float64], grid: AcquiredGrid) -> dict[str, float | None]:
    """What shows in the whole slice: ghosts, fold-over, zippers, spikes."""
    values = {
        "spike_ratio": spectrum.spike_ratio(spectrum.power_spectrum(acquired)),
        "zipper_ratio": lines.zipper_ratio(acquired),
    }
    if grid.phase_axis is None:
        return values
    detail = motion.local_detail(acquired)
    values["wrap_continuity"] = lines.wrap_continuity(acquired, grid.phase_axis)
    values["phase_correlation_ratio"] = motion.phase_correlation_ratio(
        central_box(detail), grid.spacing_mm, grid.phase_axis
    )
    phase, frequency = (
        ghosting.repetition(detail, grid.spacing_mm[axis], axis) for axis in (grid.phase_axis, 1 - grid.phase_axis)
    )
    if phase is not None and frequency is not None:
        values["ghost_prominence"] = ghosting.ghost_prominence(phase, frequency)
        values["nyquist_ghost"] = ghosting.nyquist_ghost(phase, frequency)
    return values


def _uniformity_values(
    acquired: NDArray[np.float64], box: NDArray[np.float64], tissue: NDArray[np.bool_], sigma: float
) -> dict[str, float | None]:
    return {
        "cnr": uniformity.contrast_to_noise(box[tissue], sigma),
        "void_fraction": 1.0 - float(tissue.mean()),
        "entropy_focus": uniformity.entropy_focus(acquired),
        "bias_field_range": uniformity.bias_field_range(acquired),
        "hot_spot_ratio": uniformity.hot_spot_ratio(acquired, box),
    }


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
