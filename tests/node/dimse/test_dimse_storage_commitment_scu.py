"""Asking the PACS to commit itself: it reports at once, later on our port, or not at all. The PACS is pynetdicom's."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.presentation import StoragePresentationContexts
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import select

from node.dimse.server import Receiver, ReceiverOptions
from node.settings import load_settings
from node.workflow.commitment import request_commitment_step
from node.workflow.context import NodeContext
from node.workflow.deliver import deliver_step
from storage.delivery_commitment import due_commitments
from storage.destinations import due_runs
from storage.models import Delivery, DeliveryCommitment, utc_now
from tests.fixtures.dcmtk import free_port

pytestmark = pytest.mark.slow


@dataclass
class Pacs:
    """A PACS with the Storage and Storage Commitment services, and what it was asked."""

    when: str
    """``at once`` on the same association, ``later`` or ``refused``; ``never``: at once, that it keeps nothing."""
    port: int = field(default_factory=free_port)
    kept: set[str] = field(default_factory=set)
    asked: list[Dataset] = field(default_factory=list)

    def on_store(self, event: Any) -> int:
        self.kept.add(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def on_n_action(self, event: Any) -> tuple[int, None]:
        if self.when == "refused":
            return 0x0110, None
        information = event.action_information
        self.asked.append(information)
        if self.when in ("at once", "never"):
            threading.Timer(0.3, self.report, (event.assoc, information)).start()
        return 0x0000, None

    def report(self, association: Any, information: Dataset) -> None:
        answer = Dataset()
        answer.TransactionUID = information.TransactionUID
        references = list(information.ReferencedSOPSequence)
        if self.when == "never":
            for reference in references:
                reference.FailureReason = 0x0110
            answer.FailedSOPSequence = references
        else:
            answer.ReferencedSOPSequence = references
        status, _ = association.send_n_event_report(
            answer, 2 if self.when == "never" else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        assert status.Status == 0x0000

    @contextmanager
    def running(self) -> Iterator["Pacs"]:
        ae = AE("PACS")
        ae.supported_contexts = StoragePresentationContexts[:100]
        for uid in (StorageCommitmentPushModel, Comprehensive3DSRStorage, SegmentationStorage):
            ae.add_supported_context(uid, ExplicitVRLittleEndian)
        handlers = [(evt.EVT_C_STORE, self.on_store), (evt.EVT_N_ACTION, self.on_n_action)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()


@pytest.fixture
def data_dir(judged_data_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(judged_data_dir, tmp_path / "data"))


@contextmanager
def node(data_dir: Path, pacs: Pacs) -> Iterator[NodeContext]:
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}
    context = NodeContext(
        load_settings(
            storage={"data_dir": data_dir, "database_url": ""},
            destinations=[destination | {"request_commitment": True}],
            commitment={"report_wait_s": 5 if pacs.when in ("at once", "never") else 0.1},
        )
    )
    try:
        yield context
    finally:
        context.database.dispose()


def deliver_and_ask(context: NodeContext) -> None:
    with context.database.read() as session:
        (run,) = due_runs(session, utc_now())
    deliver_step(context, run.destination, run.turn)
    with context.database.read() as session:
        (commitment,) = due_commitments(session, utc_now())
    request_commitment_step(context, commitment.destination, commitment.attempt)


def rows(context: NodeContext) -> list[DeliveryCommitment]:
    with context.database.read() as session:
        return list(session.scalars(select(DeliveryCommitment)))


def test_a_pacs_that_reports_at_once(data_dir: Path) -> None:
    with Pacs("at once").running() as pacs, node(data_dir, pacs) as context:
        deliver_and_ask(context)
        assert {row.sop_instance_uid for row in rows(context)} == pacs.kept
        assert {row.state for row in rows(context)} == {"done"}
        assert all(row.committed_at for row in rows(context))
    assert len(pacs.asked) == 1


def test_a_pacs_that_reports_later_on_our_port(data_dir: Path) -> None:
    with Pacs("later").running() as pacs, node(data_dir, pacs) as context:
        deliver_and_ask(context)
        assert {row.state for row in rows(context)} == {"requested"}
        with Receiver(ReceiverOptions(port=0), context.database, context.objects, data_dir / "spool") as receiver:
            association = AE("PACS").associate(
                "127.0.0.1",
                receiver.port,
                [build_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)],
                "PACSGATE",
                ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
            )
            pacs.report(association, pacs.asked[0])
            association.release()
        assert {row.state for row in rows(context)} == {"done"}


def test_a_pacs_that_refuses_is_asked_again(data_dir: Path) -> None:
    with Pacs("refused").running() as pacs, node(data_dir, pacs) as context:
        deliver_and_ask(context)
        assert {(row.state, row.attempts) for row in rows(context)} == {("pending", 1)}
        assert all("refused the storage commitment request with status 0x0110" in row.status for row in rows(context))


def test_a_pacs_that_keeps_nothing_is_sent_it_again_only_after_a_wait(data_dir: Path) -> None:
    with Pacs("never").running() as pacs, node(data_dir, pacs) as context:
        deliver_and_ask(context)
        with context.database.read() as session:
            assert due_runs(session, utc_now()) == []
            (run,) = due_runs(session, utc_now() + timedelta(seconds=context.settings.commitment.first_retry_s))
            deliveries = session.scalars(select(Delivery)).all()
            assert {delivery.state for delivery in deliveries} == {"pending"}
            assert {delivery.status for delivery in deliveries} == {"pacs cannot commit itself: failure reason 0110H"}
        assert run.destination == "pacs"
