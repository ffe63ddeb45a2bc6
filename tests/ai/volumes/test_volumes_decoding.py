"""Decoding in a child process: the same pixels as in our own, and no decoder takes the worker with it."""

import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1, RLELossless

from ai.quality.assess import assess
from ai.volumes.assemble import assemble
from ai.volumes.decoding import DecoderLimits, FrameDecoder
from ai.volumes.load import DicomFileSource, decode_frame
from ai.volumes.types import PixelsUnavailable, SliceReference

OPTIONS = {
    "rows": 4,
    "columns": 5,
    "samples_per_pixel": 1,
    "bits_allocated": 16,
    "bits_stored": 16,
    "pixel_representation": 0,
    "photometric_interpretation": "MONOCHROME2",
    "number_of_frames": 1,
}
ENCAPSULATED = {
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}


@pytest.fixture(scope="module")
def decoder() -> Iterator[FrameDecoder]:
    decoder = FrameDecoder()
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def hostile() -> Iterator[FrameDecoder]:
    """Its decoder does what the frame says; small limits."""
    decoder = FrameDecoder(DecoderLimits(memory_bytes=256 << 20, deadline_s=2), module="tests.fixtures.hostile_decoder")
    yield decoder
    decoder.close()


def _works(decoder: FrameDecoder) -> bool:
    return bool((decoder.decode("1.2", OPTIONS, b"crash not") == 1).all())


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"crash", "decoder crashed \\(signal 11\\)"),
        (b"exit", "decoder crashed \\(exit code 3\\)"),
        (b"balloon", "more memory than a frame may"),
        (b"lie", r"shape \[3000, 3000\], the header says \[4, 5\]"),
    ],
)
def test_a_decoder_that_misbehaves_costs_its_frame_and_the_next_one_is_decoded(
    frame: bytes, words: str, hostile: FrameDecoder
) -> None:
    assert _works(hostile)
    with pytest.raises(PixelsUnavailable, match=words):
        hostile.decode("1.2", OPTIONS, frame)
    assert _works(hostile)


def test_a_decoder_that_hangs_is_stopped_at_the_deadline(hostile: FrameDecoder) -> None:
    assert _works(hostile)
    started = time.monotonic()
    with pytest.raises(PixelsUnavailable, match="stopped after 2 s"):
        hostile.decode("1.2", OPTIONS, b"hang")
    assert 2 <= time.monotonic() - started < 8
    assert _works(hostile)


def test_the_process_limits_itself(hostile: FrameDecoder) -> None:
    with pytest.raises(PixelsUnavailable) as limits:
        hostile.decode("1.2", OPTIONS, b"limits")
    words = str(limits.value).split()
    assert words[words.index("size") + 1 : words.index("size") + 3] == ["0", "0"]
    assert 256 << 20 < int(words[words.index("space") + 1]) < 8 << 30


def test_one_death_alone_is_not_held_against_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have needed memory for something else."""
    monkeypatch.setenv("DECODER_MARK", str(tmp_path / "crashed"))
    decoder = FrameDecoder(module="tests.fixtures.hostile_decoder")
    try:
        assert (decoder.decode("1.2", OPTIONS, b"crash once") == 1).all()
        assert (tmp_path / "crashed").exists()
    finally:
        decoder.close()


def test_a_decoder_that_leaks_is_replaced_before_a_good_frame_lacks_memory(hostile: FrameDecoder) -> None:
    """Each damaged frame costs 80 of 256 MiB for good."""
    for _ in range(6):
        with pytest.raises(PixelsUnavailable, match="cannot be decoded: damaged"):
            hostile.decode("1.2", OPTIONS, b"leak")
    assert _works(hostile)


def test_a_process_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = FrameDecoder(module="no.such.module")
    with pytest.raises(PixelsUnavailable, match="did not start; exit code 1"):
        decoder.decode("1.2", OPTIONS, b"frame")


def test_a_stop_signal_to_the_whole_group_costs_no_frame(hostile: FrameDecoder) -> None:
    assert _works(hostile)
    assert hostile._child is not None
    pid = hostile._child.process.pid
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert _works(hostile)
    assert hostile._child.process.pid == pid


def test_it_ends_with_the_process_that_started_it() -> None:
    """Also by kill -9, and while its decoder hangs."""
    program = """
