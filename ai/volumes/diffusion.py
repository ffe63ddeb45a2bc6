"""b-values and diffusion maps as every vendor writes them.

The ladder: the standard element (also inside MR Diffusion Sequence, PS3.3 C.8.13.5.9), the vendor's private element,
Sequence Name and last the description. Which rung gave the value is kept with it. Each private rung is tested on files
of that vendor.
"""

import re
from collections.abc import Callable

from ai.volumes.acquisition import image_type, scanning_sequence, sequence_name
from ai.volumes.header import Header, binary_number, numbers
from ai.volumes.types import Acquisition, BValue

MAX_B_S_PER_MM2 = 20_000.0
"""Clinical and research scanners stay below this; a larger number is no b-value."""
GE_B_VALUE_MODULUS = 100_000
"""GE adds multiples of 1e9 to a b-value to mark multi-b acquisitions (GE Orchestra)."""

ADC_IMAGE_TYPES = frozenset({"ADC", "ADC_UNSPECIFIED"})
OTHER_MAP_IMAGE_TYPES = frozenset(
    {"FA", "EADC", "EXP", "EXPONENTIAL", "TENSOR", "TENSOR_B0", "COLOR_FA", "FA_UNSPECIFIED"}
)
CALCULATED_IMAGE_TYPES = frozenset({"CALC_BVALUE", "CALCULATED", "SYNTHETIC", "SYN_DWI", "CDWI"})
ADC_UNITS = frozenset({"um2/s", "10-6 mm2/s", "10^-6 mm2/s", "1e-6 mm2/s", "mm2/s", "10*-6.mm2/s", "10-3 mm2/s"})

_SEQUENCE_B = re.compile(r"(?:^|[_*])b(\d{1,5})(?:t|#\d+)?$", re.IGNORECASE)
_SEQUENCE_B_RANGE = re.compile(r"(?:^|[_*])b(\d{1,5})_(\d{1,5})$", re.IGNORECASE)
_DESCRIPTION_B = re.compile(r"(?<![A-Za-z0-9])b[ =_-]?(?:val(?:ue)?[ =_-]?)?(\d{1,5})(?!\d)", re.IGNORECASE)
_DESCRIPTION_ADC = re.compile(
    r"(?<![A-Za-z])d?ADC(?![A-Za-z])|apparent[ _]diffusion[ _]coefficient|diffusionskoeffizient", re.IGNORECASE
)
_DESCRIPTION_OTHER_MAP = re.compile(
    r"(?<![A-Za-z])(?:eADC|exp(?:onential)?[ _]?ADC|FA|colFA|MD)(?![A-Za-z])", re.IGNORECASE
)
_DESCRIPTION_CALCULATED = re.compile(
    r"calc[_ ]?b|calculated|synth|syn[_ ]?b|(?<![A-Za-z])[csd]DWI(?![A-Za-z])|computed", re.IGNORECASE
)


def read_b_value(header: Header) -> BValue | None:
    """The b-value of a frame in s/mm2 with the element it came from, or None.

    An ADC map has no b-value even where the scanner left that of its source in the header; ask ``adc_evidence`` first.
    """
    for rung in (_standard, _private, _from_sequence_name, _from_description):
        found = rung(header)
        if found is not None:
            return found
    return None


def gradient_direction(header: Header) -> tuple[float, ...] | None:
    """Diffusion Gradient Orientation (unit vector), from its sequence or the classic header's root."""
    direction = header.item("DiffusionGradientDirectionSequence")
    source = header if direction is None else Header((direction,))
    return source.vector("DiffusionGradientOrientation", 3)


def adc_evidence(acquisition: Acquisition) -> str | None:
    """Why the image is an ADC map, in words; None where it is not.

    Image Type and units decide; a description counts only for a derived echo-planar or diffusion image.
    """
    if OTHER_MAP_IMAGE_TYPES.intersection(acquisition.image_type) or _DESCRIPTION_OTHER_MAP.search(
        acquisition.series_description
    ):
        return None
    if ADC_IMAGE_TYPES.intersection(acquisition.image_type[2:]):
        return "Image Type says ADC"
    if _is_diffusion_like(acquisition) and acquisition.rescale_units.strip().casefold() in ADC_UNITS:
        return f"its unit is {acquisition.rescale_units}"
    derived = "DERIVED" in acquisition.image_type[:1]
    if derived and _is_diffusion_like(acquisition) and _DESCRIPTION_ADC.search(acquisition.series_description):
        return "derived from diffusion imaging and described as ADC"
    return None


