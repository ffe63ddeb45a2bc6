"""The README's picture, from what ``make demo`` sent and got back: ``python docs/picture.py`` (needs the dev extra)."""

from pathlib import Path

import highdicom as hd
import matplotlib as mpl
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

mpl.use("Agg")
from matplotlib import pyplot as plt

DEMO = Path("demo-data")
TARGET = Path("docs/images/result.png")
COLOURS = {"Diagnostic quality": "#5dd39e", "Limited quality": "#f2c14e", "Non-diagnostic quality": "#f25f5c"}


def axial_t2(folder: Path) -> list[Dataset]:
    """The axial T2 slices of a sent study, by position."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.rglob("*tra*/*.dcm"))]
    slices = [ds for ds in slices if ds.SeriesDescription.startswith("t2")]
    return sorted(slices, key=lambda ds: float(ds.ImagePositionPatient[2]))


def returned(study_uid: str) -> list[Dataset]:
    """What the demo's PACS received for a study."""
    objects = [pydicom.dcmread(path) for path in sorted((DEMO / "pacs").iterdir())]
    return [ds for ds in objects if ds.StudyInstanceUID == study_uid]


def study_verdict(objects: list[Dataset]) -> str:
    """The study's verdict as the quality report codes it."""
    report = next(ds for ds in objects if ds.SOPClassUID == Comprehensive3DSRStorage)
    pending = list(report.ContentSequence)
    while pending:
        item = pending.pop(0)
        name = item.get("ConceptNameCodeSequence")
        if name and name[0].CodeMeaning == "Imaging Study Quality":
            return str(item.ConceptCodeSequence[0].CodeMeaning)
        pending.extend(item.get("ContentSequence", []))
    raise LookupError("the quality report has no study verdict")


def lesion_mask(objects: list[Dataset], image: Dataset) -> NDArray[np.bool_] | None:
    """The segmentation's frame on this image, if there is one."""
    for ds in objects:
        if ds.SOPClassUID == SegmentationStorage:
            seg = hd.seg.Segmentation.from_dataset(ds)
            pixels = seg.get_pixels_by_source_instance(
                [image.SOPInstanceUID], combine_segments=True, assert_missing_frames_are_empty=True
            )
            return np.asarray(pixels[0] > 0)
    return None


def panel(axes: plt.Axes, title: str, folder: Path) -> None:
    """One study: its middle slice or the slice through the lesion, the verdict, the segmentation's outline."""
    slices = axial_t2(folder)
    objects = returned(slices[0].StudyInstanceUID)
    masks = [lesion_mask(objects, image) for image in slices]
    areas = [0 if mask is None else int(mask.sum()) for mask in masks]
    index = int(np.argmax(areas)) if any(areas) else len(slices) // 2
    pixels = slices[index].pixel_array
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=np.percentile(pixels, 99.5), interpolation="bilinear")
    mask = masks[index]
    if mask is not None and mask.any():
        axes.contour(mask, levels=[0.5], colors="#f25f5c", linewidths=1.5)
    verdict = study_verdict(objects)
    axes.set_title(f"{title}\n{verdict}", color=COLOURS[verdict], fontsize=12)
    returned_kinds = ", ".join(ds.SeriesDescription.removesuffix(" (research use)") for ds in objects)
    axes.set_xlabel(f"returned: {returned_kinds}", color="white", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def main() -> None:
    """Draw the picture."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 5.4), facecolor="black", layout="constrained")
    panel(left, "Simulated study, clean", DEMO / "sent" / "good")
    panel(right, "The same node, patient moved", DEMO / "sent" / "motion-ruined")
    figure.suptitle("pacsgate: research use only, not for diagnosis", color="#999999", fontsize=10)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=110, facecolor="black")


if __name__ == "__main__":
    main()
