"""Where every vendor hides the b-value, and which diffusion images are not acquired."""

import struct
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from pydicom.dataset import Dataset

from ai.volumes.diffusion import adc_evidence, calculated_evidence, other_map_evidence, read_b_value
from ai.volumes.header import Header
from ai.volumes.stacks import build_stacks
from ai.volumes.types import Acquisition, BValue


def _b(dataset: Dataset) -> tuple[float, str] | None:
    found = read_b_value(Header((dataset,)))
    return (found.s_per_mm2, found.source) if found else None


def _vendor(manufacturer: str, *elements: tuple[int, str, Any], **attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.Manufacturer = manufacturer
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    for tag, vr, value in elements:
        dataset.add_new(tag, vr, value)
    return dataset


@pytest.mark.parametrize(
    ("dataset", "b_value"),
    [
        (_vendor("SIEMENS", (0x0019100C, "UN", b"800 ")), 800),
        (_vendor("SIEMENS", (0x0019100C, "IS", "50")), 50),
        (_vendor("Siemens Healthineers", (0x00190011, "LO", "SIEMENS MR HEADER"), (0x0019110C, "UN", b"1400")), 1400),
        (_vendor("GE MEDICAL SYSTEMS", (0x00431039, "IS", [1000001400, 8, 0, 0])), 1400),
        (_vendor("GE MEDICAL SYSTEMS", (0x00431039, "UN", b"800\\1073741832\\0\\0 ")), 800),
        (_vendor("Philips Medical Systems", (0x20011003, "FL", 1500.0)), 1500),
        (_vendor("Philips", (0x20011003, "UN", struct.pack("<f", 600.0))), 600),
        (_vendor("UIH", (0x00651009, "FD", 929.75)), 929.75),
        (_vendor("UIH", (0x00651009, "UN", struct.pack("<d", 929.75))), 929.75),
        (_vendor("anyone", DiffusionBValue=700.0), 700),
        (_vendor("anyone", SequenceName="*ep_b1400t"), 1400),
        (_vendor("anyone", SequenceName="ep_b1000#3"), 1000),
        (_vendor("anyone", ScanningSequence="EP", SeriesDescription="DWI b=1000 tra"), 1000),
        (_vendor("anyone", ScanningSequence=["EP", "SE"], SeriesDescription="ax dwi B 1400"), 1400),
    ],
)
def test_each_rung_of_the_ladder(dataset: Dataset, b_value: float) -> None:
    found = _b(dataset)
    assert found is not None
    assert found[0] == b_value


def test_the_standard_element_comes_before_the_private_one() -> None:
    dataset = _vendor("SIEMENS", (0x0019100C, "IS", "50"), DiffusionBValue=55.0, SequenceName="*ep_b1t")
    assert _b(dataset) == (55.0, "Diffusion b-value (0018,9087)")
    del dataset.DiffusionBValue
    assert _b(dataset) == (50.0, "Siemens (0019,100C)")


@pytest.mark.parametrize(
    "dataset",
    [
        _vendor("SIEMENS", SequenceName="*ep_b50_800"),
        _vendor("SIEMENS", SeriesDescription="ep2d_diff_b50_400_800_tra b50 b400"),
        _vendor("SIEMENS", (0x0019100C, "UN", b"\xff\xfe\x00\x01")),
        _vendor("SIEMENS", (0x0019100C, "IS", "-5")),
        _vendor("SIEMENS", DiffusionBValue=float("nan")),
        _vendor("Philips", (0x20011003, "UN", b"\x00")),
        _vendor("TOSHIBA", (0x0019100C, "IS", "800")),
        _vendor("anyone", ScanningSequence="EP", SeriesDescription="DYNDISTCALC_BVAL"),
        _vendor("anyone", ScanningSequence="EP", SeriesDescription="dwi b50 b400"),
        _vendor("anyone", ScanningSequence="SE", SeriesDescription="t2 like b1000"),
    ],
)
def test_what_is_no_b_value_is_none(dataset: Dataset) -> None:
    assert _b(dataset) is None


def _diffusion(**changes: Any) -> Acquisition:
    values = {"scanning_sequence": ("EP",), "image_type": ("DERIVED", "PRIMARY", "OTHER")} | changes
    return Acquisition("MR", **values)


def test_adc_is_told_before_trace() -> None:
    both = _diffusion(image_type=("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND", "ADC"))
    assert adc_evidence(both)


def test_a_description_alone_makes_no_adc_map() -> None:
    assert adc_evidence(Acquisition("MR", series_description="ADC", image_type=("DERIVED", "PRIMARY"))) is None
    assert adc_evidence(_diffusion(series_description="dADC 0_1000"))
    assert adc_evidence(_diffusion(series_description="Apparent Diffusion Coefficient (mm2/s)"))
    assert adc_evidence(_diffusion(series_description="HADCOCK")) is None


def test_exponential_and_fa_maps_are_no_adc() -> None:
    assert adc_evidence(_diffusion(series_description="eADC")) is None
    assert other_map_evidence(_diffusion(series_description="eADC"))
    assert other_map_evidence(_diffusion(image_type=("DERIVED", "PRIMARY", "DIFFUSION", "FA")))


def test_calculated_and_acquired_b_values() -> None:
    assert calculated_evidence(_diffusion(sequence_name="*ep_b50_800"), BValue(1400, "x"))
    assert calculated_evidence(_diffusion(image_type=("DERIVED", "PRIMARY", "DIFFUSION", "CALC_BVALUE")), None)
    assert calculated_evidence(_diffusion(series_description="Synthetic DWI b1500"), BValue(1500, "x"))
    assert calculated_evidence(_diffusion(sequence_name="*ep_b800t"), BValue(800, "x")) is None
    assert calculated_evidence(_diffusion(series_description="resolve b1000"), BValue(1000, "x")) is None


STANDARD = "Diffusion b-value"
VENDORS = {
    "mr_siemens_xa_enhanced": {
        (0.0, STANDARD),
        (1000.0, STANDARD),
        (2000.0, STANDARD),
    },
    "mr_philips/Vanderbilt_2018": {(0.0, STANDARD), (2000.0, STANDARD)},
    "mr_ge_dwi": {(0.0, "GE"), (1000.0, STANDARD)},
    "mr_canon_dwi": {(0.0, STANDARD), (1500.0, STANDARD)},
    "mr_uih_dwi": {(1.25, "UIH"), (929.75, "UIH")},
}


@pytest.mark.real_data
@pytest.mark.parametrize("folder", VENDORS)
def test_real_b_values_of_every_vendor(folder: str, read_folder: Callable) -> None:
    stacks, _ = build_stacks(read_folder(folder).headers)
    found = {
        (round(stack.b_value.s_per_mm2, 2), stack.b_value.source.split(" (")[0]) for stack in stacks if stack.b_value
    }
    assert found == VENDORS[folder]


@pytest.mark.real_data
def test_the_private_rungs_alone_give_the_same_b_values(read_folder: Callable) -> None:
    """Philips and GE state b twice: without the standard element the private one must agree."""
    compared = 0
    for folder in ("mr_philips/Vanderbilt_2018", "mr_ge_dwi"):
        for header in read_folder(folder).headers:
            if "DiffusionBValue" not in header:
                continue
            silent = deepcopy(header)
            del silent.DiffusionBValue
            private = _b(silent)
            assert private is not None
            assert private[0] == header.DiffusionBValue
            assert private[1].startswith(("Philips", "GE"))
            compared += 1
    assert compared > 100


@pytest.mark.real_data
def test_a_zero_b_value_on_a_t1_image_means_nothing(read_folder: Callable) -> None:
    """Philips writes b = 0 on every image."""
    stacks, _ = build_stacks(read_folder("mr_philips/Philips").headers)
    assert stacks
    assert all(stack.b_value is None for stack in stacks)


@pytest.mark.real_data
def test_diffusion_directions_are_volumes_of_their_own(read_folder: Callable) -> None:
    for folder, count, slices in (("mr_canon_dwi", 13, 40), ("mr_ge_dwi", 7, 2), ("mr_philips/Vanderbilt_2018", 3, 40)):
        stacks, _ = build_stacks(read_folder(folder).headers)
        assert [len(stack.slices) for stack in stacks] == [slices] * count
        assert not any(stack.anomalies or stack.duplicates for stack in stacks)
        assert len({stack.volume_id for stack in stacks}) == count
