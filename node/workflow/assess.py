"""Step assess: judge the quality of every series that is new or has changed."""

from ai.quality.assess import assess
from ai.quality.document import series_from_document, to_document
from node.workflow.context import NodeContext
from node.workflow.version import PIPELINE_VERSION
from storage.journal import record
from storage.revisions import assessments_that_hold, find_revision, save_assessments


def assess_step(context: NodeContext, study_instance_uid: str, number: int) -> None:
    """Write one assessment per series; what the revision before said of an unchanged series is kept."""
    study = context.study(study_instance_uid, number)
    with context.database.read() as session:
        revision = find_revision(session, study_instance_uid, number)
        known = assessments_that_hold(session, revision, PIPELINE_VERSION)
    earlier = {uid: series_from_document(document) for uid, document in known.items()}
    document = to_document(assess(study.assembly, study.source, known=earlier))
    with context.database.session() as session:
        save_assessments(session, find_revision(session, study_instance_uid, number), document["series"])
        record(
            session,
            "assessed",
            f"{len(document['series'])} series, {len(known)} of them unchanged since the revision before",
            study_instance_uid,
            revision=number,
            verdicts={series["series_instance_uid"]: series["verdict"] for series in document["series"]},
        )
