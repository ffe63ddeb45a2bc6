"""Our C-STORE SCU against DCMTK's storescp as the PACS: what arrives, and how each way to fail reads."""

import os
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from pynetdicom.dsutils import split_dataset

from node.dimse.contexts import STORAGE_SOP_CLASSES
from node.dimse.storage_scu import (
    MAXIMUM_ASSOCIATIONS_OF_BATCH,
    MAXIMUM_CONTEXTS,
    DestinationUnavailable,
    SendOptions,
    echo,
    send,
)
from node.dimse.transcode import Transcoder, TranscodingFailed
from node.settings import Destination
from tests.fixtures.dcmtk import Pacs, free_port, storescp
from tests.fixtures.instances import sized_mr

pytestmark = pytest.mark.peers


def destination(pacs: Pacs) -> Destination:
    return Destination(name="pacs", ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.port)


def data_set_bytes(path: Path) -> bytes:
    """What follows the file meta information."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def written(folder: Path, sop_class_uid: str | None = None, syntax: str = ExplicitVRLittleEndian) -> Path:
    """A new MR instance in a file; its class may be a pretended one."""
    instance = sized_mr(generate_uid())
    instance.SOPClassUID = sop_class_uid or instance.SOPClassUID
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax in (RLELossless, JPEGLSLossless):
        instance.compress(syntax, generate_instance_uid=False)
    elif syntax == MPEG4HP41:
        instance.PixelData = encapsulate([bytes(64)])
        instance["PixelData"].is_undefined_length = True
    instance.file_meta.TransferSyntaxUID = syntax
    path = folder / f"{instance.SOPInstanceUID}.dcm"
    instance.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.real_data
def test_files_arrive_bit_for_bit(tmp_path: Path, shared_data: Path) -> None:
    objects = sorted(p for p in (shared_data / "derived_objects").glob("*.dcm"))
    images = sorted((shared_data / "prostate_prostatex_skyra" / "ProstateX-0000").rglob("*.dcm"))[:20]
    sent = objects + images
    with storescp(tmp_path / "pacs") as pacs:
        outcomes = list(send(destination(pacs), sent, "PACSGATE"))
        arrived = {dcmread(path).SOPInstanceUID: data_set_bytes(path) for path in pacs.files()}
    assert [outcome.path for outcome in outcomes] == sent
    assert all(outcome.delivered and outcome.status == 0 and not outcome.error for outcome in outcomes)
    for outcome in {outcome.sop_instance_uid: outcome for outcome in outcomes}.values():
        # Pixel data of odd length, as one of the files has, is padded as it should have been (PS3.5 8.1.1).
        original = data_set_bytes(outcome.path)
        assert arrived[outcome.sop_instance_uid] == original or len(original) % 2 == 1


def test_echo(tmp_path: Path) -> None:
    with storescp(tmp_path / "pacs") as pacs:
        echo(destination(pacs), "PACSGATE")
    with pytest.raises(DestinationUnavailable, match=r"cannot connect to pacs .*: Connection refused"):
        echo(destination(pacs), "PACSGATE")


def test_an_unreachable_destination_is_the_outcome_of_each_file(tmp_path: Path) -> None:
    files = [written(tmp_path) for _ in range(3)]
    nobody = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port())
    for outcome in send(nobody, files, "PACSGATE"):
        assert not outcome.delivered
        assert outcome.unavailable
        assert not outcome.final
        assert outcome.status is None
        assert outcome.error == f"cannot connect to pacs (PACS at 127.0.0.1:{nobody.port}): Connection refused"
    unknown = Destination(name="pacs", ae_title="PACS", host="no-such-host.invalid", port=104)
    assert all("host name cannot be resolved" in outcome.error for outcome in send(unknown, files, "PACSGATE"))


def send_one(pacs: Pacs, path: Path) -> str:
    (outcome,) = send(destination(pacs), [path], "PACSGATE")
    return outcome.error


def test_a_rejected_association_says_why(tmp_path: Path) -> None:
    with storescp(tmp_path / "pacs", "--refuse") as pacs:
        # storescp closes right after its rejection, and a reset may overtake it: it is asked until it was heard.
        errors = [send_one(pacs, written(tmp_path)) for _ in range(5)]
    assert any("rejected the association (Rejected Permanent)" in error for error in errors), errors
    assert "we call as 'PACSGATE'" in " ".join(errors)


def test_an_uncompressed_data_set_is_re_encoded_where_it_must_be(tmp_path: Path) -> None:
    path = written(tmp_path)
    with storescp(tmp_path / "pacs", "--implicit") as pacs:
        (outcome,) = send(destination(pacs), [path], "PACSGATE")
        (arrived,) = pacs.files()
    assert outcome.delivered
    received = dcmread(arrived)
    assert received.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert received == dcmread(path)


@pytest.mark.parametrize("options", [("--implicit",), ()], ids=["implicit", "uncompressed"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_a_compressed_object_is_decompressed_where_it_must_be(
    tmp_path: Path, syntax: str, options: tuple[str, ...]
) -> None:
    """Same object, same pixels, same elements; its neighbour is not touched by that."""
    compressed, plain = written(tmp_path, syntax=syntax), written(tmp_path)
    with storescp(tmp_path / "pacs", *(options or ("--prefer-uncompr",))) as pacs:
        decompressed, delivered = send(destination(pacs), [compressed, plain], "PACSGATE")
        arrived = {dcmread(path).SOPInstanceUID: dcmread(path) for path in pacs.files()}
    assert (decompressed.delivered, decompressed.sent_as) == (True, "decompressed")
    assert (delivered.delivered, delivered.sent_as) == (True, "re-encoded" if options else "")
    original, received = dcmread(compressed), arrived[decompressed.sop_instance_uid]
    assert received.file_meta.TransferSyntaxUID in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    assert np.array_equal(received.pixel_array, original.pixel_array)
    del original.PixelData, received.PixelData
    assert received == original


def test_what_is_taken_compressed_stays_compressed(tmp_path: Path) -> None:
    compressed = written(tmp_path, syntax=RLELossless)
    with storescp(tmp_path / "pacs") as pacs:
        (outcome,) = send(destination(pacs), [compressed], "PACSGATE")
        (arrived,) = pacs.files()
    assert outcome.sent_as == ""
    assert data_set_bytes(arrived) == data_set_bytes(compressed)


def test_pixels_that_were_compressed_with_loss_keep_saying_so(tmp_path: Path) -> None:
    lossy = tmp_path / "lossy.dcm"
    instance = dcmread(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))
    instance.LossyImageCompression, instance.LossyImageCompressionRatio = "01", 12.5
    instance.LossyImageCompressionMethod = "ISO_10918_1"
    instance.save_as(lossy)
    with storescp(tmp_path / "pacs", "--implicit") as pacs:
        (outcome,) = send(destination(pacs), [lossy], "PACSGATE")
        (arrived,) = pacs.files()
    assert outcome.delivered
    received = dcmread(arrived)
    assert (received.LossyImageCompression, received.LossyImageCompressionRatio) == ("01", 12.5)
    assert (received.LossyImageCompressionMethod, received.PhotometricInterpretation) == ("ISO_10918_1", "RGB")
    assert np.array_equal(received.pixel_array, instance.pixel_array)


@pytest.mark.parametrize("maximum_bytes", [64 * 64 * 2, 64 * 64 * 2 - 1])
def test_decompression_is_bounded(tmp_path: Path, maximum_bytes: int) -> None:
    compressed = written(tmp_path, syntax=RLELossless)
    options = SendOptions(maximum_decompressed_bytes=maximum_bytes, scratch=tmp_path / "scratch")
    with storescp(tmp_path / "pacs", "--implicit") as pacs:
        (outcome,) = send(destination(pacs), [compressed], "PACSGATE", options=options)
    assert outcome.delivered is (maximum_bytes == 64 * 64 * 2)
    assert outcome.final is not outcome.delivered
    assert outcome.delivered or "more than the 8191 allowed" in outcome.error
    assert list((tmp_path / "scratch").iterdir()) == [], "nothing of a patient is left behind"


def test_a_damaged_codestream_costs_its_own_delivery_only(tmp_path: Path) -> None:
    damaged, whole = written(tmp_path, syntax=JPEGLSLossless), written(tmp_path, syntax=JPEGLSLossless)
    instance = dcmread(damaged)
    instance.PixelData = encapsulate([b"\xff\xd8\xff" + bytes(100)])
    instance["PixelData"].is_undefined_length = True
    instance.save_as(damaged)
    with storescp(tmp_path / "pacs", "--implicit") as pacs:
        refused, delivered = send(destination(pacs), [damaged, whole], "PACSGATE")
    assert (refused.delivered, refused.final, delivered.delivered) == (False, True, True)
    assert "cannot be decompressed" in refused.error


def test_a_decoder_that_crashes_or_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever C code does, the process that sends lives, and the next object finds a new decoder."""
    source, target = written(tmp_path, syntax=RLELossless), tmp_path / "target.dcm"
    transcoder = Transcoder(1_000_000, timeout_s=10)
    transcoder.decompress(source, target, ExplicitVRLittleEndian)
    assert transcoder._child is not None
    os.kill(transcoder._child.pid, signal.SIGSEGV)
    with pytest.raises(TranscodingFailed, match=r"crashed on it|ended unexpectedly"):
        transcoder.decompress(source, target, ExplicitVRLittleEndian)
    transcoder.decompress(source, target, ExplicitVRLittleEndian)
    os.kill(transcoder._child.pid, signal.SIGSTOP)
    transcoder._timeout_s = 0.3
    with pytest.raises(TranscodingFailed, match=r"longer than 0\.3 s"):
        transcoder.decompress(source, target, ExplicitVRLittleEndian)
    transcoder._timeout_s = 10
    transcoder.decompress(source, target, ExplicitVRLittleEndian)
    transcoder.end()


