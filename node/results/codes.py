"""The code book: every coded concept our objects use (PS3.16), and the few private ones the standard has no word for.

Private codes are frozen: a value, once released, keeps its meaning for ever; add, deprecate, never reuse. Values are at
most 16 characters because longer ones move to Long Code Value, which most receivers never read.
"""

from collections.abc import Mapping
from types import MappingProxyType

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from ai.detection.types import DetectionState
from ai.quality.types import Verdict

PRIVATE_SCHEME = "99PACSGATE"
PRIVATE_SCHEME_VERSION = "1"

RESEARCH_USE = "Research use only. Not for diagnosis."
"""Stated in every object we author."""

# Concept names of the quality report (the prostate MR quality vocabulary of Supplement-born CID 6314-6318, 7036).
IMAGING_STUDY_QUALITY = Code("130549", "DCM", "Imaging Study Quality")
IMAGING_SERIES_QUALITY = Code("130550", "DCM", "Imaging Series Quality")
QUALITY_ASSESSMENT = Code("111050", "DCM", "Quality Assessment")
QUALITY_CONTROL_STANDARD = Code("111051", "DCM", "Quality Control Standard")
QUALITY_FINDING = Code("111052", "DCM", "Quality Finding")
IMAGE_QUALITY_RATING = Code("111029", "DCM", "Image Quality Rating")
PIRADS_2_1_REQUIREMENTS = Code("130608", "DCM", "PI-RADS 2.1 prostate MRI acquisition requirements")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = codes.DCM.Comment
SERIES_INSTANCE_UID = codes.DCM.SeriesInstanceUID
MULTIPARAMETRIC_MRI = Code("126020", "DCM", "Multiparametric MRI")
"""Procedure reported: in both the old and the current CID 100, unlike 719178004 (SCT)."""
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
PROCEDURES: Mapping[str, Code] = MappingProxyType(
    {
        "MR": Code("25056-3", "LN", "MRI unspecified body region"),
        "CT": Code("25045-6", "LN", "CT unspecified body region"),
        "PT": Code("44136-0", "LN", "PET unspecified body region"),
        "NM": Code("49118-3", "LN", "NM unspecified body region"),
    }
)
"""CID 100 by modality, for studies that show no prostate."""

# Outcome of algorithms
SUMMARY_OF_DETECTIONS = codes.DCM.SummaryOfDetections
SUMMARY_OF_ANALYSES = codes.DCM.SummaryOfAnalyses
PROCESSING_AND_FINDINGS_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
SUCCEEDED = Code("111222", "DCM", "Succeeded")
FAILED = Code("111224", "DCM", "Failed")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")
SUCCEEDED_WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
SUCCEEDED_WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
"""Algorithm family (CID 7162): the standard's word for a machine's opinion, learned or rule-based."""

