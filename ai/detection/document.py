"""The detection result as data: the ``detection`` part of the JSON documents, and bytes to keep between steps."""

import io
import json
from collections.abc import Mapping
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ai.detection.types import Algorithm, Candidate, DetectionResult, DetectionState
from ai.volumes.types import Assembly, Stack

FORMAT = 1


class UnreadableResult(ValueError):
    """Bytes that ``save`` did not write, or that belong to another study."""


def to_document(
    result: DetectionResult, tracking_uids: Mapping[int, str], segment_numbers: Mapping[int, int]
) -> dict[str, object]:
    """The ``detection`` object of ``pacsgate process --json`` and ``pacsgate detect --json``.

    Args:
        result: what the detector found.
        tracking_uids: candidate label -> Tracking UID; candidates missing here have null.
        segment_numbers: candidate label -> Segment Number in the SEG; candidates missing here have null.
    """
    return {
        "state": result.state.value,
        "reason": result.reason,
        "algorithm": {"name": result.algorithm.name, "version": result.algorithm.version},
        "operating_point": result.operating_point,
        "candidates": [
            {
                "tracking_uid": tracking_uids.get(candidate.label),
                "probability": candidate.probability,
                "above_operating_point": candidate.above_operating_point,
                "volume_ml": candidate.volume_ml,
                "centroid_lps_mm": list(candidate.centroid_lps_mm),
                "long_axis_mm": candidate.long_axis_mm,
                "adc_mean_um2_per_s": candidate.adc_mean_um2_per_s,
                "sector": candidate.sector,
                "segment_number": segment_numbers.get(candidate.label),
            }
            for candidate in result.candidates
        ],
    }


def save(result: DetectionResult) -> bytes:
    """A result as bytes: a compressed npz with the masks and a JSON record; the T2 stack is named, not copied."""
    record = {
        "format": FORMAT,
        "state": result.state.value,
        "reason": result.reason,
        "algorithm": {
            "name": result.algorithm.name,
            "version": result.algorithm.version,
            "parameters": result.algorithm.parameters,
        },
        "candidates": [_candidate_record(candidate) for candidate in result.candidates],
        "t2w_volume_id": None if result.t2w is None else result.t2w.volume_id,
        "source_series_uids": result.source_series_uids,
        "operating_point": result.operating_point,
    }
    arrays: dict[str, NDArray[np.uint8]] = {"record": np.frombuffer(json.dumps(record).encode(), np.uint8)}
    if result.labels is not None:
        arrays["labels"] = result.labels
    if result.gland is not None:
        arrays["gland"] = result.gland.astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load(data: bytes, assembly: Assembly) -> DetectionResult:
    """The result that ``save`` wrote.

    Args:
        data: bytes of ``save``.
        assembly: the study the result belongs to; its stack gives the T2 grid back.

    Raises:
        UnreadableResult: the bytes are no saved result, or name a volume this study does not have.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            record = json.loads(archive["record"].tobytes())
            labels, gland = archive.get("labels"), archive.get("gland")
        if record["format"] != FORMAT:
            raise UnreadableResult(f"saved detection result has format {record['format']}, expected {FORMAT}")
        t2w = _stack(record["t2w_volume_id"], assembly)
        result = DetectionResult(
            state=DetectionState(record["state"]),
            reason=record["reason"],
            algorithm=Algorithm(
                record["algorithm"]["name"],
                record["algorithm"]["version"],
                tuple(record["algorithm"]["parameters"]),
            ),
            candidates=tuple(_candidate(entry) for entry in record["candidates"]),
            t2w=t2w,
            labels=labels,
            gland=None if gland is None else gland.astype(bool),
            source_series_uids=tuple(record["source_series_uids"]),
            operating_point=record["operating_point"],
        )
    except (BadZipFile, KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise UnreadableResult(f"not a saved detection result of this study: {error}") from error
    _check_grid(result)
    return result


def _candidate_record(candidate: Candidate) -> dict[str, object]:
    return {**vars(candidate), "centroid_lps_mm": list(candidate.centroid_lps_mm)}


def _candidate(entry: dict[str, object]) -> Candidate:
    x, y, z = (float(value) for value in entry.pop("centroid_lps_mm"))  # type: ignore[attr-defined]
    return Candidate(centroid_lps_mm=(x, y, z), **entry)  # type: ignore[arg-type]


def _stack(volume_id: str | None, assembly: Assembly) -> Stack | None:
    if volume_id is None:
        return None
    for roled in assembly.stacks:
        if roled.stack.volume_id == volume_id:
            return roled.stack
    raise UnreadableResult(f"study {assembly.study_instance_uid} has no volume {volume_id}")


def _check_grid(result: DetectionResult) -> None:
    for array in (result.labels, result.gland):
        geometry = None if result.t2w is None else result.t2w.geometry
        if array is not None and (geometry is None or array.shape != geometry.shape):
            raise UnreadableResult(f"saved masks of shape {array.shape} do not fit the T2 volume of this study")
