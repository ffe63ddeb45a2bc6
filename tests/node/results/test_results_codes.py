"""The code book: within the limits of the VRs, spelled as the standard's dictionary does, frozen where private."""

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from ai.detection.types import DetectionState
from ai.quality.definitions import DEFINITIONS
from ai.quality.types import Verdict
from node.results import codes

BOOK = [value for value in vars(codes).values() if isinstance(value, Code)]
BOOK += [
    *codes.METRICS.values(),
    *codes.VERDICTS.values(),
    *codes.DETECTION_STATES.values(),
    *codes.PROCEDURES.values(),
]

FROZEN = {
    "NOISE_SIGMA", "NOISE_SIGMA_AIR", "SIGNAL_MEDIAN", "CNR", "EDGE_WIDTH", "GRADIENT_CONC", "PHASE_CORR_RATIO",
    "GHOST_PROMINENCE", "AIR_GHOST_RATIO", "ENTROPY_FOCUS", "BIAS_FIELD_RANGE", "HOT_SPOT_RATIO", "CLIPPED_FRACTION",
    "SIGNAL_DROP", "VALID_FRACTION", "COVERAGE", "MISSING_SLICES", "MISSING_FRACTION", "DUPLICATE_SLICES",
    "STRUCT_TO_NOISE", "P_NON_DIAGNOSTIC", "LAPLACIAN_NOISE", "HAAR_KURTOSIS", "PERCEPTUAL_BLUR", "BLUR_DIFFERENCE",
    "HIGH_FREQ_SHARE", "SPECTRAL_SLOPE", "SPECTRAL_ANISO", "MSCN_SHAPE", "MSCN_VARIANCE", "MSCN_ASYMMETRY",
    "GRADIENT_ENTROPY", "NYQUIST_GHOST", "WRAP_CONTINUITY", "SPIKE_RATIO", "ZIPPER_RATIO", "VOID_FRACTION",
}  # fmt: skip
"""Released private values. A value may join; none may leave."""


@pytest.mark.parametrize("code", BOOK, ids=lambda code: f"{code.scheme_designator}-{code.value}")
def test_codes_fit_their_vr_and_keep_the_dictionarys_spelling(code: Code) -> None:
    assert len(code.value) <= 16
    assert len(code.scheme_designator) <= 16
    assert 0 < len(code.meaning) <= 64
    if code.scheme_designator != codes.PRIVATE_SCHEME:
        spellings = {entry[code.value][0] for entry in concepts[code.scheme_designator].values() if code.value in entry}
        assert not spellings or code.meaning in spellings
        assert spellings or code.value in {"C0034375", "260753009"} or code.scheme_designator == "UCUM"


def test_no_released_private_code_left_the_book() -> None:
    private = {(code.value, code.meaning) for code in BOOK if code.scheme_designator == codes.PRIVATE_SCHEME}
    assert {value for value, _ in private} >= FROZEN
    assert len({value for value, _ in private}) == len({meaning for _, meaning in private}) == len(private)


def test_every_image_metric_has_a_code() -> None:
    assert set(DEFINITIONS) - set(codes.METRICS) == set()


def test_every_verdict_but_not_assessed_and_every_state_has_a_code() -> None:
    assert set(codes.VERDICTS) == set(Verdict) - {Verdict.NOT_ASSESSED}
    assert set(codes.DETECTION_STATES) == set(DetectionState)


def test_units_and_sectors() -> None:
    assert codes.unit("") == codes.NO_UNITS
    assert codes.unit("mm").meaning == "mm"
    assert codes.unit("[arb'U]").scheme_designator == "UCUM"
    assert codes.sector("left posterolateral MIDDLE peripheral zone of prostate") is not None
    assert codes.sector("moon") is None
    assert codes.sector(None) is None
    assert len(codes.SECTORS) == 41
