"""The ADC and high-b volumes detection works on: the scanner's where usable, else computed from the acquired b-values.

PI-RADS v2.1 (section III.B) asks for an ADC map and a b-value of at least 1400 s/mm2, which may be calculated from
lower ones. ADC is in um2/s, which is 1e-6 mm2/s, the unit most scanners store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from ai.volumes.diffusion_set import DiffusionSet, choose_diffusion_set, describe_series
from ai.volumes.geometry import resample, same_grid
from ai.volumes.load import load_volume
from ai.volumes.monoexponential import HIGH_B_S_PER_MM2, calculated_b, fit_adc, geometric_mean, positive_log
from ai.volumes.types import Assembly, Geometry, PixelSource, PixelsUnavailable, Role, RoledStack, Stack

__all__ = ["DerivedMap", "DiffusionMaps", "calculated_b", "derive_diffusion", "fit_adc"]

BODY_ADC_RANGE_UM2_PER_S = (300.0, 3000.0)
"""Where the median ADC of a pelvis lies: 1179 and 1088 on the ProstateX studies, below that of free water at body
temperature (3000). The lower end leaves no median with two units: the scanners' units are factors of 1000 apart."""
ADC_UNITS_UM2_PER_S = {"1e-6 mm2/s": 1.0, "1e-3 mm2/s": 1e3, "mm2/s": 1e6}
MIN_BODY_VOXELS = 1000
"""A median over fewer voxels says nothing about a unit."""

Origin = Literal["scanner", "acquired", "calculated", "computed"]
_Array = NDArray[np.float32]


@dataclass(frozen=True)
class DerivedMap:
    """A map on the grid of its ``DiffusionMaps``: float32 ``[slice, row, column]``, NaN where not computable.

    ``pixels`` and ``origin`` are None where the map cannot be had; ``sentence`` says what was done or why not.
    ``volume_ids`` are the volumes it was taken or computed from. ``b_s_per_mm2`` is None for an ADC map.
    """

    pixels: _Array | None
    origin: Origin | None
    sentence: str
    volume_ids: tuple[str, ...] = ()
    b_s_per_mm2: float | None = None


@dataclass(frozen=True)
class DiffusionMaps:
    """ADC in um2/s and the high b-value for detection, on one grid (that of the chosen diffusion series).

    ``scanner_adc`` and ``computed_adc`` are there side by side where both could be had; ``adc`` is the one to use.
    """

    geometry: Geometry | None
    frame_of_reference_uid: str
    adc: DerivedMap
    high_b: DerivedMap
    scanner_adc: DerivedMap
    computed_adc: DerivedMap


def derive_diffusion(
    assembly: Assembly, source: PixelSource, quality: Mapping[str, float] | None = None
) -> DiffusionMaps:
    """The ADC and high-b maps of a study. Never raises for what is in the study.

    Volumes that cannot be decoded are left out and named in the sentences. ``quality`` is that given to ``assemble``.
    """
    diffusion = choose_diffusion_set(assembly.stacks, quality)
    signals, damage = _signals(diffusion, source)
    anchor = _anchor(assembly, diffusion)
    geometry = anchor.geometry if anchor is not None else None
    scanner_adc = _scanner_adc(_chosen(assembly, "adc"), source, signals)
    computed_adc, computed_high_b = _computed(diffusion, signals, damage)
    stored_high_b = _stored_high_b(assembly, source, geometry)
    return DiffusionMaps(
        geometry=geometry,
        frame_of_reference_uid=anchor.frame_of_reference_uid if anchor is not None else "",
        adc=_first_available(scanner_adc, computed_adc),
        high_b=_first_available(stored_high_b, computed_high_b),
        scanner_adc=scanner_adc,
        computed_adc=computed_adc,
    )


def _first_available(preferred: DerivedMap, other: DerivedMap) -> DerivedMap:
    """The preferred map, else the other one with the reason why the preferred one is not there."""
    if preferred.pixels is not None:
        return preferred
    words = f"{preferred.sentence}; {other.sentence}"
    return DerivedMap(other.pixels, other.origin, words, other.volume_ids, other.b_s_per_mm2)


def _anchor(assembly: Assembly, diffusion: DiffusionSet | None) -> Stack | None:
    """The stack whose grid the maps are on."""
    if diffusion is not None:
        return diffusion.stacks[0]
    return _chosen(assembly, "adc") or _chosen(assembly, "high-b")


def _chosen(assembly: Assembly, purpose: str) -> Stack | None:
    volume_id = next((choice.volume_id for choice in assembly.choices if choice.purpose == purpose), None)
    return next((one.stack for one in assembly.stacks if one.stack.volume_id == volume_id), None)


def _signals(diffusion: DiffusionSet | None, source: PixelSource) -> tuple[dict[float, _Array], tuple[str, ...]]:
    """The trace-weighted signal per b-value, and what could not be decoded in words."""
    signals: dict[float, _Array] = {}
    damage: list[str] = []
    for b_value, stacks in (diffusion.stacks_by_b if diffusion is not None else {}).items():
        try:
            signals[b_value] = _trace(stacks, source)
        except PixelsUnavailable as error:
            damage.append(f"b = {b_value:g} left out: {error}")
    return signals, tuple(damage)


