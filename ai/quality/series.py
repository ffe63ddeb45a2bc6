"""The verdict of one series from its metrics and findings.

Every criterion of the role (``ai.quality.scoring``) gives a sub-score; the score is the smallest of them. A sub-score
below 0.7 is a limiting finding, below 0.4 a disqualifying one; slices below 0.4 in a series that is good otherwise are
a limiting finding. The verdict is the gravest finding's. Advisory findings (header check) never change it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ai.quality import codes
from ai.quality.definitions import RATIO
from ai.quality.gate_rules import RISING_DEFECT
from ai.quality.metrics import SliceMetrics
from ai.quality.protocol import check_series, not_checkable
from ai.quality.scoring import CRITERIA, DEFECTS, LIMITED_BELOW, NON_DIAGNOSTIC_BELOW, Criterion, pooled
from ai.quality.types import Finding, Metric, SeriesAssessment, Severity, SliceScore, Verdict
from ai.volumes.types import RoledStack


@dataclass(frozen=True)
class _SubScore:
    """A criterion's pooled score and the scores per slice (empty for criteria of the whole volume)."""

    criterion: Criterion
    score: float
    per_slice: tuple[float | None, ...] = ()


def not_assessed(entry: RoledStack, reason: str, metrics: Sequence[Metric] = ()) -> SeriesAssessment:
    """The assessment of a series that is not judged, with the reason; acquisition findings are kept.

    ``metrics`` are what was measured all the same; the reason names them.
    """
    findings, meets_standard = check_series(entry.role, entry.stack)
    measured = ", ".join(_words(metric) for metric in metrics if metric.value is not None)
    told = f"measured {measured}; {reason}" if measured else reason
    verdict = Verdict.NOT_ASSESSED
    return _series(entry, verdict, None, told, tuple(findings), meets_standard, metrics=tuple(metrics))


def judge_defects(entry: RoledStack, metrics: Sequence[Metric], why_not_good: str) -> SeriesAssessment:
    """One-sided verdict of a stack: limited or non-diagnostic for a defect its role has a criterion for.

    Without a defect it is not assessed, because nothing measured says that it is good; ``why_not_good`` says why.
    """
    subscores = _subscores(DEFECTS.get(entry.role, ()), (), metrics)
    defects = tuple(finding for subscore in subscores for finding in _defects(subscore, (), metrics))
    if not defects:
        return not_assessed(entry, why_not_good, metrics)
    verdict, score = _verdict(defects), min(subscore.score for subscore in subscores)
    return _series(entry, verdict, score, _series_reason(verdict, defects), defects, None, metrics=tuple(metrics))


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


def judge_further(series: SeriesAssessment, metrics: Sequence[Metric], compared_with: str = "") -> SeriesAssessment:
    """An assessed series in the light of further metrics of its volume, measured against another series.

    Metrics of the same names are replaced. Criteria of the role that score the new ones can lower verdict and score,
    never raise them; a site's calibration is of the image alone, and so is its probability. A series that was not
    assessed stays so; it only takes the metrics.
    """
    names = {metric.name for metric in metrics}
    known = tuple(metric for metric in series.metrics if metric.name not in names)
    measured = replace(series, metrics=(*known, *metrics), compared_with=compared_with)
    if series.verdict is Verdict.NOT_ASSESSED or series.score is None:
        return measured
    criteria = [criterion for criterion in CRITERIA.get(series.role, ()) if criterion.metric in names]
    subscores = _subscores(criteria, (), metrics)
    defects = tuple(finding for subscore in subscores for finding in _defects(subscore, (), metrics))
    verdict = max(series.verdict, _verdict(defects), key=RISING_DEFECT.index)
    added = "; ".join(defect.text for defect in defects)
    reason = added if verdict is not series.verdict else "; ".join(filter(None, (series.reason, added)))
    return replace(
        measured,
        verdict=verdict,
        score=min(series.score, *(subscore.score for subscore in subscores)) if subscores else series.score,
        reason=reason,
        findings=(*defects, *series.findings),
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
    value = _words(metric)
    seen_on = tuple(
        entry.reference.sop_instance_uid
        for entry, score in zip(slices, subscore.per_slice, strict=False)
        if score is not None and score < LIMITED_BELOW
    )
    text = f"{criterion.defect} ({value}, sub-score {subscore.score:.2f})"
    code = criterion.code
    if severity is Severity.DISQUALIFYING and criterion.code_if_disqualifying is not None:
        code = criterion.code_if_disqualifying
    return [Finding(code, severity, text, value, seen_on)]


def _words(metric: Metric) -> str:
    """A metric's name and value for people; the UCUM unit 1 says nothing and is left out."""
    figure = "" if metric.value is None else f" {metric.value:.3g}"
    unit = "" if metric.unit == RATIO else f" {metric.unit}"
    return f"{metric.name.replace('_', ' ')}{figure}{unit}"


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
