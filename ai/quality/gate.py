"""The gate policy: from the verdicts of the series to that of the study, and whether detection may run.

The axial T2W and the diffusion images that count are the ones the assembly chooses for detection, chosen again with the
verdicts known: between repeats the better verdict wins, then the later one. What follows from their verdicts is a table
with its sources, ``data/gate_rules.toml`` (``ai.quality.gate_rules``).

Diffusion is there if there is an ADC map, or a DWI of two b-values to compute it from. Header findings and other series
(other planes, DCE) never shut the gate. What a single series is judged by is in ``ai.quality.series``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ai.quality.gate_rules import RISING_DEFECT, Column, gate_table
from ai.quality.protocol import check_study
from ai.quality.series import judge_series, not_assessed
from ai.quality.types import GateDecision, SeriesAssessment, StudyAssessment, Verdict
from ai.volumes.diffusion_set import choose_diffusion_set
from ai.volumes.select import MIN_B_VALUES_FOR_A_FIT, choose
from ai.volumes.types import Assembly, Choice

__all__ = [
    "choose_by_quality",
    "judge_series",
    "judge_study",
    "not_assessed",
    "t2_by_quality",
    "widened",
    "worse",
]

_USABLE = (Verdict.DIAGNOSTIC, Verdict.LIMITED)

QUALITY_OF_VERDICT = {
    Verdict.DIAGNOSTIC: 1.0,
    Verdict.LIMITED: 0.5,
    Verdict.NON_DIAGNOSTIC: 0.1,
    Verdict.NOT_ASSESSED: 0.0,
}
"""What decides between repeats: the verdict, not the score. Scores of two good repeats differ by chance, and a repeat
was made for a reason, so between equals the later one is taken."""


def worse(first: Verdict, second: Verdict) -> Verdict:
    """The worse of two verdicts; not-assessed counts only where both are."""
    if Verdict.NOT_ASSESSED in (first, second):
        return second if first is Verdict.NOT_ASSESSED else first
    return max(first, second, key=RISING_DEFECT.index)


def choose_by_quality(assembly: Assembly, study: StudyAssessment) -> Assembly:
    """The assembly, its choices made again with the verdicts known: detection must run on what the gate judged."""
    return replace(assembly, choices=choose(assembly.stacks, _quality(study.series)))


def t2_by_quality(assembly: Assembly, series: Sequence[SeriesAssessment]) -> Choice:
    """The axial T2 that counts once the verdicts are known."""
    return next(choice for choice in choose(assembly.stacks, _quality(series)) if choice.purpose == "t2w")


def widened(series: SeriesAssessment) -> SeriesAssessment:
    """The series with its verdict limited at best if it is unlike what the score was made on; never rejected for that.

    Widening twice changes nothing.
    """
    bound = gate_table().novelty
    verdict = bound.apply(series.verdict)
    if not series.novelty or verdict is series.verdict:
        return series
    return replace(series, verdict=verdict, reason=f"{bound.statement} {series.novelty}")


def judge_study(assembly: Assembly, series: Sequence[SeriesAssessment]) -> StudyAssessment:
    """Verdict of the study and the gate's decision by the table; ``series`` has one assessment per series."""
    quality = _quality(series)
    choices: dict[str, Choice] = {choice.purpose: choice for choice in choose(assembly.stacks, quality)}
    by_uid = {entry.series_instance_uid: entry for entry in series}
    t2w = _chosen(assembly, choices["t2w"], by_uid)
    diffusion = _diffusion(assembly, choices, by_uid, quality)
    table = gate_table()
    rule = table.rule(_column(t2w), _column(diffusion))
    verdict, opens, name, statement, source = rule.verdict, rule.opens, rule.name, rule.statement, rule.source
    if rule.opens and _partly_assessed(diffusion):
        bound = table.part_not_assessed
        verdict, opens = bound.apply(verdict), not bound.shuts
        name, statement, source = "part-not-assessed", bound.statement, bound.source
    reasons = _shut_reasons(choices, t2w, diffusion) or tuple(_statement(entry) for entry in (*t2w, *diffusion))
    gate = GateDecision(opens, reasons, name, f"{statement} [{source}]")
    return StudyAssessment(
        study_instance_uid=assembly.study_instance_uid,
        verdict=verdict,
        reason="; ".join(gate.reasons),
        series=tuple(series),
        gate=gate,
        findings=tuple(check_study(assembly)),
    )


def _column(counted: Sequence[SeriesAssessment]) -> Column:
    """The column of the table: the worst verdict of the series that count, or that there are none."""
    if not counted:
        return Column.ABSENT
    verdict = Verdict.NOT_ASSESSED
    for entry in counted:
        verdict = worse(verdict, entry.verdict)
    return Column(verdict.value)


def _partly_assessed(counted: Sequence[SeriesAssessment]) -> bool:
    return len({entry.verdict is Verdict.NOT_ASSESSED for entry in counted}) > 1


def _quality(series: Sequence[SeriesAssessment]) -> dict[str, float]:
    return {entry.series_instance_uid: QUALITY_OF_VERDICT[entry.verdict] for entry in series}


def _chosen(assembly: Assembly, choice: Choice, by_uid: Mapping[str, SeriesAssessment]) -> tuple[SeriesAssessment, ...]:
    """The assessment of the series that holds the chosen stack; empty where nothing was chosen."""
    uids = [entry.stack.series_instance_uid for entry in assembly.stacks if entry.stack.volume_id == choice.volume_id]
    return tuple(by_uid[uid] for uid in uids if uid in by_uid)


def _diffusion(
    assembly: Assembly,
    choices: Mapping[str, Choice],
    by_uid: Mapping[str, SeriesAssessment],
    quality: Mapping[str, float],
) -> tuple[SeriesAssessment, ...]:
    """The series detection takes diffusion from: chosen ADC map and high b, and the DWI where one is to be computed.

    Empty where there is neither an ADC map nor enough b-values to compute one.
    """
    counted = [*_chosen(assembly, choices["adc"], by_uid), *_chosen(assembly, choices["high-b"], by_uid)]
    fit = choose_diffusion_set(assembly.stacks, quality)
    computable = fit is not None and len(fit.stacks_by_b) >= MIN_B_VALUES_FOR_A_FIT
    if choices["adc"].volume_id is None and not computable:
        return ()
    if fit is not None and computable and None in (choices["adc"].volume_id, choices["high-b"].volume_id):
        counted += [by_uid[stack.series_instance_uid] for stack in fit.stacks if stack.series_instance_uid in by_uid]
    return tuple({entry.series_instance_uid: entry for entry in counted}.values())


def _statement(entry: SeriesAssessment) -> str:
    number = "" if entry.series_number is None else f" (series {entry.series_number})"
    reason = "" if entry.verdict is Verdict.DIAGNOSTIC else f", {entry.reason}"
    return f"{entry.role}{number}: {entry.verdict}{reason}"


def _shut_reasons(
    choices: Mapping[str, Choice], t2w: Sequence[SeriesAssessment], diffusion: Sequence[SeriesAssessment]
) -> tuple[str, ...]:
    """What in this study keeps the gate shut, in sentences; empty: nothing does."""
    reasons = []
    if not t2w:
        reasons.append(f"no axial T2-weighted images: {_why_none(choices['t2w'])}")
    if not diffusion:
        reasons.append(f"no diffusion images: {_why_none(choices['adc'])}")
    reasons += [_statement(entry) for entry in (*t2w, *diffusion) if entry.verdict not in _USABLE]
    return tuple(reasons)


def _why_none(choice: Choice) -> str:
    return "; ".join([choice.reason, *choice.rejected.values()])
