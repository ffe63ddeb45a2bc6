"""The rules of completion: silence is enough in the end, evidence makes it shorter, known gaps make it longer."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.evidence import (
    CompletionPolicy,
    Confidence,
    Evidence,
    EvidenceKind,
    Named,
    SeriesFacts,
    StudyFacts,
    judge_series,
    judge_study,
)

POLICY = CompletionPolicy(series_quiet_s=5, study_quiet_s=10, open_association_quiet_s=60)
LONGEST_S = 1800.0

seconds = st.floats(0, 4000)
named = st.none() | st.builds(
    lambda named, missing: Named("procedure step 1.2", named + missing, missing), st.integers(1, 9), st.integers(0, 3)
)
evidence = st.none() | st.builds(
    Evidence,
    kind=st.sampled_from([EvidenceKind.ANNOUNCED_COUNT, EvidenceKind.GEOMETRY]),
    missing=st.integers(0, 3),
    reason=st.just("so many slices"),
    open_ended=st.booleans(),
)
series_facts = st.builds(
    SeriesFacts, silent_s=seconds, sender_done=st.booleans(), step=named, commitment=named, header=evidence
)
study_facts = st.builds(
    StudyFacts,
    silent_s=seconds,
    instances=st.integers(0, 100),
    open_associations=st.integers(0, 3),
    incomplete_series=st.integers(0, 2),
    steps_in_progress=st.integers(0, 2),
    step=named,
    commitment=named,
    announced_instances=st.none() | st.integers(0, 120),
)


@given(series_facts)
def test_nothing_closes_a_series_within_the_guard_time_and_everything_in_the_end(facts: SeriesFacts) -> None:
    assert judge_series(replace(facts, silent_s=0.999), POLICY) is None
    assert judge_series(replace(facts, silent_s=60), POLICY) is not None


@given(series_facts, seconds)
def test_a_series_that_may_be_closed_stays_so_while_nothing_happens(facts: SeriesFacts, more_s: float) -> None:
    closing = judge_series(facts, POLICY)
    if closing is not None:
        assert judge_series(replace(facts, silent_s=facts.silent_s + more_s), POLICY) is not None


@given(series_facts)
def test_certain_and_strong_need_evidence_without_gaps(facts: SeriesFacts) -> None:
    closing = judge_series(facts, POLICY)
    if closing is None or closing.confidence is Confidence.WEAK:
        return
    strongest = facts.step or facts.commitment or facts.header
    assert strongest is not None
    assert strongest.missing == 0
    assert (closing.confidence is Confidence.CERTAIN) == (facts.step is not None)
    assert closing.kind is not EvidenceKind.QUIET


@given(series_facts, st.integers(1, 5))
def test_known_gaps_wait_longer_and_close_weakly_saying_so(facts: SeriesFacts, missing: int) -> None:
    gaps = replace(facts, step=Named("procedure step 1.2", 30, missing, ("1.2.3.29",)))
    assert judge_series(replace(gaps, silent_s=59.9), POLICY) is None
    closing = judge_series(replace(gaps, silent_s=60), POLICY)
    assert closing is not None
    assert (closing.kind, closing.confidence) == (EvidenceKind.PROCEDURE_STEP, Confidence.WEAK)
    assert f"{30 - missing} of 30 instances named by procedure step 1.2 have arrived: 1.2.3.29" in closing.reason
    assert "without what is missing" in closing.reason


@pytest.mark.parametrize(("done", "open_ended", "after_s"), [(True, True, 1), (False, True, 5), (False, False, 1)])
def test_what_may_go_on_counts_only_once_the_sender_is_done(done: bool, open_ended: bool, after_s: float) -> None:
    header = Evidence(EvidenceKind.GEOMETRY, 0, "1 volume of 20 slices, without a gap", open_ended)
    facts = SeriesFacts(silent_s=after_s, sender_done=done, header=header)
    assert judge_series(replace(facts, silent_s=after_s - 0.001), POLICY) is None
    closing = judge_series(facts, POLICY)
    assert closing is not None
    assert closing.kind == (EvidenceKind.QUIET if after_s == 5 else EvidenceKind.GEOMETRY)
    assert "20 slices" in closing.reason


def test_silence_closes_a_series_to_the_second() -> None:
    facts = SeriesFacts(silent_s=5, sender_done=False)
    closing = judge_series(facts, POLICY)
    assert closing is not None
    assert (closing.kind, closing.confidence, closing.reason) == ("quiet", "weak", "silent for 5 s")
    assert judge_series(replace(facts, silent_s=4.99), POLICY) is None


@given(study_facts)
def test_nothing_closes_a_study_within_the_guard_time_and_everything_in_the_end(facts: StudyFacts) -> None:
    assert judge_study(replace(facts, silent_s=0.999), POLICY) is None
    assert judge_study(replace(facts, silent_s=LONGEST_S), POLICY) is not None


@given(study_facts, seconds)
def test_a_study_that_may_be_closed_stays_so_while_nothing_happens(facts: StudyFacts, more_s: float) -> None:
    if judge_study(facts, POLICY) is not None:
        assert judge_study(replace(facts, silent_s=facts.silent_s + more_s), POLICY) is not None


@given(study_facts)
def test_a_study_waits_for_a_procedure_step_in_progress(facts: StudyFacts) -> None:
    closing = judge_study(replace(facts, steps_in_progress=1, silent_s=LONGEST_S - 1), POLICY)
    assert closing is None
    late = judge_study(replace(facts, steps_in_progress=1, silent_s=LONGEST_S), POLICY)
    assert late is not None
    assert (late.confidence, "still in progress" in late.reason) == (Confidence.WEAK, True)


@given(study_facts)
def test_a_study_with_an_incomplete_series_is_never_more_than_weak(facts: StudyFacts) -> None:
    closing = judge_study(replace(facts, incomplete_series=1, silent_s=LONGEST_S), POLICY)
    assert closing is not None
    assert closing.confidence is Confidence.WEAK
    assert "1 series closed with instances missing" in closing.reason


@pytest.mark.parametrize(
    ("facts", "kind", "confidence", "after_s"),
    [
        (StudyFacts(0, 30, 1, step=Named("procedure step 1.2 (completed)", 30, 0)), "procedure-step", "certain", 1),
        (StudyFacts(0, 30, 1, commitment=Named("request 1.3", 30, 0)), "storage-commitment", "strong", 1),
        (StudyFacts(0, 30, 1, announced_instances=30), "announced-count", "strong", 1),
        (StudyFacts(0, 29, 0, announced_instances=30), "announced-count", "weak", 60),
        (StudyFacts(0, 30, 0), "associations-released", "weak", 10),
        (StudyFacts(0, 30, 2), "quiet", "weak", 60),
    ],
)
def test_the_evidence_of_a_study_from_strongest_to_silence(
    facts: StudyFacts, kind: str, confidence: str, after_s: float
) -> None:
    assert judge_study(replace(facts, silent_s=after_s - 0.001), POLICY) is None
    closing = judge_study(replace(facts, silent_s=after_s), POLICY)
    assert closing is not None
    assert (closing.kind, closing.confidence) == (kind, confidence)
