"""Patient IDs of studies, for the one place that may write them out: the audit trail, where the site asks for it."""

from collections.abc import Collection

from sqlalchemy import select

from storage.database import Database
from storage.models import Patient, Study


def patient_ids_of(database: Database, study_instance_uids: Collection[str]) -> dict[str, str]:
    """Return the Patient ID (0010,0020) by Study Instance UID; a study that is not in the index is left out."""
    query = (
        select(Study.study_instance_uid, Patient.patient_id)
        .join(Patient, Study.patient_id == Patient.id)
        .where(Study.study_instance_uid.in_(study_instance_uids))
    )
    with database.read() as session:
        return {row.study_instance_uid: row.patient_id for row in session.execute(query)}
