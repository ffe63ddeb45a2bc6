"""Storage commitment (PS3.4 J): what peers ask of us, and what we ask of destinations."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.models.base import Base


class CommitmentState(StrEnum):
    """Where a storage commitment stands, ours to a peer or a destination's to us."""

    PENDING = "pending"
    REQUESTED = "requested"
    """Only of our own requests: the destination has taken it and will report."""
    DONE = "done"
    FAILED = "failed"


class CommitmentRequest(Base):
    """A storage commitment request of a peer (PS3.4 J.3.2), and how far the report on it has come."""

    __tablename__ = "commitment_request"
    __table_args__ = (Index("ix_commitment_request_state", "state", "next_attempt_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64), index=True)
    calling_ae_title: Mapped[str] = mapped_column(Text)
    peer_address: Mapped[str] = mapped_column(Text)
    duplicate: Mapped[bool] = mapped_column(default=False)
    """The peer has used this Transaction UID before for other instances: every item fails with 0131H."""
    requested_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16), default=CommitmentState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(Text, default="")
    """The last outcome of reporting, in words."""
    reported_at: Mapped[datetime | None]

    items: Mapped[list["CommitmentItem"]] = relationship(order_by="CommitmentItem.id", cascade="all, delete-orphan")


class CommitmentItem(Base):
    """An instance named in a storage commitment request, and the outcome of looking for it."""

    __tablename__ = "commitment_item"
    __table_args__ = (UniqueConstraint("request_id", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("commitment_request.id"))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    failure_reason: Mapped[int | None]
    """Failure Reason (0008,1197); NULL where the instance is safe or not looked at yet."""


class DeliveryCommitment(Base):
    """Our request that a destination commit itself to an object we delivered (PS3.4 J as SCU)."""

    __tablename__ = "delivery_commitment"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "destination"),
        Index("ix_delivery_commitment_state", "state", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    destination: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default=CommitmentState.PENDING)
    transaction_uid: Mapped[str] = mapped_column(String(64), default="", index=True)
    """Of the last request; each request has its own."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    """When to ask (again), or, of a requested one, when to stop waiting for the report."""
    status: Mapped[str] = mapped_column(Text, default="")
    delivered_at: Mapped[datetime]
    committed_at: Mapped[datetime | None]
