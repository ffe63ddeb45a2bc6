"""When a series or study may be taken as complete: the rules, from the strongest evidence to silence (PS3.4 F, J).

DICOM has no end-of-series and no end-of-study. What a sender says of its own work is worth more than a timer, so the
first evidence of this list that exists decides, both that all is here and that something is missing:

    performed procedure step   the modality has ended the step and names its instances (PS3.4 F)    certain
    storage commitment         a request names the instances (PS3.4 J)                              strong
    announced count            headers say how many instances there are                             strong
    geometry                   no gap in the volumes, and the sender is done with the series        strong
    associations released      silence after the sender has hung up                                 weak
    quiet                      silence                                                              weak

A closing in spite of known gaps is always weak. The rules are pure: facts in, decision out.
"""

from dataclasses import dataclass
from enum import StrEnum

MAXIMUM_UIDS_IN_REASON = 3
"""Missing instances that a reason names; it counts the others."""


class EvidenceKind(StrEnum):
    """What a series or study was closed on."""

    PROCEDURE_STEP = "procedure-step"
    STORAGE_COMMITMENT = "storage-commitment"
    ANNOUNCED_COUNT = "announced-count"
    GEOMETRY = "geometry"
    ASSOCIATIONS_RELEASED = "associations-released"
    QUIET = "quiet"


class Confidence(StrEnum):
    """How sure it is that nothing is missing.

    ``certain``: the modality has ended its work, named the instances, and all are here. ``strong``: the sender's
    request or the headers count or describe them, and all are here. ``weak``: only silence says so, or it is known
    that something is missing.
    """

    CERTAIN = "certain"
    STRONG = "strong"
    WEAK = "weak"


@dataclass(frozen=True)
class CompletionPolicy:
    """Seconds of silence, counted from the last instance, after which evidence counts."""

    series_quiet_s: float
    study_quiet_s: float
    open_association_quiet_s: float
    guard_s: float = 1.0
    """With certain or strong evidence."""
    incomplete_wait_s: float = 60.0
    """While it is known that instances are missing."""
    procedure_step_wait_s: float = 1800.0
    """For a study, while a modality has a procedure step of it in progress."""


@dataclass(frozen=True)
class Named:
    """Instances that a sender has named.

    ``source`` says in words who named them; ``missing_uids`` are the first few of the ``missing``.
    """

    source: str
    named: int
    missing: int
    missing_uids: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """How many of them are here, and which are not."""
        if not self.missing:
            return f"all {self.named} instances named by {self.source} have arrived"
        listed = ", ".join(self.missing_uids)
        more = self.missing - len(self.missing_uids)
        which = f": {listed}" + (f" and {more} more" if more else "") if listed else ""
        return f"{self.named - self.missing} of {self.named} instances named by {self.source} have arrived{which}"


@dataclass(frozen=True)
class Evidence:
    """What is said of a series or study; ``missing`` is the number of instances (of slices, where geometry says it)."""

    kind: EvidenceKind
    missing: int
    reason: str
    open_ended: bool = False
    """Nothing is missing in what is here, but more of the same may follow: it counts once the sender is done."""


@dataclass(frozen=True)
class SeriesFacts:
    """What is known of an open series."""

    silent_s: float
    sender_done: bool
    """Every association that brought it is released, or has since brought another series of the study."""
    step: Named | None = None
    commitment: Named | None = None
    header: Evidence | None = None


@dataclass(frozen=True)
class StudyFacts:
    """What is known of a study that is being received, all its series closed."""

    silent_s: float
    instances: int
    open_associations: int
    incomplete_series: int = 0
    """Series that were closed although it was known that instances are missing."""
    steps_in_progress: int = 0
    step: Named | None = None
    """All its procedure steps have ended: what they name. None unless all have, or where they name nothing."""
    commitment: Named | None = None
    """One request that names every instance of the study, of several series."""
    announced_instances: int | None = None


@dataclass(frozen=True)
class Closing:
    """The decision to close, with its reason in words."""

    kind: EvidenceKind
    confidence: Confidence
    reason: str