import os, sys, threading, time
from ai.volumes.decoding import DecoderLimits, FrameDecoder
decoder = FrameDecoder(DecoderLimits(deadline_s=1), "tests.fixtures.hostile_decoder")
decoder.decode("1.2", {"rows": 1, "columns": 1, "samples_per_pixel": 1}, b"crash not")
print("pid", decoder._child.process.pid, flush=True)
decoder.decode("1.2", {"rows": 1, "columns": 1, "samples_per_pixel": 1}, b"hang")
"""
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    child = next(int(line.split()[1]) for line in worker.stdout if line.startswith("pid "))
    time.sleep(0.3)
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 10
    while _is_running(child):
        assert time.monotonic() < deadline, "the decoder outlives its worker"
        time.sleep(0.1)


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_threads_take_turns(decoder: FrameDecoder, synthetic: Any) -> None:
    images = [_compressed(synthetic, np.full((16, 16), number), RLELossless) for number in range(8)]
    found: dict[int, float] = {}

    def work(number: int) -> None:
        found[number] = float(decode_frame(images[number], None, decoder).mean())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: float(number) for number in range(8)}


def test_a_real_decoder_is_held_to_the_memory_limit(synthetic: Any) -> None:
    """A well-formed JPEG 2000 image needs many times its size."""
    image = _compressed(synthetic, np.zeros((3000, 3000)), JPEG2000Lossless)
    assert len(image.PixelData) < 100_000
    tight, wide = FrameDecoder(DecoderLimits(memory_bytes=24 << 20)), FrameDecoder()
    try:
        with pytest.raises(PixelsUnavailable, match="cannot be decoded"):
            decode_frame(image, None, tight)
        assert decode_frame(image, None, wide).shape == (3000, 3000)
    finally:
        tight.close()
        wide.close()


def test_a_crafted_codestream_kills_a_real_decoder_and_is_refused_before_it(synthetic: Any) -> None:
    """4 x 5 pixels as its header says, in 500 components: written over the heap, the process is aborted."""
    components = 500
    size = struct.pack(">H8IH", 0, 5, 4, 0, 0, 5, 4, 0, 0, components) + b"\x0f\x01\x01" * components
    style = b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01"
    quantisation = b"\xff\x5c\x00\x13\x40" + b"\x48" * 16
    tile = b"\xff\x90\x00\x0a" + bytes(7) + b"\x01\xff\x93" + bytes(20) + b"\xff\xd9"
    frame = b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + style + quantisation + tile
    image = _compressed(synthetic, np.full((32, 32), 7), JPEG2000Lossless)
    decoder = FrameDecoder()
    try:
        with pytest.raises(PixelsUnavailable, match=r"decoder crashed \(signal"):
            decoder.decode(JPEG2000Lossless, OPTIONS, frame)
        assert (decode_frame(image, None, decoder) == 7).all()
    finally:
        decoder.close()
    image.Rows, image.Columns, image.PixelData = 4, 5, encapsulate([frame])
    with pytest.raises(PixelsUnavailable, match="has 500 components, the header says 1"):
        decode_frame(image, None, FrameDecoder(module="no.such.module"))


def test_uncompressed_frames_start_no_process(synthetic: Any) -> None:
    decoder = FrameDecoder(module="no.such.module")
    image = _image(synthetic, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(decode_frame(image, None, decoder), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"BitsAllocated": 128}, "Bits Allocated is 128"),
        ({"Rows": 8192, "Columns": 8192, "NumberOfFrames": 30, "BitsAllocated": 32}, "implausible"),
        ({"NumberOfFrames": 900}, "cannot be 900 frames"),
        ({"Rows": 8000, "Columns": 8000}, "bytes of RLE cannot be 128000000 bytes"),
    ],
)
def test_what_the_encoded_bytes_cannot_hold_never_reaches_a_decoder(
    attributes: dict[str, Any], words: str, synthetic: Any
) -> None:
    image = _compressed(synthetic, np.zeros((32, 32)), RLELossless)
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    with pytest.raises(PixelsUnavailable, match=words):
        decode_frame(image, None, FrameDecoder(module="no.such.module"))


@given(st.binary(max_size=400), st.sampled_from(sorted(ENCAPSULATED)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_decoded_or_refused(decoder: FrameDecoder, frame: bytes, syntax: str) -> None:
    try:
        words = str(decoder.decode(syntax, OPTIONS, frame).shape)
    except PixelsUnavailable as refusal:
        words = str(refusal)
    assert words.startswith(("cannot be decoded: ", "decoded to an array", "(4, 5)"))


def test_a_series_whose_decoder_crashes_is_not_assessed_and_everything_else_goes_on(
    simulated_files: list[Path], tmp_path: Path
) -> None:
    """The T2 series is compressed; its decoder crashes. Diffusion is judged as ever."""
    headers, paths, broken = [], {}, set()
    for number, path in enumerate(simulated_files):
        image = pydicom.dcmread(path)
        if "T2" in str(image.SeriesDescription).upper():
            image.compress(RLELossless, generate_instance_uid=False)
            image.PixelData = encapsulate([b"crash" + bytes(image.Rows * image.Columns)])
            broken.add(str(image.SOPInstanceUID))
        file = tmp_path / f"{number}.dcm"
        image.save_as(file)
        del image.PixelData
        headers.append(image)
        paths[str(image.SOPInstanceUID)] = file
    decoder = FrameDecoder(module="tests.fixtures.hostile_decoder")
    try:
        assessment = assess(assemble(headers), DicomFileSource(paths, decoder))
    finally:
        decoder.close()
    verdicts = {series.role: (series.verdict, series.reason) for series in assessment.series}
    verdict, reason = verdicts["t2w-axial"]
    assert verdict == "not-assessed"
    assert any(reason.startswith(f"pixels unavailable: instance {uid}: ") for uid in broken)
    assert "decoder crashed (signal 11)" in reason
    assert verdicts["dwi"][0] == verdicts["adc"][0] == "diagnostic", verdicts


@pytest.mark.real_data
def test_every_transfer_syntax_decodes_alike_in_the_child_and_here(shared_data: Path, decoder: FrameDecoder) -> None:
    """Every encapsulated file of the collection, colour too."""
    seen = set()
    for syntax, options, frame in _encoded_frames(shared_data / "transfer_syntax"):
        try:
            expected, _ = get_decoder(syntax).as_array(encapsulate([frame]), index=0, raw=True, **options)
        except RuntimeError as refusal:  # 12-bit JPEG, deflated frames: there is no decoder of a permissive licence
            with pytest.raises(PixelsUnavailable, match=re.escape(str(refusal)[:20])):
                decoder.decode(str(syntax), options, frame)
            continue
        found = decoder.decode(str(syntax), options, frame)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        seen.add(str(syntax))
    assert seen == set(ENCAPSULATED), seen ^ set(ENCAPSULATED)


def _encoded_frames(folder: Path) -> Iterator[tuple[UID, dict[str, Any], bytes]]:
    """Up to three frames of every compressed file, and of the two syntaxes that the collection has no file of."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        dataset = pydicom.dcmread(path, force=True)
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_transfer_syntax or not syntax.is_encapsulated or "PixelData" not in dataset:
            continue
        options = as_pixel_options(dataset)
        frames = int(options["number_of_frames"])
        for index in range(min(frames, 3)):
            frame = get_frame(dataset.PixelData, index, number_of_frames=frames)
            yield syntax, options | {"number_of_frames": 1}, frame
            if syntax == JPEGLosslessSV1:  # a special case of process 14
                yield JPEGLossless, options | {"number_of_frames": 1}, frame
    baseline = BytesIO()
    grey = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    Image.fromarray(grey).save(baseline, "JPEG")
    eight_bit = {"rows": 40, "columns": 50, "bits_allocated": 8, "bits_stored": 8}
    yield JPEGBaseline8Bit, OPTIONS | eight_bit, baseline.getvalue()


