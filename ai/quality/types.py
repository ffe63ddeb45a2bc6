"""The vocabulary of quality: verdicts, coded findings, metrics with units, assessments and the gate's decision."""

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """Quality of a series or study in the words of CID 7036 (PS3.16), plus the honest fourth."""

    DIAGNOSTIC = "diagnostic"
    LIMITED = "limited"
    NON_DIAGNOSTIC = "non-diagnostic"
    NOT_ASSESSED = "not-assessed"


class Severity(StrEnum):
    """What a finding does to the verdict: nothing (advisory), at most ``limited``, or ``non-diagnostic``."""

    ADVISORY = "advisory"
    LIMITING = "limiting"
    DISQUALIFYING = "disqualifying"


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning (PS3.3 table 8.8-1)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Finding:
    """One quality finding, from CID 6314-6318 where the standard has the word.

    ``text`` is one human sentence with the figures; ``value`` the short measured value ("0.50 mm > 0.4 mm").
    ``sop_instance_uids`` are the slices it was seen on (empty: the whole series).
    """

    code: Code
    severity: Severity
    text: str
    value: str = ""
    sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A measurement with its UCUM unit. ``value`` is None where it cannot be computed; ``reason`` then says why."""

    name: str
    value: float | None
    unit: str
    meaning: str
    reason: str = ""


@dataclass(frozen=True)
class SliceScore:
    """Score of one slice, 0 (worst) to 1 (best)."""

    sop_instance_uid: str
    frame_number: int | None
    score: float


@dataclass(frozen=True)
class CalibrationStamp:
    """Which calibration turned scores into probabilities and verdicts: its name, who made it, when (UTC), its SHA-256
    and the version of its format. ``by`` and ``when`` are empty for the cut points this version ships."""

    name: str
    by: str
    when: str
    sha256: str
    version: str

    def __str__(self) -> str:
        origin = f", by {self.by}, {self.when}" if self.by else ""
        return f"{self.name}{origin}, version {self.version}, SHA-256 {self.sha256[:12]}"


@dataclass(frozen=True)
class SeriesAssessment:
    """Quality of one series.

    ``score`` is 0 (worst) to 1 (best), None where not assessed; ``probability_non_diagnostic`` is None where no
    calibration gives one. ``meets_standard`` tells whether PI-RADS v2.1 acquisition requirements are met
    (None: not applicable). ``reason`` is one sentence for people.
    """

    series_instance_uid: str
    series_number: int | None
    series_description: str
    role: str
    b_value: float | None
    b_values: tuple[float, ...]
    verdict: Verdict
    score: float | None
    reason: str
    probability_non_diagnostic: float | None = None
    slices: tuple[SliceScore, ...] = ()
    findings: tuple[Finding, ...] = ()
    metrics: tuple[Metric, ...] = ()
    meets_standard: bool | None = None
    role_reasons: tuple[str, ...] = ()
    not_checkable: tuple[str, ...] = ()
    """Acquisition requirements on which the header is silent, one text each."""
    compared_with: str = ""
    """Series Instance UID of the axial T2 its geometry was compared with; empty: with none."""
    novelty: str = ""
    """In what the series is unlike those the score was made on, one sentence; empty: in nothing that is known."""
    calibration: CalibrationStamp | None = None
    """The site's calibration that gave probability and verdict; None: the shipped cut points did."""


@dataclass(frozen=True)
class GateDecision:
    """Whether lesion detection may run on this study, and why (not).

    ``rule`` and ``statement`` name and quote the row of the gate's table that decided, with its source.
    """

    open: bool
    reasons: tuple[str, ...]
    rule: str = ""
    statement: str = ""


@dataclass(frozen=True)
class StudyAssessment:
    """Quality of a study: its series, findings that belong to no series (for example no high b-value), the gate."""

    study_instance_uid: str
    verdict: Verdict
    reason: str
    series: tuple[SeriesAssessment, ...]
    gate: GateDecision
    findings: tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def calibration(self) -> CalibrationStamp | None:
        """The site's calibration behind the verdicts; None where every series was judged by the shipped cut points."""
        return next((series.calibration for series in self.series if series.calibration is not None), None)