def other_map_evidence(acquisition: Acquisition) -> str | None:
    """Why the image is another map made of diffusion images (FA, exponential ADC ...); None where it is not."""
    named = OTHER_MAP_IMAGE_TYPES.intersection(acquisition.image_type)
    if named:
        return f"Image Type says {', '.join(sorted(named))}"
    derived = "DERIVED" in acquisition.image_type[:1]
    if derived and _is_diffusion_like(acquisition) and _DESCRIPTION_OTHER_MAP.search(acquisition.series_description):
        return "derived from diffusion imaging and described as another map than ADC"
    return None


def calculated_evidence(acquisition: Acquisition, b_value: BValue | None) -> str | None:
    """Why the b-value was calculated by the scanner and not acquired; None where it was acquired."""
    named = CALCULATED_IMAGE_TYPES.intersection(acquisition.image_type)
    if named:
        return f"Image Type says {', '.join(sorted(named))}"
    derived = "DERIVED" in acquisition.image_type[:1]
    source_range = _SEQUENCE_B_RANGE.search(acquisition.sequence_name)
    if derived and source_range:
        low, high = source_range.groups()
        of = "" if b_value is None else f"; b = {b_value.s_per_mm2:g} was not acquired"
        return f"Sequence Name {acquisition.sequence_name} names the source range b {low} to {high}{of}"
    if derived and _is_diffusion_like(acquisition) and _DESCRIPTION_CALCULATED.search(acquisition.series_description):
        return "derived from diffusion imaging and described as calculated"
    return None


def _is_diffusion_like(acquisition: Acquisition) -> bool:
    return "EP" in acquisition.scanning_sequence or "DIFFUSION" in acquisition.image_type


def _standard(header: Header) -> BValue | None:
    number = header.number("DiffusionBValue")
    if number is not None:
        return _plausible(number, "Diffusion b-value (0018,9087)")
    if header.text("DiffusionDirectionality").upper() == "NONE":
        return BValue(0.0, "Diffusion Directionality (0018,9075) NONE")
    return None


def _private(header: Header) -> BValue | None:
    manufacturer = header.text("Manufacturer").casefold()
    for vendor, rung in _PRIVATE_RUNGS.items():
        if manufacturer.startswith(vendor):
            return rung(header)
    return None


def _siemens(header: Header) -> BValue | None:
    number = next(iter(numbers(header.private(0x0019, 0x0C, "SIEMENS MR HEADER"))), None)
    return _plausible(number, "Siemens (0019,100C)")


def _ge(header: Header) -> BValue | None:
    number = next(iter(numbers(header.private(0x0043, 0x39, "GEMS_PARM_01"))), None)
    return _plausible(None if number is None else number % GE_B_VALUE_MODULUS, "GE (0043,1039)")


def _philips(header: Header) -> BValue | None:
    number = binary_number(header.private(0x2001, 0x03, "Philips Imaging DD 001"), "<f")
    return _plausible(number, "Philips (2001,1003)")


def _uih(header: Header) -> BValue | None:
    number = binary_number(header.private(0x0065, 0x09, "Image Private Header"), "<d")
    return _plausible(number, "UIH (0065,1009)")


_PRIVATE_RUNGS: dict[str, Callable[[Header], BValue | None]] = {
    "siemens": _siemens,
    "ge ": _ge,
    "philips": _philips,
    "uih": _uih,
}


def _from_sequence_name(header: Header) -> BValue | None:
    match = _SEQUENCE_B.search(sequence_name(header))
    return _plausible(float(match[1]), "Sequence Name (0018,0024)") if match else None


def _from_description(header: Header) -> BValue | None:
    """The one b-value the description of an echo-planar or diffusion image names.

    Several (a list of what was acquired) say nothing about this image.
    """
    if "EP" not in scanning_sequence(header) and "DIFFUSION" not in image_type(header):
        return None
    named = set(_DESCRIPTION_B.findall(header.text("SeriesDescription")))
    return _plausible(float(named.pop()), "Series Description (0008,103E)") if len(named) == 1 else None


def _plausible(number: float | None, source: str) -> BValue | None:
    return BValue(number, source) if number is not None and 0 <= number <= MAX_B_S_PER_MM2 else None