def test_what_cannot_be_decompressed_is_refused_by_name(tmp_path: Path) -> None:
    """Video: its neighbour is delivered all the same."""
    film, plain = written(tmp_path, syntax=MPEG4HP41), written(tmp_path)
    with storescp(tmp_path / "pacs", "--implicit") as pacs:
        refused, delivered = send(destination(pacs), [film, plain], "PACSGATE")
    assert (refused.delivered, refused.final) == (False, True)
    assert f"refuses SOP class {dcmread(film).SOPClassUID} in {MPEG4HP41}" in refused.error
    assert delivered.delivered


def test_a_pacs_that_accepts_nothing_of_it_refuses_for_good(tmp_path: Path) -> None:
    """Not the same as a PACS that is away: trying again cannot help."""
    profile = tmp_path / "only-ct.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Uncompressed]\nTransferSyntax1 = LocalEndianExplicit\n"
        "TransferSyntax2 = LittleEndianImplicit\n"
        "[[PresentationContexts]]\n[CT]\nPresentationContext1 = CTImageStorage\\Uncompressed\n"
        "[[Profiles]]\n[OnlyCT]\nPresentationContexts = CT\n"
    )
    ct = written(tmp_path, sop_class_uid=CTImageStorage)
    with storescp(tmp_path / "pacs", "--config-file", str(profile), "OnlyCT") as pacs:
        (alone,) = send(destination(pacs), [written(tmp_path)], "PACSGATE")
        beside, delivered = send(destination(pacs), [written(tmp_path), ct], "PACSGATE")
    for outcome in (alone, beside):
        assert (outcome.delivered, outcome.final, outcome.unavailable) == (False, True, False)
        assert "the destination refuses SOP class" in outcome.error
    assert delivered.delivered