def _trace(stacks: Sequence[Stack], source: PixelSource) -> _Array:
    """The geometric mean over directions and repetitions, which is what a trace-weighted image is."""
    if len(stacks) == 1:
        return load_volume(stacks[0], source).pixels
    return geometric_mean(load_volume(stack, source).pixels for stack in stacks)


def _computed(
    diffusion: DiffusionSet | None, signals: Mapping[float, _Array], damage: Sequence[str]
) -> tuple[DerivedMap, DerivedMap]:
    """ADC and high b-value from the mono-exponential fit over all acquired b-values."""
    if diffusion is None or len(signals) < 2:
        missing = DerivedMap(None, None, "; ".join((*damage, "no two b-values to compute from")))
        return missing, missing
    adc, s0 = fit_adc(signals)
    used = tuple(stack.volume_id for b_value in signals for stack in diffusion.stacks_by_b[b_value])
    b_values = ", ".join(f"{b_value:g}" for b_value in sorted(signals))
    how = "; ".join((*damage, f"mono-exponential log-linear fit of all acquired b = {b_values} s/mm2"))
    return (
        DerivedMap(adc, "computed", f"ADC computed: {how}", used),
        DerivedMap(
            calculated_b(s0, adc, HIGH_B_S_PER_MM2),
            "computed",
            f"b = {HIGH_B_S_PER_MM2:g} s/mm2 computed: {how}",
            used,
            HIGH_B_S_PER_MM2,
        ),
    )


def _scanner_adc(stack: Stack | None, source: PixelSource, signals: Mapping[float, _Array]) -> DerivedMap:
    """The chosen ADC map of the scanner in um2/s, its unit told by its median over the body."""
    if stack is None:
        return DerivedMap(None, None, "no usable ADC map from the scanner")
    try:
        stored = load_volume(stack, source).pixels
    except PixelsUnavailable as error:
        return DerivedMap(None, None, f"the scanner's ADC map {describe_series(stack)} cannot be decoded: {error}")
    body = stored[_body(stored, signals)]
    if body.size < MIN_BODY_VOXELS:
        return DerivedMap(None, None, f"the scanner's ADC map {describe_series(stack)} is nearly empty")
    median = float(np.median(body))
    low, high = BODY_ADC_RANGE_UM2_PER_S
    for unit, factor in ADC_UNITS_UM2_PER_S.items():
        if low <= median * factor <= high:
            words = (
                f"ADC of the scanner, {describe_series(stack)}, stored in {unit} (median {median * factor:.0f} um2/s)"
            )
            return DerivedMap(stored * np.float32(factor), "scanner", words, (stack.volume_id,))
    words = f"the scanner's ADC map {describe_series(stack)} has an implausible median of {median:g} in any known unit"
    return DerivedMap(None, None, words)


def _body(stored: _Array, signals: Mapping[float, _Array]) -> NDArray[np.bool_]:
    """Voxels of tissue: positive ADC and, where there is a signal, above air at the lowest b-value.

    Otsu's threshold is taken of the logarithm: of the signal itself it parts the bladder from everything else.
    """
    body = np.isfinite(stored) & (stored > 0)
    if signals:
        log_signal = positive_log(signals[min(signals)])
        present = log_signal[np.isfinite(log_signal)]
        if log_signal.shape == stored.shape and present.size and present.min() < present.max():
            body &= log_signal > threshold_otsu(present)
    return np.asarray(body)


def _stored_high_b(assembly: Assembly, source: PixelSource, geometry: Geometry | None) -> DerivedMap:
    """The chosen acquired or calculated b-value, on the maps' grid."""
    chosen = _chosen(assembly, "high-b")
    if chosen is None or chosen.b_value is None:
        return DerivedMap(None, None, "no stored high b-value")
    siblings = [one for one in assembly.stacks if _same_image(one.stack, chosen)]
    try:
        pixels = _trace([one.stack for one in siblings], source)
    except PixelsUnavailable as error:
        return DerivedMap(None, None, f"{describe_series(chosen)} cannot be decoded: {error}")
    words = [f"b = {chosen.b_value.s_per_mm2:g} s/mm2 {_origin_words(siblings[0])}, {describe_series(chosen)}"]
    if len(siblings) > 1:
        words.append(f"geometric mean of {len(siblings)} directions or repetitions")
    if geometry is not None and chosen.geometry is not None and not same_grid(chosen.geometry, geometry):
        pixels = resample(pixels, chosen.geometry, geometry, order=1)
        words.append("resampled to the diffusion grid")
    if chosen.b_value.s_per_mm2 < HIGH_B_S_PER_MM2:
        words.append(f"expected b-value of {HIGH_B_S_PER_MM2:g} s/mm2 or more missing")
    return DerivedMap(
        pixels,
        "acquired" if siblings[0].role == Role.DWI else "calculated",
        "; ".join(words),
        tuple(one.stack.volume_id for one in siblings),
        chosen.b_value.s_per_mm2,
    )


def _origin_words(roled: RoledStack) -> str:
    return "acquired" if roled.role == Role.DWI else "calculated by the scanner"


def _same_image(stack: Stack, chosen: Stack) -> bool:
    """Whether a stack is the chosen one or another direction or repetition of it."""
    if stack.series_instance_uid != chosen.series_instance_uid or stack.b_value != chosen.b_value:
        return False
    if stack.geometry is None or chosen.geometry is None:
        return stack is chosen
    same_type = stack.acquisition.image_type == chosen.acquisition.image_type
    return same_type and same_grid(stack.geometry, chosen.geometry)
