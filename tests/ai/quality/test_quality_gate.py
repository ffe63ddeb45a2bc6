"""The gate's table, row by row, on assemblies made for it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.quality import codes
from ai.quality.gate import choose_by_quality, judge_series, judge_study, widened, worse
from ai.quality.metrics import slice_metrics, volume_metrics
from ai.quality.types import Finding, SeriesAssessment, Severity, Verdict
from ai.volumes.select import choose
from ai.volumes.types import Assembly, Role, RoledStack

D, L, N, NOT = Verdict.DIAGNOSTIC, Verdict.LIMITED, Verdict.NON_DIAGNOSTIC, Verdict.NOT_ASSESSED
T2, T2_LATER, DWI, ADC = "1.2.1", "1.2.2", "1.2.3", "1.2.4"


def assessment(series: str, role: str, verdict: Verdict, b_values: tuple[float, ...] = ()) -> SeriesAssessment:
    score = None if verdict is NOT else {D: 0.9, L: 0.6, N: 0.2}[verdict]
    return SeriesAssessment(series, 1, "", role, b_values[-1] if b_values else None, b_values, verdict, score, "why")


def assembly_of(made, *series: str) -> Assembly:
    stacks = []
    for uid in series:
        if uid in (T2, T2_LATER):
            t2 = made.stack((20, 128, 128), (3.0, 1.4, 1.4), uid, acquisition_time=f"12000{uid[-1]}")
            stacks.append(RoledStack(t2, Role.T2W_AXIAL, ()))
        elif uid == DWI:
            for b in (50.0, 800.0, 1400.0):
                stacks.append(RoledStack(made.stack((20, 90, 90), (3.0, 2.0, 2.0), uid, b), Role.DWI, ()))
        else:
            stacks.append(RoledStack(made.stack((20, 90, 90), (3.0, 2.0, 2.0), uid), Role.ADC, ()))
    return Assembly("1.2", tuple(stacks), choose(stacks))


def judge(made, verdicts: dict[str, Verdict]):
    roles = {T2: Role.T2W_AXIAL, T2_LATER: Role.T2W_AXIAL, DWI: Role.DWI, ADC: Role.ADC}
    bs = {DWI: (50.0, 800.0, 1400.0)}
    series = [assessment(uid, roles[uid], verdict, bs.get(uid, ())) for uid, verdict in verdicts.items()]
    return judge_study(assembly_of(made, *verdicts), series)


@pytest.mark.parametrize(
    ("verdicts", "verdict", "is_open"),
    [
        ({T2: D, DWI: D, ADC: D}, D, True),
        ({T2: L, DWI: D, ADC: D}, L, True),
        ({T2: D, DWI: L, ADC: D}, L, True),
        ({T2: D, DWI: D}, D, True),
        ({T2: D, ADC: D}, D, True),
        ({T2: N, DWI: D, ADC: D}, N, False),
        ({T2: D, DWI: N, ADC: D}, N, False),
        ({T2: D, DWI: D, ADC: N}, N, False),
        ({T2: NOT, DWI: D, ADC: D}, L, False),
        ({T2: D}, D, False),
        ({T2: N}, N, False),
        ({DWI: D, ADC: D}, L, False),
        ({DWI: N, ADC: D}, N, False),
        ({}, NOT, False),
    ],
)
def test_table(made, verdicts, verdict, is_open) -> None:
    study = judge(made, verdicts)
    assert study.verdict is verdict
    assert study.gate.open is is_open
    assert study.gate.reasons
    assert study.reason


def test_t2_only_study_says_what_is_missing(made) -> None:
    study = judge(made, {T2: D})
    assert len(study.gate.reasons) == 1
    assert study.gate.reasons[0].startswith("no diffusion images")
    assert codes.INCOMPLETE_STUDY in {finding.code for finding in study.findings}


@pytest.mark.parametrize(
    ("first", "later", "taken", "verdict"),
    [(D, D, T2_LATER, D), (D, N, T2, D), (N, D, T2_LATER, D), (L, D, T2_LATER, D), (D, L, T2, D), (N, N, T2_LATER, N)],
)
def test_of_two_repeats_the_better_then_the_later_counts(made, first, later, taken, verdict) -> None:
    verdicts = {T2: first, T2_LATER: later, DWI: D, ADC: D}
    study = judge(made, verdicts)
    assert study.verdict is verdict
    assert study.gate.open is (verdict is not N)
    again = choose_by_quality(assembly_of(made, *verdicts), study)
    chosen = next(choice.volume_id for choice in again.choices if choice.purpose == "t2w")
    assert chosen == f"{taken}/None"


def test_sagittal_images_never_shut_the_gate(made) -> None:
    assembly = assembly_of(made, T2, ADC)
    sagittal = RoledStack(
        replace(assembly.stacks[0].stack, series_instance_uid="1.2.9", volume_id="s"), Role.T2W_SAGITTAL, ()
    )
    series = [
        assessment(T2, Role.T2W_AXIAL, D),
        assessment(ADC, Role.ADC, D),
        assessment("1.2.9", Role.T2W_SAGITTAL, N),
    ]
    study = judge_study(replace(assembly, stacks=(*assembly.stacks, sagittal)), series)
    assert study.gate.open
    assert study.verdict is D


@given(st.sampled_from(Verdict), st.sampled_from(Verdict), st.sampled_from(Verdict))
def test_worse_is_commutative_associative_and_idempotent(a: Verdict, b: Verdict, c: Verdict) -> None:
    assert worse(a, b) is worse(b, a)
    assert worse(worse(a, b), c) is worse(a, worse(b, c))
    assert worse(a, a) is a


def judged(made, pixels, role=Role.T2W_AXIAL, findings=(), **arguments) -> SeriesAssessment:
    volume = made.volume(pixels, **arguments)
    slices = slice_metrics(volume, role)
    return judge_series(RoledStack(volume.stack, role, ()), slices, volume_metrics(volume, role, slices), findings)


def test_advisory_findings_do_not_change_a_verdict(made) -> None:
    pixels = made.pelvis(slices=19)
    advisory = Finding(codes.PROTOCOL_NOT_FOLLOWED, Severity.ADVISORY, "thick", "4 mm > 3 mm")
    without, with_it = judged(made, pixels), judged(made, pixels, findings=(advisory,))
    assert without.verdict is with_it.verdict is D
    assert with_it.findings == (advisory,)
    assert without.score == with_it.score


def test_one_ruined_slice_limits_a_good_series_and_is_named(made) -> None:
    pixels = made.pelvis(slices=19)
    pixels[9] = made.corrupt.noise(pixels[9:10], 1.0)[0]
    result = judged(made, pixels)
    assert result.verdict is L
    assert [finding.sop_instance_uids for finding in result.findings] == [("1.2.3.9",)]
    assert min(result.slices, key=lambda entry: entry.score).sop_instance_uid == "1.2.3.9"


def test_an_empty_slice_is_worst_and_an_empty_series_non_diagnostic(made) -> None:
    pixels = made.pelvis(slices=19)
    pixels[7] = 0.0
    result = judged(made, pixels)
    assert result.verdict is L
    assert next(entry.score for entry in result.slices if entry.sop_instance_uid == "1.2.3.7") == 0.0
    assert judged(made, 0.0 * pixels).verdict is N


def test_missing_slices_limit_and_many_disqualify(made) -> None:
    volume = made.volume(made.pelvis(slices=19))

    def without(missing: set[int]) -> SeriesAssessment:
        kept = tuple(index for index in range(19) if index not in missing)
        stack = replace(volume.stack, slices=tuple(volume.stack.slices[i] for i in kept), slice_indices=kept)
        gap = replace(volume, stack=stack)
        slices = slice_metrics(gap, Role.T2W_AXIAL)
        metrics = volume_metrics(gap, Role.T2W_AXIAL, slices)
        return judge_series(RoledStack(stack, Role.T2W_AXIAL, ()), slices, metrics)

    assert without({9}).verdict is L
    assert codes.ANATOMY_COVERAGE_INCOMPLETE in {finding.code for finding in without({9}).findings}
    assert without(set(range(5, 13))).verdict is N


def test_a_short_slab_is_limited_then_non_diagnostic(made) -> None:
    verdicts = [judged(made, made.pelvis(slices=count)).verdict for count in (19, 12, 6)]
    assert verdicts == [D, L, N]


def test_a_part_of_diffusion_that_nobody_looked_at_limits_the_study_and_shuts_the_gate(made) -> None:
    study = judge(made, {T2: D, DWI: NOT, ADC: D})
    assert (study.verdict, study.gate.open, study.gate.rule) == (L, False, "part-not-assessed")
    assert judge(made, {T2: D, DWI: NOT, ADC: N}).verdict is N


def test_every_decision_quotes_its_rule_and_the_source(made) -> None:
    gate = judge(made, {T2: D, DWI: D, ADC: D}).gate
    assert gate.rule == "both-diagnostic"
    assert gate.statement.endswith("[PI-QUAL v2]")


@given(st.sampled_from(Verdict), st.sampled_from(["", "a coil nobody has seen"]))
def test_novelty_limits_and_never_rejects(verdict: Verdict, novelty: str) -> None:
    series = replace(assessment(T2, Role.T2W_AXIAL, verdict), novelty=novelty)
    result = widened(series)
    assert result.verdict is (L if novelty and verdict is D else verdict)
    assert widened(result) == result
    assert novelty in result.reason or verdict is not D
