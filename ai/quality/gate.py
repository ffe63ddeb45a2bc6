"""The gate policy: from metrics and findings to the verdict of a series, of a study, and whether detection may run.

Series. Every criterion of the role (``ai.quality.scoring``) gives a sub-score; the score is the smallest of them. A
sub-score below 0.7 is a limiting finding, below 0.4 a disqualifying one; slices below 0.4 in a series that is good
otherwise are a limiting finding. The verdict is the gravest finding's. Advisory findings never change it.

Study. Axial T2W and diffusion (an ADC map, or a DWI of two b-values to compute it from) must both be there:

    axial T2W   diffusion   verdict of the study                   gate
    yes         yes         the worse of the chosen series         open unless one is non-diagnostic or not assessed
    yes         no          verdict of the T2W                     shut: no diffusion images
    no          yes         verdict of diffusion, at best limited  shut: no axial T2W
    no          no          not assessed                           shut
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ai.quality import codes
from ai.quality.metrics import SliceMetrics
from ai.quality.protocol import check_series, check_study, not_checkable
from ai.quality.scoring import (
    CRITERIA,
    LIMITED_BELOW,
    NON_DIAGNOSTIC_BELOW,
    Criterion,
    pooled,
)
from ai.quality.types import (
    Finding,
    GateDecision,
    Metric,
    SeriesAssessment,
    Severity,
    SliceScore,
    StudyAssessment,
    Verdict,
)
from ai.volumes.types import Assembly, Choice, Role, RoledStack

_ORDER = (Verdict.DIAGNOSTIC, Verdict.LIMITED, Verdict.NON_DIAGNOSTIC)


@dataclass(frozen=True)
class _SubScore:
    """A criterion's pooled score and the scores per slice (empty for criteria of the whole volume)."""

    criterion: Criterion
    score: float
    per_slice: tuple[float | None, ...] = ()


def not_assessed(entry: RoledStack, reason: str) -> SeriesAssessment:
    """The assessment of a series that is not judged, with the reason; acquisition findings are kept."""
    findings, meets_standard = check_series(entry.role, entry.stack)
    return _series(entry, Verdict.NOT_ASSESSED, None, reason, tuple(findings), meets_standard)


def judge_series(
    entry: RoledStack,
    slices: Sequence[SliceMetrics],
    metrics: Sequence[Metric],
    findings: Sequence[Finding] = (),
    meets_standard: bool | None = None,
) -> SeriesAssessment:
    """Verdict of one stack from its slice and volume metrics; ``findings`` are the advisory ones of the header check.

    A role without criteria, or a stack of which nothing could be computed, is not assessed.
    """
    criteria = CRITERIA.get(entry.role)
    if criteria is None:
        return not_assessed(entry, f"role {entry.role} is not judged")
    subscores = _subscores(criteria, slices, metrics)
    # Completeness alone says nothing about an image: at least one criterion must have looked at pixels.
    if not any(subscore.criterion.per_slice for subscore in subscores):
        return not_assessed(entry, "no image metric could be computed")
    slice_scores = _slice_scores(subscores, slices)
    defects = [finding for subscore in subscores for finding in _defects(subscore, slices, metrics)]
    defects += _bad_slices(slice_scores, defects)
    score = min(subscore.score for subscore in subscores)
    verdict = _verdict(defects)
    return _series(
        entry,
        verdict,
        score,
        _series_reason(verdict, defects),
        (*defects, *findings),
        meets_standard,
        slice_scores,
        tuple(metrics),
    )


def _subscores(
    criteria: Sequence[Criterion], slices: Sequence[SliceMetrics], metrics: Sequence[Metric]
) -> list[_SubScore]:
    values = {metric.name: metric.value for metric in metrics}
    subscores = []
    for criterion in criteria:
        per_slice: tuple[float | None, ...] = ()
        if criterion.per_slice:
            per_slice = tuple(criterion.score(entry.value(criterion.metric)) for entry in slices)
            score = pooled(per_slice)
        else:
            score = criterion.score(values.get(criterion.metric))
        if score is not None:
            subscores.append(_SubScore(criterion, score, per_slice))
    return subscores


def _slice_scores(subscores: Sequence[_SubScore], slices: Sequence[SliceMetrics]) -> tuple[SliceScore, ...]:
    """Per slice the smallest of its sub-scores; a slice of which nothing could be computed has none."""
    scores = []
    for index, entry in enumerate(slices):
        own = [subscore.per_slice[index] for subscore in subscores if subscore.per_slice]
        known = [score for score in own if score is not None]
        if known:
            reference = entry.reference
            scores.append(SliceScore(reference.sop_instance_uid, reference.frame_number, min(known)))
    return tuple(scores)