# Lesions: detected, not diagnosed, hence Lesion and never Neoplasm.
LESION = Code("52988006", "SCT", "Lesion")
ABSENT = Code("272519000", "SCT", "Absent")
MORPHOLOGICALLY_ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
PROSTATE = Code("41216001", "SCT", "Prostate")
VOLUME = Code("118565006", "SCT", "Volume")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
APPARENT_DIFFUSION_COEFFICIENT = Code("113041", "DCM", "Apparent Diffusion Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
DIFFUSION_B_VALUE = codes.DCM.SourceImageDiffusionBValue

VERDICTS: Mapping[Verdict, Code] = MappingProxyType(
    {
        Verdict.DIAGNOSTIC: Code("RID12", "RADLEX", "Diagnostic quality"),
        Verdict.LIMITED: Code("RID13", "RADLEX", "Limited quality"),
        Verdict.NON_DIAGNOSTIC: Code("RID14", "RADLEX", "Non-diagnostic quality"),
    }
)
"""CID 7036. ``not-assessed`` has no code there: such a series says (Summary of Analyses) = (Not Attempted)."""

DETECTION_STATES: Mapping[DetectionState, Code] = MappingProxyType(
    {
        DetectionState.SUCCEEDED: SUCCEEDED,
        DetectionState.FAILED: FAILED,
        DetectionState.NOT_ATTEMPTED: NOT_ATTEMPTED,
    }
)
"""CID 6042."""

UNUSABLE = Code("111235", "DCM", "Unusable - Quality renders image unusable")
DOES_NOT_MEET_STANDARD = Code("111236", "DCM", "Usable - Does not meet the quality control standard")
MEETS_STANDARD = Code("111237", "DCM", "Usable - Meets the quality control standard")

NO_UNITS = Code("1", "UCUM", "no units")
MILLIMETRE = Code("mm", "UCUM", "mm")
CUBIC_CENTIMETRE = Code("cm3", "UCUM", "cubic centimeter")
PERCENT = Code("%", "UCUM", "Percent")
SQUARE_MICROMETRE_PER_SECOND = Code("um2/s", "UCUM", "um2/s")
_UNITS = {unit.value: unit for unit in (NO_UNITS, MILLIMETRE, CUBIC_CENTIMETRE, PERCENT, SQUARE_MICROMETRE_PER_SECOND)}

MODALITIES: Mapping[str, Code] = MappingProxyType(
    {code.value: code for code in (getattr(codes.cid29, name) for name in codes.cid29.dir())}
)
"""CID 29 Acquisition Modality by its code value ("MR")."""

SECTORS: Mapping[str, Code] = MappingProxyType(
    {code.meaning.lower(): code for code in (getattr(codes.cid6304, name) for name in codes.cid6304.dir())}
)
"""CID 6304 sectors of PI-RADS v2.1 by their meaning in lower case."""


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


PROBABILITY_NON_DIAGNOSTIC = _private("P_NON_DIAGNOSTIC", "Probability of non-diagnostic quality")

METRICS: Mapping[str, Code] = MappingProxyType(
    {
        "snr": Code("113060", "DCM", "Signal to noise"),
        "noise_sigma": _private("NOISE_SIGMA", "Noise standard deviation in tissue"),
        "noise_sigma_air": _private("NOISE_SIGMA_AIR", "Noise standard deviation from air"),
        "signal": _private("SIGNAL_MEDIAN", "Median tissue signal"),
        "cnr": _private("CNR", "Contrast of two tissue classes to noise"),
        "structure_to_noise": _private("STRUCT_TO_NOISE", "Range of the smoothed image to noise"),
        "edge_width": _private("EDGE_WIDTH", "Full width at half maximum of edge blur"),
        "laplacian_to_haar_noise": _private("LAPLACIAN_NOISE", "Noise by Laplacian over noise by Haar detail"),
        "haar_kurtosis": _private("HAAR_KURTOSIS", "Kurtosis of the finest Haar detail"),
        "perceptual_blur": _private("PERCEPTUAL_BLUR", "Perceptual blur of the blurrier axis"),
        "perceptual_blur_difference": _private("BLUR_DIFFERENCE", "Perceptual blur along phase less along frequency"),
        "high_frequency_share": _private("HIGH_FREQ_SHARE", "Share of power above half the Nyquist frequency"),
        "spectral_slope": _private("SPECTRAL_SLOPE", "Exponent of the fall-off of spectral power"),
        "spectral_anisotropy": _private("SPECTRAL_ANISO", "Log high-frequency power, phase over frequency"),
        "mscn_shape": _private("MSCN_SHAPE", "Generalised Gaussian exponent of local contrast"),
        "mscn_variance": _private("MSCN_VARIANCE", "Variance of local contrast"),
        "mscn_product_asymmetry": _private("MSCN_ASYMMETRY", "Asymmetry of products of neighbouring local contrast"),
        "gradient_entropy": _private("GRADIENT_ENTROPY", "Entropy of the gradient magnitude"),
        "nyquist_ghost": _private("NYQUIST_GHOST", "Autocorrelation excess at half the field of view"),
        "wrap_continuity": _private("WRAP_CONTINUITY", "Correlation across the seam of the phase borders"),
        "spike_ratio": _private("SPIKE_RATIO", "Largest k-space amplitude over its surroundings"),
        "zipper_ratio": _private("ZIPPER_RATIO", "Roughest row or column over its neighbours"),
        "void_fraction": _private("VOID_FRACTION", "Share of central pixels darker than tissue"),
        "gradient_concentration": _private("GRADIENT_CONC", "Root mean square over mean gradient"),
        "phase_correlation_ratio": _private("PHASE_CORR_RATIO", "Long-range autocorrelation, phase over frequency"),
        "ghost_prominence": _private("GHOST_PROMINENCE", "Autocorrelation excess at ghost distances along phase"),
        "air_ghost_ratio": _private("AIR_GHOST_RATIO", "Ghosting ratio from air"),
        "entropy_focus": _private("ENTROPY_FOCUS", "Entropy focus criterion"),
        "bias_field_range": _private("BIAS_FIELD_RANGE", "Range of the bias field"),
        "hot_spot_ratio": _private("HOT_SPOT_RATIO", "Brightest signal of slice over that of its centre"),
        "clipped_fraction": _private("CLIPPED_FRACTION", "Share of tissue pixels at the highest value"),
        "signal_drop": _private("SIGNAL_DROP", "Log signal drop of a slice below its neighbours"),
        "valid_fraction": _private("VALID_FRACTION", "Share of central pixels that are not zero"),
        "coverage": _private("COVERAGE", "Extent of the slices along their normal"),
        "missing_slices": _private("MISSING_SLICES", "Number of slices missing inside the stack"),
        "missing_fraction": _private("MISSING_FRACTION", "Share of slices missing inside the stack"),
        "duplicate_slices": _private("DUPLICATE_SLICES", "Number of further images at a taken position"),
        "exposure_index": Code("113845", "DCM", "Exposure Index"),
        "deviation_index": Code("113847", "DCM", "Deviation Index"),
        "noise_hu": _private("NOISE_HU", "Noise standard deviation in soft tissue of CT"),
        "streak_index": _private("STREAK_INDEX", "Largest over median scatter of line averages"),
        "displacement_p95": _private("DISPLACEMENT_P95", "95th percentile of displacement along phase against T2"),
        "distortion_rigid": _private("DISTORT_RIGID", "Median shift along phase against T2"),
        "distortion_median": _private("DISTORT_MEDIAN", "Median distortion along phase, shift removed"),
        "distortion_p95": _private("DISTORT_P95", "95th percentile of distortion along phase, shift removed"),
        "t2_dwi_mismatch": _private("T2_DWI_MISMATCH", "1 - Dice of bright tissue on diffusion and placed by T2"),
    }
)
"""Measurement names by ``Metric.name``. Formulas and sources: ``ai/quality``; the unit travels with each value."""


def unit(ucum: str) -> Code:
    """The coded UCUM unit. An empty string is a number without a unit."""
    return _UNITS.get(ucum or "1") or Code(ucum, "UCUM", ucum)


def sector(name: str | None) -> Code | None:
    """The SNOMED code of a PI-RADS v2.1 sector named in the words of CID 6304, or None."""
    return SECTORS.get(name.lower()) if name else None


def private_scheme() -> CodingSchemeIdentificationItem:
    """Item of Coding Scheme Identification Sequence (0008,0110) that declares our private scheme."""
    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="pacsgate image quality code book",
        version=PRIVATE_SCHEME_VERSION,
        responsible_organization="pacsgate",
    )
