"""Faults of delivery and planning: what the headers then say, and what assembling the study makes of it."""

from collections import Counter

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.simulation.export import series_datasets
from ai.simulation.faults import FAULTS, GLAND_SHARE_OUTSIDE, MISSING_SLICES, with_fault
from ai.simulation.protocol import SeriesKind
from ai.simulation.study import SimulatedStudy
from ai.volumes.assemble import assemble
from ai.volumes.types import Role, Stack, StackAnomaly


def exported(study: SimulatedStudy, kind: SeriesKind = SeriesKind.T2_AXIAL) -> list[Dataset]:
    return series_datasets(study, study.of(kind))


def axial(study: SimulatedStudy) -> Stack:
    (found,) = [one.stack for one in assemble(exported(study)).stacks if one.role == Role.T2W_AXIAL]
    return found


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_missing_slices_leave_holes(clean_study: SimulatedStudy, severity: int) -> None:
    faulty = with_fault(clean_study, "missing-slices", severity)
    lost = MISSING_SLICES[severity - 1]
    for kind, volumes in ((SeriesKind.T2_AXIAL, 1), (SeriesKind.DWI, 4)):
        whole = len(exported(clean_study, kind))
        count = min(lost, whole // volumes - 3)
        assert len(exported(faulty, kind)) == whole - volumes * count


def test_a_missing_slice_is_found_by_its_hole(clean_study: SimulatedStudy) -> None:
    stack = axial(with_fault(clean_study, "missing-slices", 1))
    assert StackAnomaly.MISSING_SLICE in stack.anomalies
    assert len(stack.missing_slice_indices) == 1
    assert stack.geometry is not None
    assert stack.geometry.shape == clean_study.of(SeriesKind.T2_AXIAL).geometry.shape


def test_swapped_slices_carry_each_others_images(clean_study: SimulatedStudy) -> None:
    before, after = exported(clean_study), exported(with_fault(clean_study, "swapped-slices", 2))
    assert [one.ImagePositionPatient for one in after] == [one.ImagePositionPatient for one in before]
    moved = [
        index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old.PixelData != new.PixelData
    ]
    assert len(moved) == 4
    assert Counter(one.PixelData for one in before) == Counter(one.PixelData for one in after)


def test_duplicated_slices_are_instances_of_their_own(clean_study: SimulatedStudy) -> None:
    faulty = with_fault(clean_study, "duplicated-slices", 3)
    datasets = exported(faulty)
    assert len(datasets) == len(exported(clean_study)) + 3
    assert len({one.SOPInstanceUID for one in datasets}) == len(datasets)
    assert len({one.InstanceNumber for one in datasets}) == len(datasets)
    stack = axial(faulty)
    assert StackAnomaly.DUPLICATE_POSITION in stack.anomalies
    assert len(stack.duplicates) == 3


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_wrong_b_values_are_the_right_ones_on_other_images(clean_study: SimulatedStudy, severity: int) -> None:
    faulty = with_fault(clean_study, "wrong-b-values", severity)
    before, after = exported(clean_study, SeriesKind.DWI), exported(faulty, SeriesKind.DWI)
    assert [one.PixelData for one in after] == [one.PixelData for one in before]
    wrong = {
        one.DiffusionBValue
        for one, old in zip(after, before, strict=True)
        if one.DiffusionBValue != old.DiffusionBValue
    }
    assert len(wrong) == (4 if severity == 5 else 2)
    assert sorted(one.DiffusionBValue for one in after) == sorted(one.DiffusionBValue for one in before)
    assert all(one.SequenceName == f"*ep_b{one.DiffusionBValue:.0f}t" for one in after)
    np.testing.assert_array_equal(faulty.of(SeriesKind.ADC).pixels, clean_study.of(SeriesKind.ADC).pixels)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_truncated_view_leaves_the_stated_share_of_the_gland_out(clean_study: SimulatedStudy, severity: int) -> None:
    faulty = with_fault(clean_study, "truncated-view", severity)
    outside = 1 - faulty.truth.gland.sum() / clean_study.truth.gland.sum()
    assert outside == pytest.approx(GLAND_SHARE_OUTSIDE[severity - 1], abs=0.03)
    for kind in (SeriesKind.T2_AXIAL, SeriesKind.DWI, SeriesKind.ADC):
        before, after = clean_study.of(kind), faulty.of(kind)
        cut = before.pixels.shape[3] - after.pixels.shape[3]
        assert after.geometry.shape == after.pixels.shape[1:]
        same_voxel = before.geometry.to_lps_mm(np.array([[2.0, 5.0, 7.0 + cut]]))
        np.testing.assert_allclose(after.geometry.to_lps_mm(np.array([[2.0, 5.0, 7.0]])), same_voxel)
        np.testing.assert_array_equal(after.pixels, before.pixels[..., cut:])
    dataset = exported(faulty)[0]
    share = dataset.Columns / clean_study.of(SeriesKind.T2_AXIAL).pixels.shape[3]
    assert float(dataset.PercentPhaseFieldOfView) == pytest.approx(100 * share)
    assert dataset.AcquisitionMatrix[2] == round(96 * share)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_repeatable_named_and_has_its_own_identifiers(clean_study: SimulatedStudy, name: str) -> None:
    first, second = (with_fault(clean_study, name, 3) for _ in range(2))
    kind = SeriesKind.DWI
    assert [one.to_json() for one in exported(first, kind)] == [one.to_json() for one in exported(second, kind)]
    assert (first.artifact, first.severity) == (name, 3)
    assert exported(first)[0].StudyInstanceUID != exported(clean_study)[0].StudyInstanceUID
    untouched = with_fault(clean_study, name, 3, series=[])
    assert [one.PixelData for one in exported(untouched, kind)] == [
        one.PixelData for one in exported(clean_study, kind)
    ]


def test_refusals(clean_study: SimulatedStudy) -> None:
    with pytest.raises(ValueError, match="unknown fault 'rust'"):
        with_fault(clean_study, "rust", 1)
    for severity in (0, 6):
        with pytest.raises(ValueError, match=r"whole number 1\.\.5"):
            with_fault(clean_study, "missing-slices", severity)
    with pytest.raises(ValueError, match="does not happen in t2-axial"):
        with_fault(clean_study, "wrong-b-values", 1, series=[SeriesKind.T2_AXIAL])