def test_more_contexts_than_an_association_holds(tmp_path: Path) -> None:
    classes = list(STORAGE_SOP_CLASSES)[:MAXIMUM_CONTEXTS]
    files = [written(tmp_path, sop_class_uid) for sop_class_uid in classes]
    with storescp(tmp_path / "pacs", "--accept-all", "--promiscuous") as pacs:
        outcomes = list(send(destination(pacs), files, "PACSGATE"))
        assert len(pacs.files()) == len(files)
    assert all(outcome.delivered for outcome in outcomes)


def test_a_file_that_is_no_dicom_does_not_stop_the_others(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not DICOM")
    good = written(tmp_path)
    with storescp(tmp_path / "pacs") as pacs:
        bad, missing, delivered = send(destination(pacs), [text, tmp_path / "absent.dcm", good], "PACSGATE")
    assert "not a DICOM Part 10 file" in bad.error
    assert not missing.delivered
    assert delivered.delivered


def test_a_destination_that_ends_every_association_is_given_up(tmp_path: Path) -> None:
    files = [written(tmp_path) for _ in range(2 * MAXIMUM_ASSOCIATIONS_OF_BATCH)]
    with storescp(tmp_path / "pacs", "--accept-all", "--abort-after") as pacs:
        outcomes = list(send(destination(pacs), files, "PACSGATE"))
    assert [outcome.path for outcome in outcomes] == files
    assert not any(outcome.delivered for outcome in outcomes)
    assert sum("no answer" in outcome.error for outcome in outcomes) == MAXIMUM_ASSOCIATIONS_OF_BATCH
    assert "associations before this object" in outcomes[-1].error


def test_a_destination_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []
        threading.Thread(target=lambda: accepted.append(server.accept()[0]), daemon=True).start()
        silent = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=server.getsockname()[1])
        (outcome,) = send(silent, [written(tmp_path)], "PACSGATE", timeout_s=1)
    assert "did not answer the association request" in outcome.error
