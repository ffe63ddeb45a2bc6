"""Decoding: every codec that is installed, every broken file, bounded before anything is decoded."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from ai.volumes import load
from ai.volumes.assemble import assemble_studies
from ai.volumes.codestream import encoded_size
from ai.volumes.load import DicomFileSource, decode_frame, load_volume
from ai.volumes.stacks import build_stacks
from ai.volumes.types import PixelsUnavailable, SliceReference


def _image(synthetic: Any, pixels: np.ndarray, **attributes: Any) -> Dataset:
    values = {
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    } | attributes
    dataset = synthetic.header("1.2.3", (0, 0, 0), **values)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


PIXELS = np.arange(12).reshape(3, 4)


def test_rescale_is_applied(synthetic: Any) -> None:
    frame = decode_frame(_image(synthetic, PIXELS, RescaleSlope=2.5, RescaleIntercept=-10), None)
    assert frame.dtype == np.float32
    np.testing.assert_allclose(frame, PIXELS * 2.5 - 10)


def test_each_enhanced_frame_has_its_own_rescale(synthetic: Any) -> None:
    def group(slope: float) -> Dataset:
        transformation, item = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, 1
        item.PixelValueTransformationSequence = [transformation]
        return item

    dataset = _image(synthetic, np.stack([PIXELS, PIXELS]), NumberOfFrames=2)
    dataset.PerFrameFunctionalGroupsSequence = [group(1), group(3)]
    np.testing.assert_allclose(decode_frame(dataset, 1), PIXELS + 1)
    np.testing.assert_allclose(decode_frame(dataset, 2), PIXELS * 3 + 1)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Rows": 0}, "Rows x Columns is 0"),
        ({"Rows": 60000, "Columns": 60000}, "implausible"),
        ({"NumberOfFrames": 16000, "Rows": 4000, "Columns": 4000}, "implausible"),
        ({"NumberOfFrames": 10**9}, "frames claimed"),
        ({"Rows": 4000, "Columns": 4000}, "cannot be decoded"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"RescaleSlope": 0}, "Rescale Slope is 0"),
        ({"RescaleSlope": 1e38}, "implausible"),
        ({"BitsAllocated": 3}, "cannot be decoded"),
        ({"Rows": 6}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_is_said(attributes: dict[str, Any], words: str, synthetic: Any) -> None:
    dataset = _image(synthetic, PIXELS)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    with pytest.raises(PixelsUnavailable, match=words):
        decode_frame(dataset, None)


def test_no_pixels_no_syntax_and_no_frame(synthetic: Any) -> None:
    dataset = _image(synthetic, PIXELS)
    with pytest.raises(PixelsUnavailable):
        decode_frame(dataset, 2)
    dataset.file_meta.TransferSyntaxUID = RLELossless
    with pytest.raises(PixelsUnavailable, match="cannot be decoded"):
        decode_frame(dataset, None)
    del dataset.PixelData
    with pytest.raises(PixelsUnavailable, match="no pixel data"):
        decode_frame(dataset, None)
    del dataset.file_meta.TransferSyntaxUID
    with pytest.raises(PixelsUnavailable, match="transfer syntax"):
        decode_frame(dataset, None)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_an_encoded_image_larger_than_its_header_never_reaches_the_decoder(syntax: str, synthetic: Any) -> None:
    """A small file may claim a huge image in its codestream alone."""
    dataset = _image(synthetic, np.zeros((64, 96)))
    dataset.compress(syntax, generate_instance_uid=False)
    assert decode_frame(dataset, None).shape == (64, 96)
    dataset.Rows, dataset.Columns = 32, 32
    with pytest.raises(PixelsUnavailable, match="encoded image has 64 x 96 pixels, the header says 32 x 32"):
        decode_frame(dataset, None)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51"]))
def test_any_bytes_have_a_size_or_none(frame: bytes, start: bytes) -> None:
    size = encoded_size(start + frame)
    assert size is None or len(size) == 2


@pytest.mark.parametrize(("mebibytes", "refused"), [(1, False), (3, True)])
def test_an_archive_bomb_is_refused(
    mebibytes: int, refused: bool, synthetic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "MAX_INFLATED_BYTES", 2**21)
    dataset = _image(synthetic, np.zeros((512, 1024 * mebibytes)))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "deflated.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 10_000
    if refused:
        with pytest.raises(PixelsUnavailable, match="inflates"):
            load.read_file(path)
    else:
        assert decode_frame(load.read_file(path), None).shape == (512, 1024)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\x08\x00\x05\x00" * 7)
    source = DicomFileSource({"1.1": broken, "1.2": tmp_path / "absent.dcm"})
    for uid in ("1.1", "1.2", "1.3"):
        with pytest.raises(PixelsUnavailable):
            source.frame(SliceReference(uid, "", None, None))


def test_a_volume_beyond_the_limit_is_refused_before_its_pixels_are_asked_for(synthetic: Any) -> None:
    class Untouched:
        def frame(self, reference: SliceReference) -> np.ndarray:
            raise AssertionError("pixels were asked for")

    stack = synthetic.stack(synthetic.series(20, Rows=60000, Columns=60000))
    with pytest.raises(PixelsUnavailable, match="voxels"):
        load_volume(stack, Untouched())


def test_a_frame_of_another_size_than_its_header_said_is_refused(synthetic: Any) -> None:
    class Small:
        def frame(self, reference: SliceReference) -> np.ndarray:
            return np.zeros((2, 2), np.float32)

    with pytest.raises(PixelsUnavailable, match="2 x 2"):
        load_volume(synthetic.stack(synthetic.series(3)), Small())


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["malformed", "fuzz", "charsets", "transfer_syntax/pydicom_data", "derived_objects"])
def test_every_broken_file_is_read_or_refused(folder: str, shared_data: Path) -> None:
    """Headers, stacks, roles and pixels of every file, alone; only the documented refusals occur."""
    loaded = 0
    refusals: list[str] = []
    for path in sorted((shared_data / folder).rglob("*")):
        if not path.is_file() or path.name.endswith((".md", ".nii.gz")):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except (ValueError, OSError, pydicom.errors.BytesLengthException):
            continue  # refused by the parser before it gets here
        stacks, unreadable = build_stacks([header])
        assert all(unreadable.values())
        assert [one.reasons for study in assemble_studies([header]) for one in study.stacks if not one.reasons] == []
        for stack in stacks:
            try:
                volume = load_volume(stack, DicomFileSource({stack.slices[0].sop_instance_uid: path}))
            except PixelsUnavailable as refusal:
                refusals.append(str(refusal))
            else:
                assert volume.pixels.shape[1:] == (stack.rows, stack.columns)
                loaded += 1
    assert loaded > 0
    assert all(refusals)
    assert refusals or folder == "derived_objects"


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["RLE", "big_endian", "jpeg_2k_lossless", "jpeg_ls_lossless"])
def test_lossless_copies_of_an_enhanced_volume_are_equal(name: str, shared_data: Path) -> None:
    """pydicom's emri_small in several transfer syntaxes."""

    def load(path: Path) -> np.ndarray:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        (stack,), _ = build_stacks([header])
        return load_volume(stack, DicomFileSource({header.SOPInstanceUID: path})).pixels

    folder = shared_data / "transfer_syntax/pydicom_data"
    plain = load(folder / "emri_small.dcm")
    assert plain.shape == (10, 64, 64)
    np.testing.assert_array_equal(load(folder / f"emri_small_{name}.dcm"), plain)


