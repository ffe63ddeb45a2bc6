"""Quality of a study: one assessment per series, from headers and pixels, then the gate.

A series of several stacks (b-values, time points) has one row: its score is the worst stack's, its b-value and metrics
those of the highest b acquired, because that image carries detection and fails first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from ai.quality.calibration import Calibration
from ai.quality.compare import compare_with_t2
from ai.quality.envelopes import Measured, Reach, envelope_of
from ai.quality.gate import judge_study, t2_by_quality, widened, worse
from ai.quality.metrics import MAXIMUM_SLICES, slice_metrics, volume_metrics
from ai.quality.projection import projection_metrics
from ai.quality.protocol import check_series
from ai.quality.scoring import CRITERIA
from ai.quality.series import judge_defects, judge_series, not_assessed
from ai.quality.tomography import tomography_metrics
from ai.quality.types import Finding, SeriesAssessment, Severity, SliceScore, StudyAssessment, Verdict
from ai.volumes.load import load_volume
from ai.volumes.types import Assembly, PixelSource, PixelsUnavailable, RoledStack

log = structlog.get_logger(__name__)

MAXIMUM_STACKS = 8
"""Stacks of one series whose pixels are judged: all b-values of any prostate protocol, a sample of a dynamic series."""

MAXIMUM_PIXELS = 2**28
"""Pixels of one stack that are loaded at most (1 GiB as float32)."""


def assess(
    assembly: Assembly,
    source: PixelSource,
    progress: Callable[[str], None] | None = None,
    known: Mapping[str, SeriesAssessment] | None = None,
    calibration: Calibration | None = None,
) -> StudyAssessment:
    """Judge every series of a study, alone and against each other, and decide whether detection may run.

    ``progress`` is called with a short text before each series. ``known`` holds assessments by Series Instance UID that
    still hold, of series that have not changed since. ``calibration`` is the site's; without one the shipped cut points
    judge and no series has a probability. Pixels that cannot be had make a series not-assessed, with the
    reason; nothing is raised for bad images.
    """
    alone = assess_series(assembly, source, progress, known, calibration)
    entries = {group[0].stack.series_instance_uid: group for group in _by_series(assembly)}
    series = compare_with_t2(
        assembly,
        t2_by_quality(assembly, alone),
        alone,
        source,
        (known or {}).keys(),
        lambda uid: _judge_alone(entries[uid], source, calibration),
    )
    study = judge_study(assembly, series)
    log.info("study assessed", study_instance_uid=study.study_instance_uid, verdict=study.verdict, open=study.gate.open)
    return study


def assess_series(
    assembly: Assembly,
    source: PixelSource,
    progress: Callable[[str], None] | None = None,
    known: Mapping[str, SeriesAssessment] | None = None,
    calibration: Calibration | None = None,
) -> list[SeriesAssessment]:
    """The series of ``assess``, in the order of their numbers; the assembly need not be a whole study."""
    series = []
    for entries in _by_series(assembly):
        earlier = (known or {}).get(entries[0].stack.series_instance_uid)
        if earlier is not None:
            series.append(earlier)
            continue
        if progress is not None:
            progress(f"quality of series {entries[0].stack.acquisition.series_description or entries[0].role}")
        series.append(_judge_alone(entries, source, calibration))
    return series


def _judge_alone(
    entries: Sequence[RoledStack], source: PixelSource, calibration: Calibration | None
) -> SeriesAssessment:
    judged = _assess_series(entries, source)
    return widened(calibration.apply(judged) if calibration is not None else judged)


def _by_series(assembly: Assembly) -> list[list[RoledStack]]:
    """The stacks of each series, series in the order of their numbers."""
    groups: dict[str, list[RoledStack]] = {}
    for entry in assembly.stacks:
        groups.setdefault(entry.stack.series_instance_uid, []).append(entry)
    return sorted(groups.values(), key=lambda group: group[0].stack.acquisition.series_number or 0)


def _assess_series(entries: Sequence[RoledStack], source: PixelSource) -> SeriesAssessment:
    """One row for a series. Stacks of other roles in it (a scout among b-values) do not count."""
    role = _principal_role(entries)
    stacks = sorted((entry for entry in entries if entry.role == role), key=_b_value)
    rows = [_assess_stack(entry, source) for entry in _sample(stacks)]
    if entries[0].stack.acquisition.modality != "MR":
        # No b-value leads here: an image with a defect does.
        rows.sort(key=lambda row: row.verdict is not Verdict.NOT_ASSESSED)
    return _combine(rows, tuple(sorted({_b_value(entry) for entry in stacks if entry.stack.b_value is not None})))


def _principal_role(entries: Sequence[RoledStack]) -> str:
    """The first role that is judged, else the first."""
    return next((entry.role for entry in entries if entry.role in CRITERIA), entries[0].role)


def _b_value(entry: RoledStack) -> float:
    return entry.stack.b_value.s_per_mm2 if entry.stack.b_value is not None else -1.0


def _sample(stacks: Sequence[RoledStack]) -> list[RoledStack]:
    """At most MAXIMUM_STACKS, evenly spread, first and last always in."""
    if len(stacks) <= MAXIMUM_STACKS:
        return list(stacks)
    step = (len(stacks) - 1) / (MAXIMUM_STACKS - 1)
    return [stacks[round(index * step)] for index in range(MAXIMUM_STACKS)]


def _assess_stack(entry: RoledStack, source: PixelSource) -> SeriesAssessment:
    """One stack inside its envelope; outside every envelope, or with a flaw, it is not assessed and no pixel loaded."""
    envelope = envelope_of(entry)
    if envelope is None:
        return not_assessed(entry, f"{entry.role}: no role to judge")
    if envelope.metrics is Measured.NOTHING:
        return not_assessed(entry, envelope.why_no_verdict(entry))
    flaw = envelope.flaw(entry) or _too_large(entry)
    if flaw:
        return not_assessed(entry, flaw)
    try:
        volume = load_volume(entry.stack, source)
    except PixelsUnavailable as unavailable:
        return not_assessed(entry, f"pixels unavailable: {unavailable}")
    if envelope.metrics is Measured.MAGNETIC_RESONANCE:
        slices = slice_metrics(volume, entry.role)
        findings, meets_standard = check_series(entry.role, entry.stack)
        return judge_series(entry, slices, volume_metrics(volume, entry.role, slices), findings, meets_standard)
    tomographic = envelope.metrics is Measured.TOMOGRAPHY
    metrics = tomography_metrics(volume) if tomographic else projection_metrics(volume)
    if envelope.verdict is Reach.DEFECTS:
        return judge_defects(entry, metrics, envelope.why_no_verdict(entry))
    return not_assessed(entry, envelope.why_no_verdict(entry), metrics)


def _too_large(entry: RoledStack) -> str:
    """Why a stack is not loaded for its size; empty: it is."""
    stack = entry.stack
    length = stack.geometry.shape[0] if stack.geometry is not None else len(stack.slices)
    if len(stack.slices) > MAXIMUM_SLICES:
        return f"{len(stack.slices)} slices, more than the {MAXIMUM_SLICES} that are judged"
    if length * stack.rows * stack.columns > MAXIMUM_PIXELS:
        return f"{length} x {stack.rows} x {stack.columns} pixels are more than are judged"
    return ""


def _combine(rows: Sequence[SeriesAssessment], b_values: tuple[float, ...]) -> SeriesAssessment:
    """One row from the rows of the stacks, which are sorted by rising b-value: the worst stack rules."""
    leading = rows[-1]
    if len(rows) == 1:
        return replace(leading, b_values=b_values)
    judged = [row for row in rows if row.verdict is not Verdict.NOT_ASSESSED]
    missing = [row for row in rows if row.verdict is Verdict.NOT_ASSESSED]
    if not judged or leading.verdict is Verdict.NOT_ASSESSED:
        unseen = [_labelled(row, row.reason) for row in missing if row is not leading and not row.metrics]
        return replace(leading, b_values=b_values, reason="; ".join(dict.fromkeys((leading.reason, *unseen))))
    verdict, ruling = judged[0].verdict, min(judged, key=lambda row: row.score if row.score is not None else 1.0)
    for row in judged:
        verdict = worse(verdict, row.verdict)
    reason = "; ".join(_labelled(row, row.reason) for row in rows if row.verdict is verdict or row in missing)
    return replace(
        leading,
        b_values=b_values,
        verdict=verdict,
        score=ruling.score,
        reason=leading.reason if verdict is Verdict.DIAGNOSTIC and not missing else reason,
        slices=_unique([score for row in judged for score in row.slices]),
        findings=_merged_findings(judged),
    )


def _labelled(row: SeriesAssessment, text: str) -> str:
    return text if row.b_value is None else f"b {row.b_value:g}: {text}"


def _unique(scores: Sequence[SliceScore]) -> tuple[SliceScore, ...]:
    """One score per stored frame: the worst, should a frame serve several stacks."""
    worst: dict[tuple[str, int | None], SliceScore] = {}
    for score in scores:
        key = (score.sop_instance_uid, score.frame_number)
        if key not in worst or score.score < worst[key].score:
            worst[key] = score
    return tuple(worst.values())


def _merged_findings(rows: Sequence[SeriesAssessment]) -> tuple[Finding, ...]:
    """Image findings of every stack, labelled with its b-value; acquisition findings, alike in all stacks, once."""
    image = [
        replace(finding, text=_labelled(row, finding.text))
        for row in rows
        for finding in row.findings
        if finding.severity is not Severity.ADVISORY
    ]
    advisory = [finding for row in rows for finding in row.findings if finding.severity is Severity.ADVISORY]
    return tuple(image) + tuple(dict.fromkeys(advisory))
