"""The conformance statement says what the code does: the committed file is what the generator makes of it today."""

import importlib.util
from pathlib import Path

from node.dimse.contexts import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from node.dimse.storage_scp import StoreStatus

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
