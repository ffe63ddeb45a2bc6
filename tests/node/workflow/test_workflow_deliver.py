"""The delivery step: what one run at a destination sends, books and leaves, on both databases."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from node.dimse.outgoing import HIGH, LOW, MEDIUM
from node.settings import load_settings
from node.workflow.context import NodeContext
from node.workflow.deliver import deliver_step, delivery_failed
from storage.deliveries import NewResult, Priority, Recipient, save_results
from storage.destinations import all_destinations, pause, resume
from storage.ingest import Reception, ingest
from storage.models import Delivery, JournalEntry, ResultObject, utc_now
from storage.revisions import find_revision
from tests.fixtures.dcmtk import free_port
from tests.fixtures.instances import mr_data_set, mr_file, part10
from tests.fixtures.scripted_pacs import HANG_UP, ScriptedPacs, scripted_pacs

pytestmark = pytest.mark.peers

Row = tuple[Any, ...]


class Node:
    """A node whose only destination is ``port``, with results that wait for it."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._storage = {"data_dir": folder / "data", "database_url": database_url}
        self.context = self._context(1)
        reception = Reception("MR1", "10.0.0.1", utc_now())
        ingest(self.context.database, self.context.objects, mr_file(folder), reception)

    def _context(self, port: int, **delivery: Any) -> NodeContext:
        pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
        options = {"timeout_s": 60, "first_retry_s": 60, "jitter": 0} | delivery
        return NodeContext(load_settings(storage=self._storage, destinations=[pacs], delivery=options))

    def point_to(self, port: int, **delivery: Any) -> None:
        """The PACS is there from now on."""
        self.context.database.dispose()
        self.context = self._context(port, **delivery)

    def add(self, *numbers: int, priority: Priority = Priority.ROUTINE) -> None:
        """Results 1.2.3.9.NUMBER that are due at the PACS."""
        new = []
        for number in numbers:
            data_set = mr_data_set(SOPInstanceUID=f"1.2.3.9.{number}")
            stored = self.context.objects.put(part10(data_set))
            to = (Recipient("pacs", priority),)
            uids = (str(data_set.SOPInstanceUID), str(data_set.SOPClassUID), "1.2.3.4")
            new.append(NewResult("quality-report", *uids, stored.digest, stored.size_bytes, to))
        with self.context.database.session() as session:
            save_results(session, find_revision(session, "1.2.3", 1), new, utc_now())

    def run(self) -> None:
        """One run, as the worker would make it."""
        with self.context.database.read() as session:
            (state,) = all_destinations(session)
        deliver_step(self.context, "pacs", state.turn)

    def rows(self) -> list[Row]:
        query = select(ResultObject.sop_instance_uid, Delivery.state, Delivery.attempts, Delivery.status)
        with self.context.database.read() as session:
            found = session.execute(query.join(Delivery).order_by(ResultObject.id))
            return [(uid.removeprefix("1.2.3.9."), *rest) for uid, *rest in found]

    def events(self) -> list[tuple[str, str]]:
        with self.context.database.read() as session:
            entries = session.scalars(select(JournalEntry).order_by(JournalEntry.id))
            return [(entry.event, entry.message) for entry in entries if entry.event.startswith("deliver")]

    def later(self, seconds: float = 3600) -> None:
        """Time passes: what waits for its next attempt is due."""
        with self.context.database.session() as session:
            session.execute(update(Delivery).values(next_attempt_at=utc_now() - timedelta(seconds=1)))


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Node:
    return Node(tmp_path, database_url)


def numbers(pacs: ScriptedPacs) -> list[str]:
    return [uid.removeprefix("1.2.3.9.") for uid in pacs.received]


def test_everything_due_is_delivered_the_urgent_first(node: Node) -> None:
    with scripted_pacs() as pacs:
        node.point_to(pacs.port, batch_objects=2)
        node.add(1, 2)
        node.add(3, priority=Priority.LOW)
        node.add(4, priority=Priority.STAT)
        node.run()
    assert numbers(pacs) == ["4", "1", "2", "3"]
    assert pacs.priorities == [HIGH, MEDIUM, MEDIUM, LOW]
    assert node.rows() == [(str(n), "delivered", 1, "0x0000") for n in (1, 2, 3, 4)]
    assert node.events()[0] == ("delivered", "quality-report to pacs: 0x0000 (attempt 1, delivered)")
    with node.context.database.read() as session:
        (state,) = all_destinations(session)
    assert (state.turn, state.sending_since) == (1, None)
    assert state.last_success_at is not None


def test_what_becomes_urgent_during_a_run_waits_for_one_batch(node: Node) -> None:
    def answer(request: int) -> int:
        if request == 1:
            node.add(9, priority=Priority.STAT)
        return 0x0000

    with scripted_pacs(answer) as pacs:
        node.point_to(pacs.port, batch_objects=2)
        node.add(1, 2, 3, 4)
        node.run()
    assert numbers(pacs) == ["1", "2", "9", "3", "4"]


def test_a_pacs_that_hangs_up_keeps_what_it_took(node: Node) -> None:
    with scripted_pacs(lambda request: HANG_UP if request > 2 else 0x0000) as pacs:
        node.point_to(pacs.port)
        node.add(1, 2, 3, 4, 5, 6, 7, 8)
        node.run()
    states = [(number, state) for number, state, *_ in node.rows()]
    assert states == [("1", "delivered"), ("2", "delivered"), *((str(n), "pending") for n in range(3, 9))]
    assert "no answer" in node.rows()[2][3]
    with scripted_pacs() as pacs:
        node.point_to(pacs.port)
        node.later()
        node.run()
    assert numbers(pacs) == ["3", "4", "5", "6", "7", "8"], "the first two are not sent again"


