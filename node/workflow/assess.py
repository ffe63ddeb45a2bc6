"""Step assess: judge the quality of every series."""

from ai.quality.assess import assess
from ai.quality.document import to_document
from node.workflow.context import NodeContext
from storage.journal import record
from storage.revisions import find_revision, save_assessments


def assess_step(context: NodeContext, study_instance_uid: str, number: int) -> None:
    """Write one assessment per series."""
    study = context.study(study_instance_uid, number)
    document = to_document(assess(study.assembly, study.source))
    with context.database.session() as session:
        save_assessments(session, find_revision(session, study_instance_uid, number), document["series"])
        verdicts = {series["series_instance_uid"]: series["verdict"] for series in document["series"]}
        record(session, "assessed", f"{len(verdicts)} series", study_instance_uid, revision=number, verdicts=verdicts)
