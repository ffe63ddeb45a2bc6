"""The reference detector: prostate region, suspicion map, candidates; no training, no randomness.

What a learned detector must beat. Its parts and their sources are in ``gland``, ``suspicion`` and ``candidates``;
this module takes a study, checks that T2 and diffusion show the same place, and never guesses where they do not.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import structlog
from numpy.typing import NDArray

from ai.detection.candidates import MAXIMUM_CANDIDATES, PEAK_SHARE, extract_candidates, measure
from ai.detection.gland import locate_gland
from ai.detection.suspicion import CHANCE_Z, LESION_SCALE_MM, WEIGHTS, SuspicionNotComputable, suspicion
from ai.detection.types import Algorithm, DetectionResult, DetectionState, Diffusion
from ai.volumes.adc import DiffusionMaps, derive_diffusion
from ai.volumes.diffusion_set import choose_diffusion_set, comparable_frame_of_reference
from ai.volumes.geometry import Box, crop, overlap_fraction, resample
from ai.volumes.load import load_volume
from ai.volumes.select import MIN_B_VALUES_FOR_A_FIT
from ai.volumes.types import Assembly, Geometry, PixelSource, PixelsUnavailable, Stack, Volume

log = structlog.get_logger(__name__)

OPERATING_POINT = 0.5
"""Where chance alone is expected to give one mark per gland of ordinary size: the middle (on the logarithmic scale)
of the 1/8 to 8 false positives per scan over which detectors are compared."""

ALGORITHM = Algorithm(
    name="pacsgate-baseline",
    version="1.0.0",
    parameters=(
        f"weights ADC:high-b:T2 {WEIGHTS['adc']:g}:{WEIGHTS['high_b']:g}:{WEIGHTS['t2']:g}",
        f"lesion scale {LESION_SCALE_MM:.2f} mm",
        f"chance level z {CHANCE_Z:.2f}",
        f"candidate threshold {PEAK_SHARE:g} of peak",
        f"at most {MAXIMUM_CANDIDATES} candidates",
    ),
)

MINIMUM_OVERLAP = 0.8
"""T2 and diffusion must share at least this much of the smaller field of view to show the same place."""

MAXIMUM_VOXELS = 2**25
"""Four times a 3-D T2 volume of 512 x 512 x 32; more is refused before working copies are made."""

PLAUSIBLE_SPACING_MM = (0.15, 12.0)
"""Voxel edges of prostate MR run from 0.27 mm (interpolated T2) to 5 mm (thick diffusion slices); about twice that."""

MAXIMUM_SIGNAL = 1e9
"""Scanners store 12 to 16 bits; what exceeds this after rescaling is damage and counts as unknown."""

MAXIMUM_B_S_PER_MM2 = 5000.0
"""Prostate protocols acquire or calculate b up to 2000; beyond this the header is wrong."""

Progress = Callable[[str], None]


class CannotDetect(Exception):
    """An expected problem that ends the detection with state failed; the message becomes the reason."""


def detect(assembly: Assembly, source: PixelSource, progress: Progress | None = None) -> DetectionResult:
    """Look for lesion candidates in a study.

    Args:
        assembly: the study in volumes, with its choices of T2, ADC and high b.
        source: gives the pixels.
        progress: told in a few words what is being done.

    Returns:
        State ``not-attempted`` where axial T2 or diffusion is missing or they do not share a patient space,
        ``failed`` where pixels cannot be had or no prostate stands out, else ``succeeded`` with zero to five
        candidates. Expected problems never raise.
    """
    tell = progress or (lambda _step: None)
    t2_stack = chosen_t2(assembly)
    if t2_stack is None:
        return not_attempted(_why_missing(assembly, "t2w", "no axial T2-weighted volume"))
    try:
        tell("reading the T2-weighted volume and diffusion")
        maps = derive_diffusion(assembly, source)
        diffusion = _diffusion(maps)
        if diffusion is None:
            return _without_diffusion(assembly, maps)
        apart = why_not_registered(t2_stack, diffusion.geometry, maps.frame_of_reference_uid)
        if apart is not None:
            return not_attempted(apart)
        _check_plausible(t2_stack.geometry, diffusion)
        result = find_lesions(load_volume(t2_stack, source), diffusion, tell)
    except (PixelsUnavailable, SuspicionNotComputable, CannotDetect) as error:
        log.warning("detection failed", study_instance_uid=assembly.study_instance_uid, reason=str(error))
        return DetectionResult(DetectionState.FAILED, str(error), ALGORITHM)
    series = {roled.stack.volume_id: roled.stack.series_instance_uid for roled in assembly.stacks}
    used = dict.fromkeys(series[volume_id] for volume_id in (*maps.adc.volume_ids, *maps.high_b.volume_ids))
    reason = "; ".join((result.reason, maps.adc.sentence, maps.high_b.sentence))
    return replace(result, reason=reason, source_series_uids=tuple(used))


def find_lesions(t2: Volume, diffusion: Diffusion, tell: Progress = lambda _step: None) -> DetectionResult:
    """Candidates from volumes that lie in one patient space, whatever their grids.

    Args:
        t2: axial T2-weighted; its grid is the grid of the result.
        diffusion: ADC and high b.
        tell: told in a few words what is being done.

    Raises:
        CannotDetect: implausible geometry or b-value, or no prostate stands out.
        SuspicionNotComputable: diffusion covers less than half of the prostate region.
    """
    _check_plausible(t2.geometry, diffusion)
    t2 = replace(t2, pixels=_believable(t2.pixels))
    adc_um2_per_s, high_b = _believable(diffusion.adc_um2_per_s), _believable(diffusion.high_b)
    diffusion = replace(diffusion, adc_um2_per_s=adc_um2_per_s, high_b=high_b)
    tell("locating the prostate")
    gland = locate_gland(t2, diffusion)
    if not gland.any():
        raise CannotDetect("no structure stands out in the pelvis as the prostate would")
    tell("judging the prostate region")
    box = _box_around(gland)
    grid = crop(t2.geometry, box)
    adc = resample(diffusion.adc_um2_per_s, diffusion.geometry, grid, 1)
    bright = resample(diffusion.high_b, diffusion.geometry, grid, 1)
    deviation = suspicion(gland[box], adc, bright, t2.pixels[box], grid.spacing_mm)
    tell("measuring candidates")
    local_labels, peaks = extract_candidates(deviation, grid)
    labels = np.zeros(gland.shape, np.uint8)
    labels[box] = local_labels
    candidates = measure(local_labels, peaks, grid, adc, OPERATING_POINT)
    above = sum(candidate.above_operating_point for candidate in candidates)
    return DetectionResult(
        state=DetectionState.SUCCEEDED,
        reason=f"{len(candidates)} candidates, {above} at or above the operating point of {OPERATING_POINT:g}",
        algorithm=ALGORITHM,
        candidates=candidates,
        t2w=t2.stack,
        labels=labels,
        gland=gland,
        operating_point=OPERATING_POINT,
    )


def why_not_registered(t2: Stack, geometry: Geometry, frame_of_reference_uid: str) -> str | None:
    """Why diffusion cannot be laid over the T2 volume: other frame of reference, no grid, too little overlap."""
    if t2.geometry is None:
        return f"the T2-weighted series {t2.series_instance_uid} forms no regular grid"
    if not comparable_frame_of_reference(t2.frame_of_reference_uid, frame_of_reference_uid):
        return f"diffusion has another frame of reference than the T2-weighted series {t2.series_instance_uid}"
    share = overlap_fraction(t2.geometry, geometry)
    if share < MINIMUM_OVERLAP:
        return f"diffusion shares only {share:.0%} of the smaller field of view with the T2-weighted series"
    return None


def chosen_t2(assembly: Assembly) -> Stack | None:
    """The axial T2-weighted stack chosen for detection."""
    for choice in assembly.choices:
        if choice.purpose == "t2w" and choice.volume_id is not None:
            return next((r.stack for r in assembly.stacks if r.stack.volume_id == choice.volume_id), None)
    return None


def not_attempted(reason: str) -> DetectionResult:
    """A result that says why nothing was looked for."""
    return DetectionResult(DetectionState.NOT_ATTEMPTED, reason, ALGORITHM)


def _diffusion(maps: DiffusionMaps) -> Diffusion | None:
    geometry, adc, high_b, b_s_per_mm2 = maps.geometry, maps.adc.pixels, maps.high_b.pixels, maps.high_b.b_s_per_mm2
    if geometry is None or adc is None or high_b is None or b_s_per_mm2 is None:
        return None
    return Diffusion(geometry, adc, high_b, b_s_per_mm2)


def _without_diffusion(assembly: Assembly, maps: DiffusionMaps) -> DetectionResult:
    """Failed where the maps should have been there but could not be read, else not attempted."""
    reason = "; ".join((maps.adc.sentence, maps.high_b.sentence))
    chosen = any(c.volume_id is not None for c in assembly.choices if c.purpose == "adc")
    diffusion = choose_diffusion_set(assembly.stacks)
    computable = diffusion is not None and len(diffusion.stacks_by_b) >= MIN_B_VALUES_FOR_A_FIT
    if chosen or computable:
        return DetectionResult(DetectionState.FAILED, reason, ALGORITHM)
    return not_attempted(reason)


def _why_missing(assembly: Assembly, purpose: str, otherwise: str) -> str:
    return next((choice.reason for choice in assembly.choices if choice.purpose == purpose), otherwise)


def _check_plausible(geometry: Geometry | None, diffusion: Diffusion) -> None:
    """Raise CannotDetect for grids and b-values no prostate protocol has, before anything is computed on them."""
    low, high = PLAUSIBLE_SPACING_MM
    for name, grid in (("T2-weighted", geometry), ("diffusion", diffusion.geometry)):
        if grid is None or not all(low <= spacing <= high for spacing in grid.spacing_mm):
            raise CannotDetect(f"the {name} volume has no plausible voxel size")
        if math.prod(grid.shape) > MAXIMUM_VOXELS:
            raise CannotDetect(f"the {name} volume of {' x '.join(map(str, grid.shape))} voxels is too large")
    if not 0 < diffusion.b_s_per_mm2 <= MAXIMUM_B_S_PER_MM2:
        raise CannotDetect(f"a high b-value of {diffusion.b_s_per_mm2:g} s/mm2 is implausible")


def _believable(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels with NaN for values no scanner stores."""
    return np.where(np.abs(pixels) <= MAXIMUM_SIGNAL, pixels, np.float32(np.nan))


def _box_around(region: NDArray[np.bool_]) -> Box:
    """The bounding index box of a non-empty mask."""
    spans = [np.flatnonzero(region.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    slices, rows, columns = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return slices, rows, columns
