"""Chooses the stacks detection works on, and says why: axial T2, ADC and a high b-value (PI-RADS v2.1, section III)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ai.volumes.diffusion_set import (
    DiffusionSet,
    choose_diffusion_set,
    comparable_frame_of_reference,
    describe_series,
    moment,
)
from ai.volumes.geometry import overlap_fraction, same_grid
from ai.volumes.monoexponential import HIGH_B_S_PER_MM2
from ai.volumes.types import Choice, Geometry, Role, RoledStack, Stack

MIN_SLICES = 10
"""Fewer slices do not cover a prostate at 3 mm."""
MIN_OVERLAP = 0.8
"""How much of the smaller of the T2 and diffusion volumes must lie inside the other."""
MIN_B_VALUES_FOR_A_FIT = 2

_Purpose = Literal["t2w", "adc", "high-b"]


def choose(roled: Sequence[RoledStack], quality: Mapping[str, float] | None = None) -> tuple[Choice, ...]:
    """The choices for "t2w", "adc" and "high-b", in this order.

    ``volume_id`` is None where nothing fits or the map is to be computed; the reason says which.

    Args:
        quality: Series Instance UID -> quality from 0 to 1; decides between repeats where given.
    """
    scores = quality or {}
    diffusion = choose_diffusion_set(roled, scores)
    return (
        _choose_t2w(roled, diffusion, scores),
        _choose_adc(roled, diffusion, scores),
        _choose_high_b(roled, diffusion),
    )


def _choose_t2w(roled: Sequence[RoledStack], diffusion: DiffusionSet | None, quality: Mapping[str, float]) -> Choice:
    rejected: dict[str, str] = {}
    fitting: list[Stack] = []
    for stack in _with_role(roled, Role.T2W_AXIAL):
        flaw = _flaw(stack) or (_misplacement(stack, diffusion) if diffusion is not None else None)
        if flaw is None:
            fitting.append(stack)
        else:
            rejected[stack.volume_id] = flaw
    if not fitting:
        return Choice("t2w", None, _nothing("axial T2-weighted volume", rejected), rejected)
    return _best("t2w", "axial T2-weighted", fitting, quality, rejected)


def _choose_adc(roled: Sequence[RoledStack], diffusion: DiffusionSet | None, quality: Mapping[str, float]) -> Choice:
    rejected: dict[str, str] = {}
    fitting: list[Stack] = []
    for stack in _with_role(roled, Role.ADC):
        flaw = _flaw(stack) or (_off_grid(stack, diffusion) if diffusion is not None else None)
        if flaw is None:
            fitting.append(stack)
        else:
            rejected[stack.volume_id] = flaw
    if fitting:
        return _best("adc", "ADC map of the scanner", fitting, quality, rejected)
    if diffusion is not None and len(diffusion.stacks_by_b) >= MIN_B_VALUES_FOR_A_FIT:
        absent = "the scanner's ADC map does not fit" if rejected else "there is no ADC map from the scanner"
        return Choice("adc", None, f"{absent}; to be computed from {diffusion.describe()}", rejected)
    return Choice("adc", None, _nothing("ADC map and no two b-values to compute one from", rejected), rejected)


def _choose_high_b(roled: Sequence[RoledStack], diffusion: DiffusionSet | None) -> Choice:
    rejected: dict[str, str] = {}
    for role, words in ((Role.DWI, "acquired"), (Role.DWI_CALCULATED, "calculated by the scanner")):
        fitting: list[Stack] = []
        for stack in _with_role(roled, role):
            flaw = _high_b_flaw(stack, diffusion)
            if flaw is None:
                fitting.append(stack)
            else:
                rejected[stack.volume_id] = flaw
        if fitting:
            taken = min(fitting, key=_b_value)
            rejected |= {
                stack.volume_id: f"b = {_b_value(taken):g} of {describe_series(taken)} is taken"
                for stack in fitting
                if stack is not taken and not _same_image(stack, taken)
            }
            reason = f"b = {_b_value(taken):g} s/mm2, {words}: {describe_series(taken)}"
            return Choice("high-b", taken.volume_id, reason, rejected)
    if diffusion is None:
        return Choice("high-b", None, _nothing("diffusion-weighted volume", rejected), rejected)
    if len(diffusion.stacks_by_b) >= MIN_B_VALUES_FOR_A_FIT:
        reason = f"no b-value of {HIGH_B_S_PER_MM2:g} s/mm2 or more; to be computed from {diffusion.describe()}"
        return Choice("high-b", None, reason, rejected)
    highest = diffusion.stacks[-1]
    rejected.pop(highest.volume_id, None)
    reason = (
        f"expected b-value missing: the only one is b = {_b_value(highest):g} s/mm2 of {describe_series(highest)}, "
        f"and one b-value is not enough to compute b = {HIGH_B_S_PER_MM2:g}"
    )
    return Choice("high-b", highest.volume_id, reason, rejected)


def _best(
    purpose: _Purpose, kind: str, fitting: Sequence[Stack], quality: Mapping[str, float], rejected: Mapping[str, str]
) -> Choice:
    """The best of equals: complete before incomplete, then quality, then the later one (a repeat has its reason)."""

    def rank(stack: Stack) -> tuple[bool, float, tuple[str, str, int]]:
        return (not stack.missing_slice_indices, quality.get(stack.series_instance_uid, 0.0), moment(stack))

    taken = max(fitting, key=rank)
    others = {stack.volume_id: _why_not(stack, taken, quality) for stack in fitting if stack is not taken}
    if not others:
        return Choice(purpose, taken.volume_id, f"the only fitting {kind}: {describe_series(taken)}", rejected)
    reason = f"{describe_series(taken)}, one of {len(fitting)} fitting as {kind}: {_why_taken(taken, fitting, quality)}"
    return Choice(purpose, taken.volume_id, reason, {**rejected, **others})


def _why_taken(taken: Stack, fitting: Sequence[Stack], quality: Mapping[str, float]) -> str:
    others = [stack for stack in fitting if stack is not taken]
    if any(stack.missing_slice_indices for stack in others) and not taken.missing_slice_indices:
        return "it is complete"
    scores = {stack.series_instance_uid: quality.get(stack.series_instance_uid) for stack in fitting}
    if None not in scores.values() and len(set(scores.values())) > 1:
        return f"its quality is best ({scores[taken.series_instance_uid]:.2f})"
    return f"it is the later one (acquired at {taken.acquisition.acquisition_time or 'unknown time'})"


def _why_not(stack: Stack, taken: Stack, quality: Mapping[str, float]) -> str:
    if stack.missing_slice_indices and not taken.missing_slice_indices:
        return f"missing slices: {len(stack.missing_slice_indices)}"
    own, best = (quality.get(one.series_instance_uid, 0.0) for one in (stack, taken))
    if own < best:
        return f"quality {own:.2f} is below {best:.2f} of {describe_series(taken)}"
    return f"acquired earlier ({stack.acquisition.acquisition_time or 'unknown time'}) than {describe_series(taken)}"


def _same_image(stack: Stack, taken: Stack) -> bool:
    """Another diffusion direction or repetition, which is used together with the one taken."""
    return stack.series_instance_uid == taken.series_instance_uid and stack.b_value == taken.b_value


def _flaw(stack: Stack) -> str | None:
    if stack.geometry is None:
        return f"no regular grid ({', '.join(stack.anomalies)})"
    if len(stack.slices) < MIN_SLICES:
        return f"only {len(stack.slices)} slices"
    return None


def _misplacement(stack: Stack, diffusion: DiffusionSet) -> str | None:
    if not comparable_frame_of_reference(stack.frame_of_reference_uid, diffusion.frame_of_reference_uid):
        return "another frame of reference than the diffusion series: positions cannot be compared"
    geometry = _geometry(stack)
    overlap = 1.0 if same_grid(geometry, diffusion.geometry) else overlap_fraction(geometry, diffusion.geometry)
    if overlap < MIN_OVERLAP:
        return f"overlaps the diffusion series by only {overlap:.0%}"
    return None


def _off_grid(stack: Stack, diffusion: DiffusionSet) -> str | None:
    if not comparable_frame_of_reference(stack.frame_of_reference_uid, diffusion.frame_of_reference_uid):
        return "another frame of reference than the diffusion series"
    if not same_grid(_geometry(stack), diffusion.geometry):
        return "another slice grid than the diffusion series"
    return None


def _high_b_flaw(stack: Stack, diffusion: DiffusionSet | None) -> str | None:
    if stack.b_value is None:
        return "its b-value cannot be read"
    if stack.b_value.s_per_mm2 < HIGH_B_S_PER_MM2:
        return f"b = {stack.b_value.s_per_mm2:g} s/mm2 is below {HIGH_B_S_PER_MM2:g}"
    return _flaw(stack) or (_misplacement(stack, diffusion) if diffusion is not None else None)


def _with_role(roled: Sequence[RoledStack], role: Role) -> list[Stack]:
    return [one.stack for one in roled if one.role == role]


def _nothing(what: str, rejected: Mapping[str, str]) -> str:
    return f"no fitting {what}" if rejected else f"there is no {what}"


def _b_value(stack: Stack) -> float:
    return stack.b_value.s_per_mm2 if stack.b_value is not None else 0.0


def _geometry(stack: Stack) -> Geometry:
    if stack.geometry is None:
        raise ValueError(f"volume {stack.volume_id} has no regular geometry")
    return stack.geometry
