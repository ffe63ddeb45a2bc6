"""Acquisition check against PI-RADS v2.1, from headers alone, on the acquired resolution.

Limits: Turkbey et al., Eur Urol 2019;76:340 (PI-RADS v2.1), tables of section III. All findings are advisory: strict
header rules made readers of PI-QUAL agree worse (AC1 0.11 against 0.51, PMC12809076) and must not shut a gate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ai.quality import codes
from ai.quality.acquired import acquired_resolution, field_of_view_mm
from ai.quality.types import Code, Finding, Severity
from ai.volumes.types import Assembly, Role, Stack

T2_ROLES = (Role.T2W_AXIAL, Role.T2W_SAGITTAL, Role.T2W_CORONAL)
HIGH_B_S_PER_MM2 = 1400.0
"""A high b-value of at least this, acquired or calculated, is required (PI-RADS v2.1, DWI)."""

MINIMUM_DCE_STACKS = 5
"""Fewest time points that make a dynamic series."""

TOLERANCE = 0.005
"""Relative slack on every limit: headers round (0.2734375 mm voxels, 2999.9 ms)."""


class Quantity(StrEnum):
    """What is limited."""

    SLICE_THICKNESS = "slice thickness"
    SLICE_GAP = "gap between slices"
    FIELD_OF_VIEW = "field of view"
    FREQUENCY_RESOLUTION = "acquired frequency resolution"
    PHASE_RESOLUTION = "acquired phase resolution"
    REPETITION_TIME = "repetition time"
    ECHO_TIME = "echo time"


@dataclass(frozen=True)
class Limit:
    """Allowed range of a quantity, ends included; None is open."""

    quantity: Quantity
    lowest: float | None
    highest: float | None
    unit: str
    code: Code = codes.PROTOCOL_NOT_FOLLOWED


def _resolution(frequency_mm: float, phase_mm: float) -> tuple[Limit, Limit]:
    return (
        Limit(Quantity.FREQUENCY_RESOLUTION, None, frequency_mm, "mm"),
        Limit(Quantity.PHASE_RESOLUTION, None, phase_mm, "mm"),
    )


# PI-RADS v2.1: T2W 3 mm no gap, FOV 12-20 cm, <= 0.7 (phase) x <= 0.4 (frequency) mm; DWI <= 4 mm no gap, FOV 16-22 cm,
# <= 2.5 mm, TE <= 90 ms, TR >= 3000 ms; DCE 3 mm no gap, <= 2 mm, TR < 100 ms, TE < 5 ms.
_GAP = Limit(Quantity.SLICE_GAP, None, 0.0, "mm")
_T2 = (
    Limit(Quantity.SLICE_THICKNESS, None, 3.0, "mm"),
    _GAP,
    Limit(Quantity.FIELD_OF_VIEW, 120.0, 200.0, "mm", codes.POOR_FOV_SELECTION),
    *_resolution(0.4, 0.7),
)
_DWI = (
    Limit(Quantity.SLICE_THICKNESS, None, 4.0, "mm"),
    _GAP,
    Limit(Quantity.FIELD_OF_VIEW, 160.0, 220.0, "mm", codes.POOR_FOV_SELECTION),
    *_resolution(2.5, 2.5),
    Limit(Quantity.REPETITION_TIME, 3000.0, None, "ms"),
    Limit(Quantity.ECHO_TIME, None, 90.0, "ms"),
)
_DCE = (
    Limit(Quantity.SLICE_THICKNESS, None, 3.0, "mm"),
    _GAP,
    *_resolution(2.0, 2.0),
    Limit(Quantity.REPETITION_TIME, None, 100.0, "ms"),
    Limit(Quantity.ECHO_TIME, None, 5.0, "ms"),
)
LIMITS: dict[str, tuple[Limit, ...]] = {**dict.fromkeys(T2_ROLES, _T2), Role.DWI: _DWI, Role.DCE: _DCE}
"""The limits per role. Maps computed from the DWI (ADC, calculated b) were acquired as the DWI and are not checked."""

DCE_TEMPORAL_RESOLUTION_S = 15.0
DCE_DURATION_S = 120.0


class Outcome(StrEnum):
    """Result of one check."""

    MET = "met"
    NOT_MET = "not met"
    NOT_CHECKABLE = "not checkable"


@dataclass(frozen=True)
class Check:
    """One limit held against one stack. ``text`` says the figures, or what the header does not tell."""

    limit: Limit
    outcome: Outcome
    measured: float | None
    text: str


def series_checks(role: str, stack: Stack) -> tuple[Check, ...]:
    """Every limit of the role held against the stack; empty for roles without limits."""
    return tuple(_check(limit, stack) for limit in LIMITS.get(role, ()))


def check_series(role: str, stack: Stack) -> tuple[list[Finding], bool | None]:
    """Advisory findings for the limits that are not met, and whether the standard is met.

    The second value is False if any limit is not met, None if there are no limits for the role or a quantity could not
    be checked, True otherwise.
    """
    checks = series_checks(role, stack)
    findings = [_finding(check) for check in checks if check.outcome is Outcome.NOT_MET]
    if findings:
        return findings, False
    if not checks or any(check.outcome is Outcome.NOT_CHECKABLE for check in checks):
        return findings, None
    return findings, True


def not_checkable(role: str, stack: Stack) -> tuple[str, ...]:
    """The quantities on which the header is silent, one text each."""
    return tuple(check.text for check in series_checks(role, stack) if check.outcome is Outcome.NOT_CHECKABLE)


def _slice_gap(stack: Stack) -> float | None:
    thickness = stack.acquisition.slice_thickness_mm
    if thickness is None or stack.geometry is None or stack.geometry.shape[0] < 2:
        return None
    # 3-D acquisitions overlap reconstructed slices: less than the thickness is no gap.
    return max(0.0, stack.geometry.spacing_mm[0] - thickness)


_SCALARS: dict[Quantity, Callable[[Stack], float | None]] = {
    Quantity.SLICE_THICKNESS: lambda stack: stack.acquisition.slice_thickness_mm,
    Quantity.SLICE_GAP: _slice_gap,
    Quantity.FREQUENCY_RESOLUTION: lambda stack: acquired_resolution(stack).frequency_mm,
    Quantity.PHASE_RESOLUTION: lambda stack: acquired_resolution(stack).phase_mm,
    Quantity.REPETITION_TIME: lambda stack: stack.acquisition.repetition_time_ms,
    Quantity.ECHO_TIME: lambda stack: stack.acquisition.echo_time_ms,
}


def _measure(quantity: Quantity, stack: Stack, limit: Limit) -> float | None:
    if quantity is not Quantity.FIELD_OF_VIEW:
        return _SCALARS[quantity](stack)
    extent = field_of_view_mm(stack)
    if extent is None:
        return None
    # A rectangular field is judged by whichever side is out of range.
    smaller, larger = min(extent), max(extent)
    return smaller if limit.lowest is not None and smaller < limit.lowest * (1.0 - TOLERANCE) else larger


def _check(limit: Limit, stack: Stack) -> Check:
    measured = _measure(limit.quantity, stack, limit)
    if measured is None:
        return Check(limit, Outcome.NOT_CHECKABLE, None, f"{limit.quantity} not checkable: the header does not tell it")
    # A limit of 0 (no gap) needs an absolute slack: a hundredth of a millimetre.
    if limit.lowest is not None and measured < limit.lowest * (1.0 - TOLERANCE):
        return Check(limit, Outcome.NOT_MET, measured, _comparison(limit, measured, "<", limit.lowest))
    if limit.highest is not None and measured > limit.highest * (1.0 + TOLERANCE) + 0.01 * (limit.highest == 0.0):
        return Check(limit, Outcome.NOT_MET, measured, _comparison(limit, measured, ">", limit.highest))
    return Check(limit, Outcome.MET, measured, f"{limit.quantity} {measured:.4g} {limit.unit}")


def _comparison(limit: Limit, measured: float, sign: str, bound: float) -> str:
    return f"{measured:.4g} {limit.unit} {sign} {bound:g} {limit.unit}"


def _finding(check: Check) -> Finding:
    text = f"PI-RADS v2.1 acquisition requirement not met: {check.limit.quantity} {check.text}"
    return Finding(check.limit.code, Severity.ADVISORY, text, check.text)


def check_study(assembly: Assembly) -> list[Finding]:
    """Advisory findings on what a prostate MR study lacks; empty for a study without prostate MR sequences."""
    roles = {entry.role for entry in assembly.stacks}
    if not roles & {*T2_ROLES, Role.DWI, Role.ADC, Role.DWI_CALCULATED}:
        return []
    findings = []
    if Role.T2W_AXIAL not in roles:
        findings.append(_study(codes.INCOMPLETE_STUDY, "no axial T2-weighted images", "no axial T2W"))
    if not roles & {Role.DWI, Role.ADC}:
        findings.append(_study(codes.INCOMPLETE_STUDY, "no diffusion images", "no DWI"))
    else:
        findings.extend(_check_diffusion(assembly, roles))
    if Role.T2W_AXIAL in roles and not roles & {Role.T2W_SAGITTAL, Role.T2W_CORONAL}:
        text = "no second T2-weighted plane besides the axial one"
        findings.append(_study(codes.PROTOCOL_NOT_FOLLOWED, text, "one T2W plane"))
    findings.extend(_check_dce([entry.stack for entry in assembly.stacks if entry.role == Role.DCE]))
    return findings


def _study(code: Code, text: str, value: str) -> Finding:
    return Finding(code, Severity.ADVISORY, f"PI-RADS v2.1 acquisition requirement not met: {text}", value)


def _check_diffusion(assembly: Assembly, roles: set[str]) -> list[Finding]:
    findings = []
    b_values = sorted(
        entry.stack.b_value.s_per_mm2
        for entry in assembly.stacks
        if entry.role in (Role.DWI, Role.DWI_CALCULATED) and entry.stack.b_value is not None
    )
    if not b_values or b_values[-1] < HIGH_B_S_PER_MM2:
        highest = f"highest is {b_values[-1]:g} s/mm2" if b_values else "no b-value is told"
        text = f"no b-value of at least {HIGH_B_S_PER_MM2:g} s/mm2, acquired or calculated ({highest})"
        value = f"{b_values[-1]:g} s/mm2 < {HIGH_B_S_PER_MM2:g} s/mm2" if b_values else "no b-value told"
        findings.append(_study(codes.EXPECTED_B_VALUE_MISSING, text, value))
    if Role.ADC not in roles:
        findings.append(_study(codes.EXPECTED_ADC_MISSING, "no ADC map from the scanner", "no ADC map"))
    return findings


def _seconds(time: str) -> float | None:
    """A DICOM TM value (HHMMSS.FFFFFF) in seconds since midnight; None for anything shorter or not a number."""
    whole, _, fraction = time.strip().partition(".")
    if len(whole) != 6 or not whole.isdigit() or (fraction and not fraction.isdigit()):
        return None
    return int(whole[:2]) * 3600.0 + int(whole[2:4]) * 60.0 + int(whole[4:]) + float(f"0.{fraction or 0}")


def _check_dce(stacks: Sequence[Stack]) -> list[Finding]:
    """Temporal resolution and duration of the dynamic series, from the acquisition times of its time points."""
    times = sorted({time for stack in stacks if (time := _seconds(stack.acquisition.acquisition_time)) is not None})
    if len(times) < MINIMUM_DCE_STACKS:
        return []
    step, duration = float(np.median(np.diff(times))), times[-1] - times[0]
    findings = []
    if step > DCE_TEMPORAL_RESOLUTION_S * (1.0 + TOLERANCE):
        value = f"{step:.1f} s > {DCE_TEMPORAL_RESOLUTION_S:g} s"
        findings.append(_study(codes.POOR_CONTRAST_TIMING, f"DCE temporal resolution {value}", value))
    if duration + step < DCE_DURATION_S * (1.0 - TOLERANCE):
        value = f"{duration + step:.0f} s < {DCE_DURATION_S:g} s"
        findings.append(_study(codes.POOR_CONTRAST_TIMING, f"DCE observation time {value}", value))
    return findings
