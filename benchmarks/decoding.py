"""What decoding compressed frames in a child process costs: the same frames decoded there and in this process.

.venv/bin/python -m benchmarks.decoding [--size 384] [--frames 60]
"""

import argparse
import time

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from ai.volumes.decoding import FrameDecoder


def main() -> None:
    """Print milliseconds per frame, both ways, and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=384, help="rows and columns of the 16-bit frame")
    parser.add_argument("--frames", type=int, default=60, help="how many times each frame is decoded")
    arguments = parser.parse_args()
    decoder = FrameDecoder()
    started = time.perf_counter()
    decoder.decode(*_request(_image(8, RLELossless)))
    print(f"start of the child process and its first frame: {time.perf_counter() - started:.2f} s")
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        image = _image(arguments.size, syntax)
        request = _request(image)
        own, child = [], []
        for _ in range(arguments.frames):
            started = time.perf_counter()
            get_decoder(UID(syntax)).as_array(image, index=0, raw=True)
            between = time.perf_counter()
            decoder.decode(*request)
            own.append(between - started)
            child.append(time.perf_counter() - between)
        here, there = np.median(own) * 1e3, np.median(child) * 1e3
        print(
            f"{UID(syntax).name[:44]:44} {arguments.size} x {arguments.size} x 16 bit: "
            f"here {here:.2f} ms, child {there:.2f} ms, overhead {there - here:+.2f} ms a frame"
        )
    decoder.close()


def _image(size: int, syntax: str) -> Dataset:
    image = Dataset()
    image.Rows = image.Columns = size
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation, image.SamplesPerPixel, image.PhotometricInterpretation = 0, 1, "MONOCHROME2"
    noise = np.random.default_rng(1).normal(600, 30, (size, size)).clip(0, 4095)
    image.PixelData = noise.astype("<u2").tobytes()
    image.SOPInstanceUID = "1.2.3"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.compress(syntax, generate_instance_uid=False)
    return image


def _request(image: Dataset) -> tuple[str, dict[str, object], bytes]:
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    return str(image.file_meta.TransferSyntaxUID), as_pixel_options(image), frame


if __name__ == "__main__":
    main()