def judge_series(facts: SeriesFacts, policy: CompletionPolicy) -> Closing | None:
    """Whether an open series may be closed now; None: it must wait."""
    evidence = _strongest(facts)
    if evidence is not None and evidence.missing:
        return _closed_with_gaps(evidence, facts.silent_s, policy)
    if evidence is not None and (facts.sender_done or not evidence.open_ended):
        confidence = Confidence.CERTAIN if evidence.kind is EvidenceKind.PROCEDURE_STEP else Confidence.STRONG
        return Closing(evidence.kind, confidence, evidence.reason) if facts.silent_s >= policy.guard_s else None
    if facts.silent_s < policy.series_quiet_s:
        return None
    reason = f"silent for {policy.series_quiet_s:g} s"
    return Closing(EvidenceKind.QUIET, Confidence.WEAK, reason if evidence is None else f"{reason}; {evidence.reason}")


def judge_study(facts: StudyFacts, policy: CompletionPolicy) -> Closing | None:
    """Whether a study, all its series closed, may be closed now; None: it must wait."""
    closing = _judge_study(facts, policy)
    if closing is None or not facts.incomplete_series:
        return closing
    reason = f"{closing.reason}; {facts.incomplete_series} series closed with instances missing"
    return Closing(closing.kind, Confidence.WEAK, reason)


def _judge_study(facts: StudyFacts, policy: CompletionPolicy) -> Closing | None:
    if facts.steps_in_progress:
        if facts.silent_s < policy.procedure_step_wait_s:
            return None
        steps = f"although {facts.steps_in_progress} performed procedure step(s) are still in progress"
        return Closing(EvidenceKind.QUIET, Confidence.WEAK, f"silent for {policy.procedure_step_wait_s:g} s, {steps}")
    evidence = _strongest_of_study(facts)
    if evidence is not None and evidence.missing:
        return _closed_with_gaps(evidence, facts.silent_s, policy)
    if evidence is not None:
        confidence = Confidence.CERTAIN if evidence.kind is EvidenceKind.PROCEDURE_STEP else Confidence.STRONG
        return Closing(evidence.kind, confidence, evidence.reason) if facts.silent_s >= policy.guard_s else None
    return _silence_of_study(facts, policy)


def _silence_of_study(facts: StudyFacts, policy: CompletionPolicy) -> Closing | None:
    if not facts.open_associations:
        if facts.silent_s < policy.study_quiet_s:
            return None
        reason = f"associations released, silent for {policy.study_quiet_s:g} s"
        return Closing(EvidenceKind.ASSOCIATIONS_RELEASED, Confidence.WEAK, reason)
    if facts.silent_s < policy.open_association_quiet_s:
        return None
    still_open = f"with {facts.open_associations} association(s) still open"
    return Closing(
        EvidenceKind.QUIET, Confidence.WEAK, f"silent for {policy.open_association_quiet_s:g} s {still_open}"
    )


def _closed_with_gaps(evidence: Evidence, silent_s: float, policy: CompletionPolicy) -> Closing | None:
    if silent_s < policy.incomplete_wait_s:
        return None
    waited = f"closed after {policy.incomplete_wait_s:g} s without what is missing"
    return Closing(evidence.kind, Confidence.WEAK, f"{evidence.reason}; {waited}")


def _strongest(facts: SeriesFacts) -> Evidence | None:
    if facts.step is not None:
        return Evidence(EvidenceKind.PROCEDURE_STEP, facts.step.missing, facts.step.reason)
    if facts.commitment is not None:
        return Evidence(EvidenceKind.STORAGE_COMMITMENT, facts.commitment.missing, facts.commitment.reason)
    return facts.header


def _strongest_of_study(facts: StudyFacts) -> Evidence | None:
    if facts.step is not None:
        return Evidence(EvidenceKind.PROCEDURE_STEP, facts.step.missing, facts.step.reason)
    if facts.commitment is not None:
        return Evidence(EvidenceKind.STORAGE_COMMITMENT, facts.commitment.missing, facts.commitment.reason)
    if facts.announced_instances is None:
        return None
    missing = max(facts.announced_instances - facts.instances, 0)
    reason = f"{facts.instances} instances here, {facts.announced_instances} announced for the study"
    return Evidence(EvidenceKind.ANNOUNCED_COUNT, missing, reason)
