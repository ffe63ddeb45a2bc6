"""What was found: assessments, verdicts, lesion candidates, and the result objects that say so."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.models.base import Base

if TYPE_CHECKING:
    from storage.models.delivered import Delivery
    from storage.models.received import Series, StudyRevision


class SeriesAssessmentRow(Base):
    """The quality assessment of one series in one revision. ``document`` holds slices, findings and metrics."""

    __tablename__ = "series_assessment"
    __table_args__ = (UniqueConstraint("revision_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    role: Mapped[str] = mapped_column(String(32))
    b_value: Mapped[float | None]
    verdict: Mapped[str] = mapped_column(String(16))
    score: Mapped[float | None]
    probability_non_diagnostic: Mapped[float | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    document: Mapped[dict[str, Any]]

    revision: Mapped["StudyRevision"] = relationship(back_populates="assessments")


class SeriesVerdict(Base):
    """The verdict on a closed series, reached without waiting for its study."""

    __tablename__ = "series_verdict"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), unique=True)
    closing: Mapped[int]
    """Which of the series' closings it is about."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 over the instances judged; empty where judging failed, so that no study relies on it."""
    pipeline_version: Mapped[str] = mapped_column(Text)
    roles: Mapped[dict[str, Any]]
    """Volume id -> role and reasons as they were without the rest of the study."""
    document: Mapped[dict[str, Any]]
    """The series' part of the JSON contract."""
    decided_at: Mapped[datetime]

    series: Mapped["Series"] = relationship()


class StudyVerdict(Base):
    """The verdict on a study revision, the gate's decision and the detector's state."""

    __tablename__ = "study_verdict"

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"), unique=True)
    verdict: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    gate_open: Mapped[bool]
    gate_reasons: Mapped[list[str]] = mapped_column(default=list)
    detection_state: Mapped[str] = mapped_column(String(16), default="")
    detection_reason: Mapped[str] = mapped_column(Text, default="")
    detection_digest: Mapped[str] = mapped_column(String(64), default="")
    """The detector's saved outcome in the object store; empty where it did not run."""
    document: Mapped[dict[str, Any]]
    decided_at: Mapped[datetime]

    revision: Mapped["StudyRevision"] = relationship(back_populates="verdict")


class DetectionCandidate(Base):
    """A lesion candidate. ``tracking_uid`` joins SR group, SEG segment and this row."""

    __tablename__ = "detection_candidate"
    __table_args__ = (UniqueConstraint("revision_id", "tracking_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"))
    tracking_uid: Mapped[str] = mapped_column(String(64))
    probability: Mapped[float]
    above_operating_point: Mapped[bool]
    volume_ml: Mapped[float]
    centroid_lps_mm: Mapped[list[float]]
    sector: Mapped[str | None] = mapped_column(Text)
    segment_number: Mapped[int | None]

    revision: Mapped["StudyRevision"] = relationship(back_populates="candidates")


class ResultObject(Base):
    """A DICOM object we authored. Its UID derives from study, revision, pipeline version and kind."""

    __tablename__ = "result_object"

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    object_digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    variant_of: Mapped[str] = mapped_column(String(64), default="")
    """SOP Instance UID of the result it stands for where that one's SOP class is refused; empty for a result itself."""

    revision: Mapped["StudyRevision"] = relationship(back_populates="results")
    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="result")
