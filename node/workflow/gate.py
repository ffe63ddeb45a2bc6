"""Step gate: from the series' quality to the study's verdict, and whether detection may run."""

from ai.quality.document import from_document, series_from_document, to_document
from ai.quality.gate import judge_study
from ai.quality.types import StudyAssessment
from node.workflow.context import NodeContext
from storage.journal import record
from storage.models import StudyRevision, utc_now
from storage.revisions import UnknownStudy, find_revision, save_verdict


def gate_step(context: NodeContext, study_instance_uid: str, number: int) -> None:
    """Write the study verdict and the gate's decision."""
    assembly = context.study(study_instance_uid, number).assembly
    with context.database.session() as session:
        revision = find_revision(session, study_instance_uid, number)
        series = [series_from_document(row.document) for row in revision.assessments]
        assessment = judge_study(assembly, series)
        save_verdict(
            session,
            revision,
            verdict=assessment.verdict,
            reason=assessment.reason,
            gate_open=assessment.gate.open,
            gate_reasons=assessment.gate.reasons,
            document=to_document(assessment),
            decided_at=utc_now(),
        )
        record(
            session,
            "gate-opened" if assessment.gate.open else "gate-shut",
            f"{assessment.verdict}: {'; '.join(assessment.gate.reasons)}",
            study_instance_uid,
            revision=number,
        )


def stored_assessment(revision: StudyRevision) -> StudyAssessment:
    """What an earlier gate step decided. Raises UnknownStudy where there is no verdict yet."""
    if revision.verdict is None:
        raise UnknownStudy(f"revision {revision.number} has no verdict yet")
    return from_document(revision.verdict.document)
