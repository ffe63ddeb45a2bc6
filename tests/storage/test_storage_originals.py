"""Forwarding received instances: each once to each destination, never back to its sender, newer bytes again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, insert, select, update

from storage.associations import open_association
from storage.database import Database
from storage.deliveries import Attempt, DueObject, Priority, Recipient, RetryPolicy, book, due_at
from storage.ingest import Reception, ingest
from storage.models import Delivery, DeliveryState, Instance, RevisionState, Series, StudyRevision
from storage.objects import ObjectStore
from storage.originals import (
    Endpoint,
    Forwarded,
    count_echoes,
    forward_series,
    mark_revision_routed,
    mark_series_routed,
    revisions_to_route,
    send_instances_again,
    series_of,
    series_to_route,
)
from tests.fixtures.instances import mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLICY = RetryPolicy(first_retry_s=5, backoff_rate=2, max_attempts=4)
ARCHIVE = Endpoint("ARCHIVE", ("10.0.0.9",))


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Index:
    """An index that instances arrive at."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self._folder = folder
        self._objects = ObjectStore(folder / "objects")

    def receive(
        self,
        number: int,
        at: datetime = NOON,
        sender: str = "MR1",
        address: str | None = "10.0.0.1",
        series: str = "1.2.3.4",
        comment: str = "",
    ) -> str:
        uid = f"{series}.{number}"
        path = mr_file(
            self._folder, SOPInstanceUID=uid, SeriesInstanceUID=series, InstanceNumber=number, ImageComments=comment
        )
        association_id = None
        if address is not None:
            association_id = open_association(self.database, "receiver-0", sender, address)
        reception = Reception(sender, address or "", at, association_id)
        return ingest(self.database, self._objects, path, reception).outcome

    def forward(
        self, endpoint: Endpoint = ARCHIVE, at: datetime = NOON, maximum_rounds: int = 5, name: str = "archive"
    ) -> Forwarded:
        """Every series of the study, as at the rules' last word."""
        outcomes = []
        with self.database.session() as session:
            revision_id = session.scalars(select(StudyRevision.id).order_by(StudyRevision.number.desc())).first()
            assert revision_id is not None
            for series_id in series_of(session, revision_id):
                recipient = Recipient(name, Priority.HIGH, "night")
                outcomes.append(
                    forward_series(session, series_id, revision_id, recipient, endpoint, maximum_rounds, at)
                )
        return Forwarded(
            *(sum(column) for column in zip(*((o.new, o.newer, o.looping) for o in outcomes), strict=True))
        )

    def due(self, at: datetime, destination: str = "archive") -> list[DueObject]:
        with self.database.read() as session:
            return due_at(session, destination, at, 5000)

    def deliver(self, at: datetime) -> None:
        with self.database.session() as session:
            book(session, dict.fromkeys(due_at(session, "archive", at, 5000), Attempt(True, "0x0000")), POLICY, at)

    def states(self) -> list[tuple[str, str, int]]:
        query = select(Instance.sop_instance_uid, Delivery.state, Delivery.round).join(
            Delivery, Delivery.instance_id == Instance.id
        )
        with self.database.read() as session:
            return [(uid, state, round_) for uid, state, round_ in session.execute(query.order_by(Instance.id))]


@pytest.fixture
def index(database: Database, tmp_path: Path) -> Index:
    return Index(database, tmp_path)


def test_instances_go_in_the_order_of_their_numbers_and_once(index: Index) -> None:
    for number in (3, 1, 2):
        index.receive(number)
    assert index.forward() == Forwarded(3, 0, 0)
    assert index.forward() == Forwarded(0, 0, 0)
    due = index.due(NOON)
    assert [item.sop_instance_uid for item in due] == ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"]
    assert {(item.kind, item.priority, item.revision) for item in due} == {("", Priority.HIGH, 1)}
    with index.database.read() as session:
        digests = set(session.scalars(select(Instance.object_digest)))
        assert set(session.scalars(select(Delivery.rules))) == {"night"}
    assert {item.object_digest for item in due} == digests


def test_late_instances_follow(index: Index) -> None:
    index.receive(1)
    index.forward()
    index.deliver(NOON)
    index.receive(2, after(100))
    index.receive(1, after(100), series="1.2.3.5")
    assert index.forward(at=after(200)) == Forwarded(2, 0, 0)
    assert [item.sop_instance_uid for item in index.due(after(200))] == ["1.2.3.4.2", "1.2.3.5.1"]


@pytest.mark.parametrize(
    ("sender", "address", "endpoint", "echoes"),
    [
        ("ARCHIVE", "10.0.0.9", ARCHIVE, 1),
        ("ARCHIVE", "10.0.0.8", ARCHIVE, 0),
        ("MR1", "10.0.0.9", ARCHIVE, 0),
        ("ARCHIVE", None, ARCHIVE, 1),
        ("ARCHIVE", "10.0.0.8", Endpoint("ARCHIVE", None), 1),
        ("MR1", "10.0.0.8", Endpoint("ARCHIVE", None), 0),
    ],
)
def test_nothing_goes_back_to_its_sender(
    index: Index, sender: str, address: str | None, endpoint: Endpoint, echoes: int
) -> None:
    """Sender: AE title and address. Where one of the addresses is not known, the AE title alone decides."""
    index.receive(1, sender=sender, address=address)
    index.receive(2, sender="CT1", address="10.0.0.2")
    with index.database.read() as session:
        (series_id,) = session.scalars(select(Series.id))
        assert count_echoes(session, series_id, endpoint) == echoes
    assert index.forward(endpoint) == Forwarded(2 - echoes, 0, 0)


