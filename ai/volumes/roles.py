"""What each stack is for, by physics: echo, timing, flip angle, diffusion weighting, plane. Descriptions never decide.

Limits follow PI-RADS v2.1 and the series this was measured on; each rule leaves its reason in words.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from ai.volumes.diffusion import adc_evidence, calculated_evidence, other_map_evidence
from ai.volumes.geometry import grid_key
from ai.volumes.stacks import tiled
from ai.volumes.types import Acquisition, Role, RoledStack, Stack, StackAnomaly

T2_MIN_ECHO_TIME_MS = 60.0
T2_MIN_REPETITION_TIME_MS = 2000.0
T1_SPIN_ECHO_MAX_REPETITION_TIME_MS = 1200.0
T1_SPIN_ECHO_MAX_ECHO_TIME_MS = 30.0
T1_GRADIENT_ECHO_MAX_ECHO_TIME_MS = 10.0
"""Above this T2* shows at 3 T."""
REFERENCE_T1_MS = 1412.0
"""Skeletal muscle at 3 T (Stanisz et al., Magn Reson Med 2005;54:507): a spoiled gradient echo flipping further than
the Ernst angle of this T1 is T1-weighted, below it is proton-density-weighted."""
LOCALIZER_MAX_SLICES = 9
LOCALIZER_MIN_THICKNESS_MM = 6.0
DCE_MIN_TIME_POINTS = 5
RELAXOMETRY_MIN_ECHOES = 3
PROCESSED_IMAGE_TYPES = {
    "SUBTRACTION": "a subtraction",
    "SUB": "a subtraction",
    "PROJECTION IMAGE": "a projection",
    "MIP": "a maximum intensity projection",
    "MINIP": "a minimum intensity projection",
    "SCREEN SAVE": "a screenshot",
}
PHASE_IMAGE_TYPES = frozenset({"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"})
"""Image Type value 3 or 4 of images that are no magnitude."""

_T2_ROLES = {"axial": Role.T2W_AXIAL, "sagittal": Role.T2W_SAGITTAL, "coronal": Role.T2W_CORONAL}
_Verdict = tuple[str, tuple[str, ...]]


def assign_roles(stacks: Sequence[Stack]) -> list[RoledStack]:
    """The stacks of one study with their roles, in the given order."""
    dynamic = _dynamic_phases(stacks)
    echoes = _echo_times(stacks)
    roled: list[RoledStack] = []
    for stack in stacks:
        role, reasons = _role(stack, dynamic.get(stack.volume_id, 0), echoes[stack.series_instance_uid])
        roled.append(RoledStack(stack, role, reasons))
    return roled


def _role(stack: Stack, phases: int, series_echoes: int) -> _Verdict:
    acquisition = stack.acquisition
    if acquisition.modality != "MR":
        return acquisition.modality.lower(), (f"modality {acquisition.modality}",)
    rules: tuple[Callable[[], _Verdict | None], ...] = (
        lambda: _not_a_volume(stack),
        lambda: _diffusion_map(acquisition),
        lambda: _localizer(stack),
        lambda: _diffusion(stack),
        lambda: _dynamic(stack, phases),
        lambda: _spin_echo(stack, series_echoes),
        lambda: _gradient_echo(acquisition),
    )
    for rule in rules:
        verdict = rule()
        if verdict is not None:
            return verdict
    sequence = "/".join(acquisition.scanning_sequence) or "unknown"
    return Role.OTHER, (f"scanning sequence {sequence} with {_timing(acquisition)} fits no role",)


def _not_a_volume(stack: Stack) -> _Verdict | None:
    acquisition = stack.acquisition
    packed = tiled(acquisition)
    if packed:
        return Role.OTHER, (f"{packed}; not split",)
    if acquisition.samples_per_pixel > 1:
        return Role.OTHER, ("a colour image",)
    processed = next(
        (PROCESSED_IMAGE_TYPES[code] for code in acquisition.image_type if code in PROCESSED_IMAGE_TYPES), ""
    )
    if processed:
        return Role.OTHER, (f"Image Type says {processed}",)
    if PHASE_IMAGE_TYPES.intersection(acquisition.image_type[2:4]):
        return Role.OTHER, ("Image Type says it is no magnitude image",)
    return None


def _diffusion_map(acquisition: Acquisition) -> _Verdict | None:
    evidence = adc_evidence(acquisition)
    if evidence:
        return Role.ADC, (evidence,)
    other = other_map_evidence(acquisition)
    return (Role.OTHER, (other,)) if other else None


def _localizer(stack: Stack) -> _Verdict | None:
    """A survey: named so in Image Type, or a few thick slices, or a few slices in each of several orientations."""
    if "LOCALIZER" in stack.acquisition.image_type:
        return Role.LOCALIZER, ("Image Type says LOCALIZER",)
    count = len(stack.slices)
    if count > LOCALIZER_MAX_SLICES or stack.b_value is not None:
        return None
    thickness = stack.acquisition.slice_thickness_mm
    thick = thickness is not None and thickness >= LOCALIZER_MIN_THICKNESS_MM
    if StackAnomaly.MIXED_ORIENTATION in stack.anomalies and (thick or "GR" in stack.acquisition.scanning_sequence):
        return Role.LOCALIZER, (f"{count} slices in one of several orientations of the series",)
    if thick and stack.geometry is not None:
        return Role.LOCALIZER, (f"no more than {LOCALIZER_MAX_SLICES} slices ({count}), each {thickness:g} mm thick",)
    return None


def _diffusion(stack: Stack) -> _Verdict | None:
    acquisition = stack.acquisition
    named = "DIFFUSION" in acquisition.image_type
    if stack.b_value is None:
        return (Role.DWI, ("Image Type says DIFFUSION", "no b-value can be read")) if named else None
    weighting = f"b = {stack.b_value.s_per_mm2:g} s/mm2 from {stack.b_value.source}"
    calculated = calculated_evidence(acquisition, stack.b_value)
    if calculated:
        return Role.DWI_CALCULATED, (weighting, f"calculated by the scanner: {calculated}")
    return Role.DWI, (weighting, "acquired")


def _dynamic(stack: Stack, phases: int) -> _Verdict | None:
    if phases < DCE_MIN_TIME_POINTS:
        return None
    echo = stack.acquisition.echo_time_ms
    return Role.DCE, (f"one of {phases} gradient-echo volumes of the same place and timing, TE {echo:g} ms",)


def _spin_echo(stack: Stack, series_echoes: int) -> _Verdict | None:
    acquisition = stack.acquisition
    sequence = acquisition.scanning_sequence
    echo, repetition = acquisition.echo_time_ms, acquisition.repetition_time_ms
    if "SE" not in sequence or "EP" in sequence or "GR" in sequence or echo is None or repetition is None:
        return None
    timing = _timing(acquisition)
    if "IR" in sequence:
        return Role.OTHER, (f"inversion recovery, {timing}",)
    if series_echoes >= RELAXOMETRY_MIN_ECHOES:
        return Role.OTHER, (f"one of {series_echoes} echo times of the series: relaxometry",)
    if echo >= T2_MIN_ECHO_TIME_MS and repetition >= T2_MIN_REPETITION_TIME_MS:
        weighted = f"spin echo, {timing}: T2-weighted"
        if stack.plane not in _T2_ROLES:
            return Role.OTHER, (weighted, f"its plane is {stack.plane or 'unknown'}")
        return _T2_ROLES[stack.plane], (weighted, f"slice normal nearest to the {stack.plane} one")
    if echo <= T1_SPIN_ECHO_MAX_ECHO_TIME_MS and repetition <= T1_SPIN_ECHO_MAX_REPETITION_TIME_MS:
        return Role.T1W, (f"spin echo, {timing}: T1-weighted",)
    return Role.OTHER, (f"spin echo, {timing}: neither T1- nor T2-weighted",)


def _gradient_echo(acquisition: Acquisition) -> _Verdict | None:
    sequence = acquisition.scanning_sequence
    echo, repetition, flip = acquisition.echo_time_ms, acquisition.repetition_time_ms, acquisition.flip_angle_deg
    if "GR" not in sequence or {"EP", "SE", "IR"} & set(sequence) or echo is None or repetition is None or flip is None:
        return None
    timing = f"{_timing(acquisition)}, flip angle {flip:g} degrees"
    if echo > T1_GRADIENT_ECHO_MAX_ECHO_TIME_MS:
        return Role.OTHER, (f"gradient echo, {timing}: T2*-weighted",)
    ernst = math.degrees(math.acos(math.exp(-repetition / REFERENCE_T1_MS)))
    if flip > ernst:
        return Role.T1W, (f"gradient echo, {timing}, above the Ernst angle of {ernst:.0f} degrees: T1-weighted",)
    return Role.OTHER, (
        f"gradient echo, {timing}, below the Ernst angle of {ernst:.0f} degrees: proton-density-weighted",
    )


def _timing(acquisition: Acquisition) -> str:
    parts = (("TE", acquisition.echo_time_ms), ("TR", acquisition.repetition_time_ms))
    return " and ".join(f"{name} {value:g} ms" if value is not None else f"{name} unknown" for name, value in parts)


def _dynamic_phases(stacks: Sequence[Stack]) -> dict[str, int]:
    """For each short-echo gradient-echo volume, at how many times its place, timing and kind were imaged."""
    groups: dict[Hashable, list[Stack]] = defaultdict(list)
    for stack in stacks:
        if stack.geometry is not None and _may_be_dynamic(stack):
            groups[(_kind(stack), grid_key(stack.geometry))].append(stack)
    return {
        stack.volume_id: len({_moment(member) for member in members})
        for members in groups.values()
        for stack in members
    }


def _may_be_dynamic(stack: Stack) -> bool:
    sequence, echo = stack.acquisition.scanning_sequence, stack.acquisition.echo_time_ms
    short = echo is not None and echo <= T1_GRADIENT_ECHO_MAX_ECHO_TIME_MS
    return "GR" in sequence and "EP" not in sequence and stack.b_value is None and short


def _kind(stack: Stack) -> Hashable:
    acquisition = stack.acquisition
    return (
        stack.frame_of_reference_uid,
        acquisition.image_type,
        acquisition.scanning_sequence,
        acquisition.repetition_time_ms,
        acquisition.echo_time_ms,
        acquisition.flip_angle_deg,
    )


def _moment(stack: Stack) -> tuple[Hashable, ...]:
    return (stack.acquisition.temporal_position, stack.acquisition.acquisition_time)


def _echo_times(stacks: Sequence[Stack]) -> dict[str, int]:
    """How many echo times each series has."""
    echoes: dict[str, set[float | None]] = defaultdict(set)
    for stack in stacks:
        echoes[stack.series_instance_uid].add(stack.acquisition.echo_time_ms)
    return {series: len(times) for series, times in echoes.items()}