def _defects(subscore: _SubScore, slices: Sequence[SliceMetrics], metrics: Sequence[Metric]) -> list[Finding]:
    if subscore.score >= LIMITED_BELOW:
        return []
    severity = Severity.DISQUALIFYING if subscore.score < NON_DIAGNOSTIC_BELOW else Severity.LIMITING
    criterion = subscore.criterion
    metric = next(metric for metric in metrics if metric.name == criterion.metric)
    value = f"{metric.name} {metric.value:.3g} {metric.unit}" if metric.value is not None else metric.name
    seen_on = tuple(
        entry.reference.sop_instance_uid
        for entry, score in zip(slices, subscore.per_slice, strict=False)
        if score is not None and score < LIMITED_BELOW
    )
    text = f"{criterion.defect} ({value}, sub-score {subscore.score:.2f})"
    return [Finding(criterion.code, severity, text, value, seen_on)]


def _bad_slices(scores: Sequence[SliceScore], defects: Sequence[Finding]) -> list[Finding]:
    """Single ruined slices in a series that passes otherwise: a lesion may hide in them. The two ends are not counted,
    where there is often little anatomy."""
    if any(defect.severity is not Severity.ADVISORY for defect in defects):
        return []
    ruined = tuple(entry.sop_instance_uid for entry in scores[1:-1] if entry.score < NON_DIAGNOSTIC_BELOW)
    if not ruined:
        return []
    text = f"{len(ruined)} of {len(scores)} slices are non-diagnostic although the series as a whole is not"
    value = f"{len(ruined)} of {len(scores)} slices"
    return [Finding(codes.IMAGE_ARTIFACT, Severity.LIMITING, text, value, ruined)]


def _verdict(findings: Sequence[Finding]) -> Verdict:
    severities = {finding.severity for finding in findings}
    if Severity.DISQUALIFYING in severities:
        return Verdict.NON_DIAGNOSTIC
    return Verdict.LIMITED if Severity.LIMITING in severities else Verdict.DIAGNOSTIC


def _series_reason(verdict: Verdict, defects: Sequence[Finding]) -> str:
    if verdict is Verdict.DIAGNOSTIC:
        return "no defect that limits reading was measured"
    gravest = Severity.DISQUALIFYING if verdict is Verdict.NON_DIAGNOSTIC else Severity.LIMITING
    return "; ".join(defect.text for defect in defects if defect.severity is gravest)


def _series(
    entry: RoledStack,
    verdict: Verdict,
    score: float | None,
    reason: str,
    findings: tuple[Finding, ...],
    meets_standard: bool | None,
    slices: tuple[SliceScore, ...] = (),
    metrics: tuple[Metric, ...] = (),
) -> SeriesAssessment:
    stack = entry.stack
    b_value = stack.b_value.s_per_mm2 if stack.b_value is not None else None
    return SeriesAssessment(
        series_instance_uid=stack.series_instance_uid,
        series_number=stack.acquisition.series_number,
        series_description=stack.acquisition.series_description,
        role=entry.role,
        b_value=b_value,
        b_values=() if b_value is None else (b_value,),
        verdict=verdict,
        score=score,
        reason=reason,
        slices=slices,
        findings=findings,
        metrics=metrics,
        meets_standard=meets_standard,
        role_reasons=entry.reasons,
        not_checkable=not_checkable(entry.role, stack),
    )


def worse(first: Verdict, second: Verdict) -> Verdict:
    """The worse of two verdicts; not-assessed counts only where both are."""
    if Verdict.NOT_ASSESSED in (first, second):
        return second if first is Verdict.NOT_ASSESSED else first
    return max(first, second, key=_ORDER.index)


def judge_study(assembly: Assembly, series: Sequence[SeriesAssessment]) -> StudyAssessment:
    """Verdict of the study and the gate's decision by the table above; ``series`` has one assessment per series."""
    t2w, diffusion = _chosen_t2w(assembly, series), _chosen_diffusion(assembly, series)
    reasons = _shut_reasons(t2w, diffusion)
    if not reasons:
        reasons_open = tuple(_statement(entry) for entry in (t2w, *diffusion) if entry is not None)
        gate = GateDecision(True, reasons_open)
    else:
        gate = GateDecision(False, reasons)
    verdict = Verdict.NOT_ASSESSED
    for entry in (t2w, *diffusion):
        verdict = worse(verdict, entry.verdict) if entry is not None else verdict
    if t2w is None and verdict is Verdict.DIAGNOSTIC:
        verdict = Verdict.LIMITED
    return StudyAssessment(
        study_instance_uid=assembly.study_instance_uid,
        verdict=verdict,
        reason="; ".join(gate.reasons),
        series=tuple(series),
        gate=gate,
        findings=tuple(check_study(assembly)),
    )


