"""Real folders read once, and headers made for one purpose each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.volumes.stacks import build_stacks
from ai.volumes.types import Stack

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


class Synthetic:
    """Makes MR headers: geometry and physics are arguments, the rest is as small as it may be."""

    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    t2w = {"ScanningSequence": "SE", "EchoTime": 101, "RepetitionTime": 5000}  # noqa: RUF012
    epi = {"ScanningSequence": "EP", "EchoTime": 63, "RepetitionTime": 2700}  # noqa: RUF012
    gre = {"ScanningSequence": "GR", "EchoTime": 1.5, "RepetitionTime": 4, "FlipAngle": 12}  # noqa: RUF012

    def header(
        self, instance: str, position: Sequence[float], orientation: Sequence[float] = axial, **attributes: Any
    ) -> Dataset:
        """One slice; ``attributes`` are DICOM keywords and override."""
        values = {
            "SOPClassUID": MR_IMAGE_STORAGE,
            "SOPInstanceUID": instance,
            "StudyInstanceUID": "1.2",
            "SeriesInstanceUID": "1.2.1",
            "FrameOfReferenceUID": "1.2.9",
            "Modality": "MR",
            "Rows": 64,
            "Columns": 64,
            "PixelSpacing": [2.0, 2.0],
            "SliceThickness": 3,
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "ImagePositionPatient": [float(value) for value in position],
            "ImageOrientationPatient": [float(value) for value in orientation],
        } | attributes
        dataset = Dataset()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return dataset

    def series(
        self,
        count: int = 12,
        orientation: Sequence[float] = axial,
        step_mm: float = 3.0,
        uid: str = "1.2.1",
        **attributes: Any,
    ) -> list[Dataset]:
        """A regular series; SOP Instance UIDs are made of the series UID."""
        normal = np.cross(orientation[:3], orientation[3:])
        return [
            self.header(
                f"{uid}.{number + 1}",
                normal * step_mm * number,
                orientation,
                **({"SeriesInstanceUID": uid, "InstanceNumber": number + 1} | attributes),
            )
            for number in range(count)
        ]

    def stack(self, headers: Sequence[Dataset]) -> Stack:
        """The only stack of these headers."""
        (stack,), unreadable = build_stacks(headers)
        assert not unreadable
        return stack


@pytest.fixture(scope="session")
def synthetic() -> Synthetic:
    return Synthetic()
