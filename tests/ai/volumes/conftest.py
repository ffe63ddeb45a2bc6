"""Reading folders of real DICOM files for the tests of volumes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from ai.volumes.load import DicomFileSource


@dataclass(frozen=True)
class Folder:
    """The headers of a folder's DICOM files, in path order, and where they are."""

    headers: list[Dataset]
    paths: dict[str, Path]

    @property
    def source(self) -> DicomFileSource:
        return DicomFileSource(self.paths)


@pytest.fixture(scope="session")
def read_folder(shared_data: Path) -> Callable[[str], Folder]:
    """Reads a folder below the real data once per session."""
    known: dict[str, Folder] = {}

    def read(name: str) -> Folder:
        if name not in known:
            headers, paths = [], {}
            for path in sorted((shared_data / name).rglob("*")):
                if not path.is_file() or path.name == "SOURCE.md":
                    continue
                try:
                    header = pydicom.dcmread(path, stop_before_pixels=True)
                except InvalidDicomError:
                    continue
                headers.append(header)
                paths.setdefault(header.get("SOPInstanceUID", ""), path)
            known[name] = Folder(headers, paths)
        return known[name]

    return read
