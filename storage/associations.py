"""Who is connected: associations with senders, as evidence that a study is complete, and the peers seen."""

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.journal import record
from storage.models import Association, Instance, Peer, utc_now
from storage.upsert import get_or_create


def open_association(database: Database, receiver: str, calling_ae_title: str, peer_address: str) -> int:
    """Note an accepted association and its peer.

    Parameters
    ----------
    receiver
        The receiver slot that holds it, the same after a restart; see `close_stale`.
    calling_ae_title, peer_address
        As the peer gave them; NUL is removed, nothing else is trusted or needed.

    Returns
    -------
    int
        The id for `storage.ingest.Reception` and `close_association`.
    """
    ae_title, address = calling_ae_title.replace("\x00", ""), peer_address.replace("\x00", "")
    now = utc_now()
    with database.session() as session:
        _see_peer(session, ae_title, address)
        association = Association(
            receiver=receiver, calling_ae_title=ae_title, peer_address=address, opened_at=now, instances_received=0
        )
        session.add(association)
        session.flush()
        return association.id


def sender_of(database: Database, association_id: int | None) -> tuple[str, str]:
    """AE title and address of the peer of an association, empty where it is not known (any more)."""
    with database.read() as session:
        association = session.get(Association, association_id) if association_id is not None else None
        return (association.calling_ae_title, association.peer_address) if association else ("", "")


def close_association(database: Database, association_id: int) -> None:
    """Note that an association was released, aborted or lost, and what it brought. Once more does no harm."""
    with database.session() as session:
        _close(session, Association.id == association_id)


def close_stale(database: Database, receiver: str) -> int:
    """Close what a crash of ``receiver`` left open, at its start; returns how many.

    No sender is connected to a process that has just started.
    """
    with database.session() as session:
        return close_stale_in(session, receiver, "it started again")


def close_stale_in(session: Session, receiver: str, why: str) -> int:
    """Close the associations that ``receiver`` has open, in the caller's transaction; returns how many."""
    stale = _close(session, Association.receiver == receiver)
    if stale:
        message = f"{stale} association(s) that receiver {receiver} had left open were closed: {why}"
        record(session, "associations-closed", message, receiver=receiver, associations=stale)
    return stale


def _close(session: Session, which: ColumnElement[bool]) -> int:
    """Close the open ones among ``which``, counting their instances only now: a count per instance would cost each."""
    brought = select(func.count(Instance.id)).where(Instance.association_id == Association.id).scalar_subquery()
    closing = (
        update(Association)
        .where(which, Association.released_at.is_(None))
        .values(released_at=utc_now(), instances_received=brought)
        .returning(Association.id)
    )
    return len(session.scalars(closing, execution_options={"synchronize_session": False}).all())


def _see_peer(session: Session, ae_title: str, address: str) -> None:
    now = utc_now()
    key = {"ae_title": ae_title, "address": address}
    peer_id = get_or_create(session, Peer, key, {"first_seen_at": now, "last_seen_at": now})
    session.execute(update(Peer).where(Peer.id == peer_id).values(last_seen_at=now))