def test_newer_bytes_go_again_and_what_is_on_its_way_counts_for_the_older(index: Index) -> None:
    index.receive(1)
    index.receive(2)
    index.forward()
    on_their_way = index.due(NOON)
    index.deliver(NOON)
    assert index.receive(1, after(10), comment="corrected") == "replaced"
    assert index.forward(at=after(20)) == Forwarded(0, 1, 0)
    assert index.states() == [("1.2.3.4.1", "pending", 2), ("1.2.3.4.2", "delivered", 1)]
    with index.database.session() as session:
        assert book(session, {on_their_way[0]: Attempt(True, "0x0000")}, POLICY, after(21)) == []
    (again,) = index.due(after(20))
    assert again.object_digest != on_their_way[0].object_digest


def test_a_loop_between_routers_ends(index: Index) -> None:
    """The archive changes what it gets and passes it on to a third node, which sends it to us."""
    index.receive(1)
    index.forward(maximum_rounds=3)
    for turn in range(1, 6):
        index.deliver(after(turn))
        index.receive(1, after(turn), sender="THIRD", address="10.0.0.3", comment=f"passed {turn} times")
        index.forward(at=after(turn), maximum_rounds=3)
    assert index.states() == [("1.2.3.4.1", "failed", 3)]
    assert index.due(after(100)) == []
    with index.database.read() as session:
        assert "loop suspected" in session.scalars(select(Delivery.status)).one()


def test_the_archive_that_returns_it_changed_does_not_get_it_again(index: Index) -> None:
    index.receive(1)
    index.forward()
    index.deliver(NOON)
    index.receive(1, after(1), sender="ARCHIVE", address="10.0.0.9", comment="coerced")
    assert index.forward(at=after(2)) == Forwarded(0, 0, 0)
    assert index.states() == [("1.2.3.4.1", "delivered", 1)]


def test_a_replay_sends_all_again(index: Index) -> None:
    index.receive(1)
    index.receive(2)
    index.forward()
    index.deliver(NOON)
    with index.database.session() as session:
        series = list(session.scalars(select(Series.id)))
        assert send_instances_again(session, series, ["archive"], after(1)) == 2
        assert send_instances_again(session, series, ["elsewhere"], after(1)) == 0
    assert len(index.due(after(1))) == 2


def test_what_is_to_be_routed(index: Index) -> None:
    """A series once it is closed, again after a late instance; a revision once it is judged or has failed."""
    index.receive(1)

    def waiting() -> tuple[int, int]:
        with index.database.read() as session:
            return len(series_to_route(session)), len(revisions_to_route(session))

    def change(model: type, **values: object) -> None:
        with index.database.session() as session:
            session.execute(update(model).values(**values))

    assert waiting() == (0, 0)
    change(Series, closed_at=after(5))
    assert waiting() == (1, 0)
    with index.database.session() as session:
        (closed,) = series_to_route(session)
        mark_series_routed(session, closed)
    assert waiting() == (0, 0)
    index.receive(2, after(10))
    assert waiting() == (0, 0), "still being received"
    change(Series, closed_at=after(15))
    with index.database.session() as session:
        (closed,) = series_to_route(session)
        session.execute(update(Series).values(last_received_at=after(14)))
        mark_series_routed(session, closed)
    assert waiting() == (1, 0), "one came while the others were being handed on"
    change(StudyRevision, state=RevisionState.CLOSED)
    assert waiting() == (1, 0), "a closed study has no open series, whatever closed it"
    change(StudyRevision, state=RevisionState.FAILED)
    assert waiting() == (0, 1)
    with index.database.session() as session:
        (revision_id,) = revisions_to_route(session)
        assert mark_revision_routed(session, revision_id, after(20))
        assert not mark_revision_routed(session, revision_id, after(20))
    assert waiting() == (0, 0)


def test_a_thousand_instances_are_one_statement(index: Index) -> None:
    """However many there are, what is said to the database stays as short."""
    index.receive(1)
    with index.database.session() as session:
        row = session.execute(select(Instance.__table__)).mappings().one()
        copies = [
            {**row, "id": None, "sop_instance_uid": f"1.2.3.4.{number}", "instance_number": number}
            for number in range(2, 1001)
        ]
        for copy in copies:
            del copy["id"]
        session.execute(insert(Instance.__table__), copies)
    statements: list[str] = []
    event.listen(index.database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert index.forward().new == 1000
    assert len(statements) < 20
    assert [item.sop_instance_uid.rpartition(".")[2] for item in index.due(NOON)] == [str(n) for n in range(1, 1001)]
    with index.database.read() as session:
        assert session.scalars(select(Delivery.state).distinct()).all() == [DeliveryState.PENDING]
