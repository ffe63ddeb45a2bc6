"""Both as requestor and as acceptor we go by the implementation's name that is in our files."""

from pathlib import Path

import pydicom
from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from node.dimse.requestor import association_with
from node.dimse.server import Receiver, ReceiverOptions
from node.settings import Destination
from storage.database import Database
from storage.objects import ObjectStore
from storage.spool import part10_prefix


def test_one_implementation_in_associations_and_files(database: Database, tmp_path: Path) -> None:
    (tmp_path / "instance.dcm").write_bytes(part10_prefix("1.2", "1.3", "1.2.840.10008.1.2.1"))
    meta = pydicom.dcmread(tmp_path / "instance.dcm").file_meta
    with Receiver(ReceiverOptions(port=0), database, ObjectStore(tmp_path / "objects"), tmp_path / "spool") as receiver:
        there = Destination(name="gate", ae_title="PACSGATE", host="127.0.0.1", port=receiver.port)
        with association_with(there, [build_context(Verification)], "PACSGATE") as association:
            for side in (association.requestor, association.acceptor):
                assert side.implementation_class_uid == meta.ImplementationClassUID
                assert side.implementation_version_name == meta.ImplementationVersionName
