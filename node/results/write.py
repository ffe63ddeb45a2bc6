"""Result objects to files: DICOM Part 10 in Explicit VR Little Endian (PS3.10)."""

from io import BytesIO

from pydicom import Dataset, dcmwrite

from node.results.verbatim import verbatim


def to_bytes(dataset: Dataset) -> bytes:
    """Return the object as a Part 10 file. The same object gives the same bytes."""
    buffer = BytesIO()
    # A patient's identity is copied as the scanner wrote it, even where it is longer than its VR allows.
    with verbatim():
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
