"""What goes where: one row per object and destination, and how the destinations stand."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.models.base import Base

if TYPE_CHECKING:
    from storage.models.judged import ResultObject
    from storage.models.received import Instance, StudyRevision


class DeliveryState(StrEnum):
    """Where the delivery of one object to one destination stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Base):
    """One object on its way to one destination: a result object, or an instance as it was received."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        UniqueConstraint("instance_id", "destination"),
        CheckConstraint("(result_id IS NULL) <> (instance_id IS NULL)", name="one_object"),
        Index("ix_delivery_destination_state", "destination", "state"),
        Index("ix_delivery_revision", "revision_id"),
        Index(
            "ix_delivery_due",
            "destination",
            "next_attempt_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_delivery_pending",
            "destination",
            "priority",
            "id",
            "next_attempt_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"))
    """The study revision it was decided in."""
    result_id: Mapped[int | None] = mapped_column(ForeignKey("result_object.id"))
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instance.id"))
    object_digest: Mapped[str] = mapped_column(String(64))
    """The bytes to be sent. Where an instance was replaced since, they are the newer ones."""
    destination: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger)
    """0 (STAT) goes before 1 (high), 2 (routine) and 3 (low)."""
    rules: Mapped[str] = mapped_column(Text, default="")
    """Names of the rules that sent it here; empty where the destination's own ``receives`` did."""
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING)
    round: Mapped[int] = mapped_column(default=1)
    """Rises with every replay and every newer version of an instance: each round has its own attempts."""
    attempts: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(Text, default="")
    """The last C-STORE status or error."""
    sent_as: Mapped[str] = mapped_column(Text, default="")
    """How it was changed for this destination, such as ``decompressed``; empty where it was sent as it is."""
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime]
    first_attempt_at: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]

    revision: Mapped["StudyRevision"] = relationship()
    result: Mapped["ResultObject | None"] = relationship(back_populates="deliveries")
    instance: Mapped["Instance | None"] = relationship()


class DestinationState(Base):
    """What the node remembers of a destination between attempts: whether it is paused, and its last outcomes.

    Every destination that has a delivery has a row.
    """

    __tablename__ = "destination_state"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    turn: Mapped[int] = mapped_column(default=0)
    """Number of the next delivery run at this destination; each number is run to its end once."""
    paused_at: Mapped[datetime | None]
    paused_reason: Mapped[str] = mapped_column(Text, default="")
    sending_since: Mapped[datetime | None]
    """A run is sending; NULL once a paused destination has drained."""
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    last_failure: Mapped[str] = mapped_column(Text, default="")
