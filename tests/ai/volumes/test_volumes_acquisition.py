"""Headers as they come: damaged, silly and from every vendor. Reading never raises and never invents."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from ai.volumes.acquisition import read_acquisition
from ai.volumes.frames import frame_header
from ai.volumes.stacks import build_stacks
from ai.volumes.types import Acquisition

READ_TAGS = [
    0x00080008, 0x00080032, 0x00080060, 0x00080070, 0x0008103E, 0x00180020, 0x00180024, 0x00180050, 0x00180080,
    0x00180081, 0x00180087, 0x00181310, 0x00189087, 0x0019100C, 0x00200013, 0x00200032, 0x00200037, 0x00200100,
    0x00280010, 0x00280008, 0x00280030, 0x52009229, 0x52009230, 0x00431039, 0x20011003, 0x00409096,
]  # fmt: skip
VRS = [None, "UN", "DS", "IS", "FD", "FL", "US", "SS", "UL", "CS", "LO", "SQ", "OB", "UI", "AT", "PN", "TM", "DT"]


@given(st.lists(st.tuples(st.sampled_from(READ_TAGS), st.sampled_from(VRS), st.binary(max_size=40)), max_size=12))
@settings(deadline=None, max_examples=300)
def test_no_bytes_in_any_element_make_reading_raise(elements: list[tuple[int, str | None, bytes]]) -> None:
    dataset = Dataset()
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.Rows, dataset.Columns = "MR", 4, 4
    dataset.Manufacturer = "SIEMENS"
    for tag, vr, value in elements:
        dataset[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    assert isinstance(read_acquisition(dataset), Acquisition)
    found, unreadable = build_stacks([dataset])
    assert len(found) + len(unreadable) >= 1


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "field", "expected"),
    [
        ("EchoTime", "LO", "about 100", "echo_time_ms", None),
        ("EchoTime", "LO", " 101.5 ", "echo_time_ms", 101.5),
        ("EchoTime", "DS", ["90", "180"], "echo_time_ms", 90.0),
        ("EchoTime", "DS", "-1", "echo_time_ms", None),
        ("EchoTime", "FD", float("nan"), "echo_time_ms", None),
        ("EchoTrainLength", "DS", "25.0", "echo_train_length", 25),
        ("EchoTrainLength", "DS", "25.5", "echo_train_length", None),
        ("AcquisitionMatrix", "US", [0, 384, 384, 0], "acquisition_matrix", (0, 384, 384, 0)),
        ("AcquisitionMatrix", "US", [384, 384], "acquisition_matrix", None),
        ("ImageType", "LO", "original\\primary", "image_type", ("ORIGINAL", "PRIMARY")),
        ("InPlanePhaseEncodingDirection", "CS", "COLUMN", "in_plane_phase_encoding_direction", "COL"),
        ("InPlanePhaseEncodingDirection", "CS", "OTHER", "in_plane_phase_encoding_direction", None),
        ("SeriesDescription", "LO", "x" * 5000, "series_description", "x" * 1024),
    ],
)
def test_values_of_the_wrong_kind(keyword: str, vr: str, value: Any, field: str, expected: Any) -> None:
    dataset = Dataset()
    dataset.add_new(keyword, vr, value)
    assert getattr(read_acquisition(dataset), field) == expected


def test_an_empty_header_is_silent() -> None:
    assert read_acquisition(Dataset()) == Acquisition("")


def test_a_frame_s_own_macro_comes_before_the_shared_one_and_the_root() -> None:
    def macro(keyword: str, **attributes: Any) -> Dataset:
        inner = Dataset()
        for name, value in attributes.items():
            setattr(inner, name, value)
        item = Dataset()
        setattr(item, keyword, [inner])
        return item

    dataset = Dataset()
    dataset.EchoPulseSequence, dataset.EchoPlanarPulseSequence, dataset.EchoTime = "SPIN", "YES", 1
    shared = macro("MRTimingAndRelatedParametersSequence", RepetitionTime=3000.0, FlipAngle=90.0)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        macro("MREchoSequence", EffectiveEchoTime=60.0),
        macro("MREchoSequence", EffectiveEchoTime=120.0),
    ]
    first = read_acquisition(dataset)
    assert (first.echo_time_ms, first.repetition_time_ms, first.flip_angle_deg) == (60.0, 3000.0, 90.0)
    assert first.scanning_sequence == ("SE", "EP")
    assert frame_header(dataset, 2).number("EffectiveEchoTime") == 120.0
    assert frame_header(dataset, 3).number("RepetitionTime") == 3000.0


@pytest.mark.real_data
def test_the_skyra_t2_header_is_read_whole(read_folder: Callable) -> None:
    header = next(
        one for one in read_folder("prostate_prostatex_skyra/ProstateX-0000").headers if one.SeriesNumber == 4
    )
    acquisition = read_acquisition(header)
    assert acquisition.manufacturer == "SIEMENS"
    assert acquisition.scanning_sequence == ("SE",)
    assert (acquisition.repetition_time_ms, acquisition.echo_time_ms, acquisition.flip_angle_deg) == (5660, 104, 160)
    assert (acquisition.echo_train_length, acquisition.slice_thickness_mm) == (25, 3)
    assert acquisition.acquisition_matrix == (0, 384, 384, 0)
    assert acquisition.in_plane_phase_encoding_direction == "ROW"
    assert acquisition.magnetic_field_strength_t == 3
    assert acquisition.acquisition_time.startswith("1153")


@pytest.mark.real_data
def test_classic_philips_echo_planar_imaging_is_told_by_its_epi_factor(read_folder: Callable) -> None:
    planar = read_acquisition(read_folder("mr_philips/Vanderbilt_2018").headers[0])
    assert planar.scanning_sequence == ("SE", "EP")
    assert all("EP" not in read_acquisition(one).scanning_sequence for one in read_folder("mr_philips/Philips").headers)
