"""The SQL schema, typed. The same on SQLite and PostgreSQL; times are UTC; foreign keys are on.

Attributes that mirror a DICOM keyword keep its spelling in snake_case. Text is Unicode; the original bytes stay in
the object store. Optional DICOM text is stored as an empty string, not NULL, so that unique keys work on both engines.
"""

from storage.models.base import Base, Json, UtcDateTime, utc_now
from storage.models.committed import CommitmentItem, CommitmentRequest, CommitmentState, DeliveryCommitment
from storage.models.completed import (
    PerformedInstance,
    PerformedProcedureStep,
    PerformedStepStudy,
    SeriesEvidence,
    StepStatus,
)
from storage.models.delivered import Delivery, DeliveryState, DestinationState
from storage.models.judged import DetectionCandidate, ResultObject, SeriesAssessmentRow, SeriesVerdict, StudyVerdict
from storage.models.operated import ApiToken, Executor, ExecutorState, JournalEntry, Peer
from storage.models.received import Association, Instance, Patient, RevisionState, Series, Study, StudyRevision

__all__ = [
    "ApiToken",
    "Association",
    "Base",
    "CommitmentItem",
    "CommitmentRequest",
    "CommitmentState",
    "Delivery",
    "DeliveryCommitment",
    "DeliveryState",
    "DestinationState",
    "DetectionCandidate",
    "Executor",
    "ExecutorState",
    "Instance",
    "JournalEntry",
    "Json",
    "Patient",
    "Peer",
    "PerformedInstance",
    "PerformedProcedureStep",
    "PerformedStepStudy",
    "ResultObject",
    "RevisionState",
    "Series",
    "SeriesAssessmentRow",
    "SeriesEvidence",
    "SeriesVerdict",
    "StepStatus",
    "Study",
    "StudyRevision",
    "StudyVerdict",
    "UtcDateTime",
    "utc_now",
]