@pytest.mark.real_data
def test_no_file_of_the_broken_collections_kills_a_decoder_for_good(shared_data: Path, decoder: FrameDecoder) -> None:
    refusals: list[str] = []
    for folder in ("malformed", "fuzz"):
        for path in sorted((shared_data / folder).rglob("*")):
            try:
                dataset = pydicom.dcmread(path, force=True) if path.is_file() else Dataset()
                uid = str(dataset.SOPInstanceUID)
            except (ValueError, OSError, AttributeError, pydicom.errors.BytesLengthException):
                continue
            try:
                DicomFileSource({uid: path}, decoder).frame(SliceReference(uid, "", None, None))
            except PixelsUnavailable as refusal:
                refusals.append(str(refusal))
    assert all(refusals)
    assert len(refusals) > 20
    with pytest.raises(PixelsUnavailable, match="cannot be decoded"):
        decoder.decode("1.2.840.10008.1.2.5", OPTIONS, b"no image")


def _image(synthetic: Any, pixels: np.ndarray) -> Dataset:
    dataset = synthetic.header(
        "1.2.3",
        (0, 0, 0),
        **{"Rows": pixels.shape[0], "Columns": pixels.shape[1], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15},
        **{"PixelRepresentation": 0, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
    )
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return dataset


def _compressed(synthetic: Any, pixels: np.ndarray, syntax: str) -> Dataset:
    dataset = _image(synthetic, pixels)
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset
