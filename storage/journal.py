"""The journal: what happened to a study, when and why."""

from typing import Any

from sqlalchemy.orm import Session

from storage.models import JournalEntry, utc_now


def record(session: Session, event: str, message: str, study_instance_uid: str = "", **detail: Any) -> None:
    """Add an entry in the caller's transaction, so that it exists exactly when what it tells of does.

    Parameters
    ----------
    event
        A word for programs, at most 64 characters, such as ``revision-opened``.
    message
        A sentence for people. UIDs and figures, never a patient's name.
    study_instance_uid
        The study it happened to; empty for what concerns the node.
    **detail
        Values for programs, JSON-serialisable.
    """
    entry = JournalEntry(
        at=utc_now(), event=event, message=message, study_instance_uid=study_instance_uid, detail=detail
    )
    session.add(entry)
