"""Associations and peers: who is connected, and what a crash left open."""

from sqlalchemy import select

from storage.associations import close_association, close_stale, open_association, sender_of
from storage.database import Database
from storage.models import Association, JournalEntry, Peer


def _open(database: Database) -> list[str]:
    with database.read() as session:
        query = select(Association.calling_ae_title).where(Association.released_at.is_(None))
        return sorted(session.scalars(query))


def test_an_association_is_open_until_closed(database: Database) -> None:
    first = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    open_association(database, "receiver-0", "CT1", "10.0.0.2")
    assert _open(database) == ["CT1", "MR1"]
    close_association(database, first)
    assert _open(database) == ["CT1"]
    with database.read() as session:
        released = session.get_one(Association, first).released_at
    close_association(database, first)
    with database.read() as session:
        assert session.get_one(Association, first).released_at == released


def test_a_restarted_receiver_closes_its_own_leftovers_only(database: Database) -> None:
    open_association(database, "receiver-0", "MR1", "10.0.0.1")
    open_association(database, "receiver-1", "CT1", "10.0.0.2")
    assert close_stale(database, "receiver-0") == 1
    assert _open(database) == ["CT1"]
    assert close_stale(database, "receiver-0") == 0
    with database.read() as session:
        assert list(session.scalars(select(JournalEntry.event))) == ["associations-closed"]


def test_a_peer_is_noted_once_and_its_last_visit_kept(database: Database) -> None:
    for _ in range(2):
        open_association(database, "receiver-0", "MR1\x00", "10.0.0.1")
    open_association(database, "receiver-0", "MR1", "10.0.0.9")
    with database.read() as session:
        peers = session.scalars(select(Peer).order_by(Peer.address)).all()
    assert [(peer.ae_title, peer.address) for peer in peers] == [("MR1", "10.0.0.1"), ("MR1", "10.0.0.9")]
    assert peers[0].last_seen_at > peers[0].first_seen_at


def test_the_sender_of_an_association_is_remembered(database: Database) -> None:
    association = open_association(database, "receiver-0", "MR1", "10.0.0.1")
    assert sender_of(database, association) == ("MR1", "10.0.0.1")
    assert sender_of(database, association + 1) == sender_of(database, None) == ("", "")
