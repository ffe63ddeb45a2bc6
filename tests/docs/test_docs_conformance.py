"""The conformance statement says what the code does: the committed file is what the generator makes of it today."""

import importlib.util
from pathlib import Path

from node.dimse.contexts import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from node.dimse.procedure_step import StepResponse
from node.dimse.rights import RIGHT_OF_SOP_CLASS
from node.dimse.storage_commitment import CommitmentStatus
from node.dimse.storage_scp import StoreStatus
from node.settings import Right, TlsProfile
from node.tls import CIPHERS
from storage.commitment import FailureReason

DOCS = Path(__file__).parents[2] / "docs"


def generator():
    spec = importlib.util.spec_from_file_location("generate_conformance", DOCS / "generate_conformance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_statement_is_current() -> None:
    made = generator().statement()
    committed = (DOCS / "conformance-statement.md").read_text(encoding="utf-8")
    assert committed == made, "run python docs/generate_conformance.py"


def test_every_class_syntax_and_status_is_stated() -> None:
    text = generator().statement()
    for uid in (*STORAGE_SOP_CLASSES, *TRANSFER_SYNTAXES):
        assert f"| {uid} |" in text
    for status in StoreStatus:
        assert f"| 0x{status:04X} |" in text
    assert "{{" not in text


def test_every_status_of_mpps_and_storage_commitment_is_stated_in_its_section() -> None:
    text = generator().statement()
    sections = ("3.5", "3.6")
    procedure_step, commitment = (text.partition(f"### {section}")[2].partition("\n## ")[0] for section in sections)
    procedure_step = procedure_step.partition("### 3.6")[0]
    for status in StepResponse:
        assert f"| 0x{status:04X} |" in procedure_step
    for status in (*CommitmentStatus, *FailureReason):
        assert f"| 0x{status:04X} |" in commitment


def test_every_service_is_under_the_right_that_opens_it() -> None:
    text = generator().statement()
    assert "| `store` | the storage SOP classes of annex A |" in text
    for right, service in (
        (Right.ECHO, "Verification SOP Class"),
        (Right.PROCEDURE_STEP, "Modality Performed Procedure Step SOP Class"),
        (Right.STORAGE_COMMITMENT, "Storage Commitment Push Model SOP Class"),
    ):
        assert f"| `{right}` | {service} |" in text
    for right in set(RIGHT_OF_SOP_CLASS.values()) - {Right.ECHO, Right.PROCEDURE_STEP, Right.STORAGE_COMMITMENT}:
        assert f"| `{right}` |" not in text, "a right that opens something now: say so in section 3.1"
        assert f"`{right}`" in text


def test_every_tls_profile_is_stated_with_its_cipher_suites() -> None:
    lines = generator().statement().splitlines()
    for profile in TlsProfile:
        line = next(line for line in lines if line.startswith(f"| `{profile}` |"))
        assert line.endswith(f"| {', '.join(CIPHERS[profile])} |")