def test_a_run_cut_short_loses_no_outcome(node: Node) -> None:
    """The process is at its end in the middle of a batch, here by an error that nobody expected."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(objects, name)

        def verified_path(self, digest: str) -> Path:
            if digest == bad:
                raise RuntimeError("the disk is on fire")
            return objects.verified_path(digest)

    with scripted_pacs() as pacs:
        node.point_to(pacs.port, batch_objects=2)
        node.add(1, 2, 3, 4)
        objects = node.context.objects
        with node.context.database.read() as session:
            bad = session.scalars(select(ResultObject.object_digest).order_by(ResultObject.id)).all()[3]
        node.context.objects = Broken()  # type: ignore[assignment]
        with pytest.raises(RuntimeError):
            node.run()
        assert [state for _, state, *_ in node.rows()] == ["delivered", "delivered", "pending", "pending"]
        node.context.objects = objects
        node.run()  # the same run goes on
    assert numbers(pacs) == ["1", "2", "3", "4"]
    assert {state for _, state, *_ in node.rows()} == {"delivered"}


def test_nobody_there(node: Node) -> None:
    node.point_to(free_port())
    node.add(1, 2, 3)
    node.run()
    assert [(state, attempts) for _, state, attempts, _ in node.rows()] == 3 * [("pending", 1)]
    assert all("Connection refused" in status for *_, status in node.rows())
    assert [event for event, _ in node.events()] == 3 * ["delivery-failed"]
    with node.context.database.read() as session:
        (state,) = all_destinations(session)
    assert "Connection refused" in state.last_failure
    node.run()
    assert [attempts for _, _, attempts, _ in node.rows()] == [1, 1, 1], "not due before its time"


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (0xB000, "delivered", "0xB000 warning: coercion of data elements"),
        (0xB007, "delivered", "0xB007 warning: does not match its SOP class"),
        (0xA700, "pending", "status 0xA700"),
        (0xC000, "pending", "status 0xC000"),
        (0xA900, "failed", "status 0xA900"),
        (0x0122, "failed", "status 0x0122"),
    ],
)
def test_each_answer(node: Node, status: int, state: str, words: str) -> None:
    """Warnings are deliveries that stay visible; what the PACS will never take is given up at once, with the reason."""
    with scripted_pacs(lambda _: status) as pacs:
        node.point_to(pacs.port)
        node.add(1)
        node.run()
    ((_, found, attempts, told),) = node.rows()
    assert (found, attempts) == (state, 1)
    assert words in told


def test_the_last_attempt_is_the_dead_letter(node: Node) -> None:
    with scripted_pacs(lambda _: 0xA700) as pacs:
        node.point_to(pacs.port, max_attempts=2)
        node.add(1)
        for _ in range(3):
            node.run()
            node.later()
    assert node.rows() == [("1", "failed", 2, "status 0xA700")]
    assert len(pacs.received) == 2


def test_a_pause_lets_the_batch_finish_and_loses_nothing(node: Node) -> None:
    def answer(request: int) -> int:
        if request == 1:
            with node.context.database.session() as session:
                pause(session, "pacs", "new disks", utc_now())
        return 0x0000

    with scripted_pacs(answer) as pacs:
        node.point_to(pacs.port, batch_objects=2)
        node.add(1, 2, 3, 4)
        node.run()
        assert numbers(pacs) == ["1", "2"]
        node.run()
        assert numbers(pacs) == ["1", "2"]
        assert [state for _, state, *_ in node.rows()] == ["delivered", "delivered", "pending", "pending"]
        with node.context.database.session() as session:
            assert all_destinations(session)[0].sending_since is None
            resume(session, "pacs", utc_now())
        node.run()
        assert numbers(pacs) == ["1", "2", "3", "4"]


def test_a_damaged_object_is_given_up_and_named(node: Node) -> None:
    with scripted_pacs() as pacs:
        node.point_to(pacs.port)
        node.add(1, 2)
        with node.context.database.read() as session:
            digest = session.scalars(select(ResultObject.object_digest).order_by(ResultObject.id)).first()
        assert digest is not None
        node.context.objects.path(digest).write_bytes(b"damaged")
        node.run()
    (damaged, whole) = node.rows()
    assert damaged[1] == "failed"
    assert "is damaged" in damaged[3]
    assert whole[1] == "delivered"
    assert numbers(pacs) == ["2"]


def test_a_destination_that_is_gone_is_a_dead_letter(node: Node) -> None:
    node.add(1)
    settings = node.context.settings.model_copy(update={"destinations": ()})
    node.context = NodeContext(settings)
    node.run()
    assert node.rows() == [("1", "failed", 1, "the destination is no longer configured")]


def test_a_step_that_failed_is_a_failed_attempt(node: Node) -> None:
    node.add(1, 2)
    delivery_failed(node.context, "pacs", 0, "deliver: the worker was set aside")
    assert [(state, attempts) for _, state, attempts, _ in node.rows()] == 2 * [("pending", 1)]
    with node.context.database.read() as session:
        assert all_destinations(session)[0].turn == 1


def test_two_workers_at_one_run_send_nothing_lost(node: Node) -> None:
    """The job engine runs a turn once; should two hosts come to run it all the same, nothing is lost or stuck."""
    with scripted_pacs() as pacs:
        node.point_to(pacs.port, batch_objects=3)
        node.add(*range(1, 10))
        runs = [threading.Thread(target=deliver_step, args=(node.context, "pacs", 0)) for _ in range(2)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
    assert {state for _, state, *_ in node.rows()} == {"delivered"}
    assert set(numbers(pacs)) == {str(number) for number in range(1, 10)}