def _statement(entry: SeriesAssessment) -> str:
    return f"{_name(entry)}: {entry.verdict}" + ("" if entry.verdict is Verdict.DIAGNOSTIC else f", {entry.reason}")


def _name(entry: SeriesAssessment) -> str:
    number = "" if entry.series_number is None else f" (series {entry.series_number})"
    return f"{entry.role}{number}"


def choose_by_quality(assembly: Assembly, study: StudyAssessment) -> Assembly:
    """The assembly with the axial T2W that counts for quality: another repeat where the chosen one is unusable.

    Detection must run on what the gate judged. Returns the assembly itself where nothing changes.
    """
    t2w = _chosen_t2w(assembly, study.series)
    if t2w is None or t2w.series_instance_uid == _series_of(assembly, "t2w"):
        return assembly
    volume_id = next(
        entry.stack.volume_id
        for entry in assembly.stacks
        if entry.stack.series_instance_uid == t2w.series_instance_uid and entry.role == Role.T2W_AXIAL
    )
    return replace(assembly, choices=tuple(_by_quality(choice, volume_id, t2w) for choice in assembly.choices))


def _by_quality(choice: Choice, volume_id: str, t2w: SeriesAssessment) -> Choice:
    if choice.purpose != "t2w":
        return choice
    rejected = {uid: why for uid, why in choice.rejected.items() if uid != volume_id}
    if choice.volume_id is not None:
        rejected[choice.volume_id] = "quality is non-diagnostic or not assessed"
    return Choice("t2w", volume_id, f"best quality among the repeats ({_statement(t2w)})", rejected)


def _of_role(series: Sequence[SeriesAssessment], *roles: str) -> list[SeriesAssessment]:
    return [entry for entry in series if entry.role in roles]


def _series_of(assembly: Assembly, purpose: str) -> str | None:
    """Series Instance UID of the stack chosen for a purpose."""
    volume_id = next((choice.volume_id for choice in assembly.choices if choice.purpose == purpose), None)
    return next(
        (entry.stack.series_instance_uid for entry in assembly.stacks if entry.stack.volume_id == volume_id), None
    )


def _chosen_t2w(assembly: Assembly, series: Sequence[SeriesAssessment]) -> SeriesAssessment | None:
    """The axial T2W that counts: the one chosen by the assembly, unless it is unusable and a repeat is better."""
    candidates = _of_role(series, Role.T2W_AXIAL)
    if not candidates:
        return None
    uid = _series_of(assembly, "t2w")
    chosen = next((entry for entry in candidates if entry.series_instance_uid == uid), candidates[-1])
    if chosen.verdict in (Verdict.DIAGNOSTIC, Verdict.LIMITED):
        return chosen
    usable = [entry for entry in candidates if entry.verdict in (Verdict.DIAGNOSTIC, Verdict.LIMITED)]
    return max(usable, key=lambda entry: entry.score or 0.0, default=chosen)


def _chosen_diffusion(assembly: Assembly, series: Sequence[SeriesAssessment]) -> tuple[SeriesAssessment, ...]:
    """The ADC and DWI series that count: those chosen by the assembly, else all there are."""
    candidates = _of_role(series, Role.ADC, Role.DWI)
    uids = {_series_of(assembly, "adc"), _series_of(assembly, "high-b")} - {None}
    chosen = tuple(entry for entry in candidates if entry.series_instance_uid in uids)
    return chosen or tuple(candidates)


def _shut_reasons(t2w: SeriesAssessment | None, diffusion: Sequence[SeriesAssessment]) -> tuple[str, ...]:
    """Why the gate is shut, in sentences; empty: it is open."""
    reasons = []
    if t2w is None:
        reasons.append("no axial T2-weighted images")
    if not diffusion:
        reasons.append("no diffusion images")
    elif not _of_role(diffusion, Role.ADC) and len({b for entry in diffusion for b in entry.b_values}) < 2:
        reasons.append("no ADC map and fewer than two b-values to compute one from")
    for entry in (t2w, *diffusion):
        if entry is not None and entry.verdict in (Verdict.NON_DIAGNOSTIC, Verdict.NOT_ASSESSED):
            reasons.append(_statement(entry))
    return tuple(reasons)
