"""How long a study revision took, from the rows that are there anyway."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.models import Delivery, DeliveryState, Instance, ResultObject, Series, StudyRevision


def last_received_at(session: Session, revision: StudyRevision) -> datetime | None:
    """When the revision's last instance was received; None for one without instances."""
    return session.scalar(
        select(func.max(Instance.received_at))
        .join(Series)
        .where(Series.study_id == revision.study_id, Instance.revision_number <= revision.number)
    )


def is_delivered(session: Session, revision: StudyRevision) -> bool:
    """Whether every result of the revision has reached every destination, in the first round (not by a replay)."""
    others = session.scalar(
        select(func.count())
        .select_from(Delivery)
        .join(ResultObject)
        .where(
            ResultObject.revision_id == revision.id,
            (Delivery.state != DeliveryState.DELIVERED) | (Delivery.round > 1),
        )
    )
    return not others