@pytest.mark.real_data
def test_enhanced_and_classic_volumes_load_alike(read_folder: Callable) -> None:
    """Philips rescales every slice; both exports must end in the same scanner units."""
    folder = read_folder("mr_philips/Philips")
    stacks, _ = build_stacks(folder.headers)
    enhanced, classic = (
        load_volume(next(stack for stack in stacks if stack.acquisition.series_number == number), folder.source)
        for number in (401, 501)
    )
    assert enhanced.pixels.shape == classic.pixels.shape == (24, 256, 256)
    # Two acquisitions (acceleration 2 and 4) of one phantom: the same signal, not the same noise.
    assert np.corrcoef(enhanced.pixels.ravel(), classic.pixels.ravel())[0, 1] > 0.97


@pytest.mark.real_data
def test_slices_land_where_their_headers_say(read_folder: Callable) -> None:
    folder = read_folder("prostate_prostatex_skyra/ProstateX-0000")
    stack = next(stack for stack in build_stacks(deepcopy(folder.headers))[0] if stack.acquisition.series_number == 4)
    volume = load_volume(stack, folder.source)
    for index, reference in zip(stack.slice_indices, stack.slices, strict=True):
        dataset = pydicom.dcmread(folder.paths[reference.sop_instance_uid])
        np.testing.assert_array_equal(volume.pixels[index], dataset.pixel_array.astype(np.float32))
        np.testing.assert_allclose(
            volume.geometry.to_lps_mm(np.array([[index, 0.0, 0.0]]))[0], dataset.ImagePositionPatient, atol=1e-3
        )
