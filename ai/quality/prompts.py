"""What the quality network is told about a stack besides its pixels: the prompt, read from the header.

MedIQA (arXiv 2507.19004) prompts with dimension, modality, anatomy and type guessed by classifiers; in DICOM they are
in the header, and a classifier is only asked where the header is silent. The maker of the scanner is never told: a
network that knows it learns the maker instead of the damage, and fails on the next one.
"""

from dataclasses import astuple, dataclass, replace
from enum import StrEnum

from ai.quality import codes
from ai.quality.types import Finding, Severity
from ai.volumes.types import Acquisition, Role, RoledStack, Stack

VOCABULARY_VERSION = "1"
"""Bumped when a level is added, removed or moved: weights know levels by their place only."""

HIGH_B_FROM_S_PER_MM2 = 500.0
"""From here on free fluid is dark and a diffusion image looks like one (PI-RADS v2.1: low b 0-100, high 800 and up)."""


class Dimension(StrEnum):
    """A single image or a stack."""

    UNKNOWN = "unknown"
    IMAGE = "2d"
    VOLUME = "3d"


class Modality(StrEnum):
    """Modality (0008,0060)."""

    UNKNOWN = "unknown"
    MR = "MR"
    CT = "CT"
    COMPUTED_RADIOGRAPHY = "CR"
    DIGITAL_RADIOGRAPHY = "DX"
    MAMMOGRAPHY = "MG"
    ULTRASOUND = "US"
    ANGIOGRAPHY = "XA"
    OTHER = "other"


class Anatomy(StrEnum):
    """Body Part Examined (0018,0015), in regions."""

    UNKNOWN = "unknown"
    PROSTATE = "prostate"
    PELVIS = "pelvis"
    ABDOMEN = "abdomen"
    CHEST = "chest"
    HEAD = "head"
    SPINE = "spine"
    BREAST = "breast"
    EXTREMITY = "extremity"
    OTHER = "other"


class Family(StrEnum):
    """What an MR image shows, as far as its quality is concerned."""

    UNKNOWN = "unknown"
    T2W = "t2w"
    DWI_LOW = "dwi-low"
    DWI_HIGH = "dwi-high"
    ADC = "adc"
    DCE = "dce"
    T1W = "t1w"
    OTHER = "other"


class PlaneLevel(StrEnum):
    """Orientation of the slices."""

    UNKNOWN = "unknown"
    AXIAL = "axial"
    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    OBLIQUE = "oblique"


class FieldStrength(StrEnum):
    """Magnetic Field Strength (0018,0087) in classes: below 1 T, up to 2 T, up to 4 T, above."""

    UNKNOWN = "unknown"
    LOW = "low"
    T1_5 = "1.5T"
    T3 = "3T"
    ULTRA_HIGH = "ultra-high"


@dataclass(frozen=True)
class Prompt:
    """What is known of a stack; the first level of every field is ``unknown``."""

    dimension: Dimension = Dimension.UNKNOWN
    modality: Modality = Modality.UNKNOWN
    anatomy: Anatomy = Anatomy.UNKNOWN
    family: Family = Family.UNKNOWN
    plane: PlaneLevel = PlaneLevel.UNKNOWN
    field_strength: FieldStrength = FieldStrength.UNKNOWN

    def indices(self) -> tuple[int, ...]:
        """Place of each field's level in its vocabulary, in the order of the fields; 0 is unknown."""
        return tuple(list(field).index(level) for field, level in zip(VOCABULARY, astuple(self), strict=True))


VOCABULARY: tuple[type[StrEnum], ...] = (Dimension, Modality, Anatomy, Family, PlaneLevel, FieldStrength)
"""The levels of each field of a prompt, in the order of the fields."""

LEVELS: tuple[int, ...] = tuple(len(field) for field in VOCABULARY)
"""Number of levels of each field of a prompt."""


@dataclass(frozen=True)
class FamilyGuess:
    """The sequence family as an image classifier sees it, and its probability."""

    family: Family
    probability: float


@dataclass(frozen=True)
class SettledPrompt:
    """A prompt after the image was looked at, and what that found."""

    prompt: Prompt
    findings: tuple[Finding, ...] = ()


def prompt_of(entry: RoledStack) -> Prompt:
    """The prompt of a stack from its header and role."""
    stack, acquisition = entry.stack, entry.stack.acquisition
    return Prompt(
        dimension=Dimension.VOLUME if len(stack.slices) > 1 else Dimension.IMAGE,
        modality=_modality(acquisition),
        anatomy=_anatomy(acquisition),
        family=_family(entry),
        plane=PlaneLevel.UNKNOWN if stack.plane is None else PlaneLevel(stack.plane),
        field_strength=_field_strength(acquisition),
    )


def settle_family(prompt: Prompt, guess: FamilyGuess | None) -> SettledPrompt:
    """Fill in the family where the header is silent; where header and image disagree, keep the header and say so.

    ``guess`` is None where the classifier abstains. The finding is advisory: headers are often wrong, and so are
    classifiers. ``other`` contradicts nothing.
    """
    if guess is None or prompt.modality is not Modality.MR or guess.family is prompt.family:
        return SettledPrompt(prompt)
    if prompt.family is Family.UNKNOWN:
        return SettledPrompt(replace(prompt, family=guess.family))
    if Family.OTHER in (prompt.family, guess.family):
        return SettledPrompt(prompt)
    text = (
        f"the header says {prompt.family}, the image looks like {guess.family} "
        f"(probability {guess.probability:.2f}): check the labels of this series"
    )
    value = f"{prompt.family} / {guess.family}"
    return SettledPrompt(prompt, (Finding(codes.PROTOCOL_NOT_FOLLOWED, Severity.ADVISORY, text, value),))


_FAMILY_OF_ROLE: dict[str, Family] = {
    Role.T2W_AXIAL: Family.T2W,
    Role.T2W_SAGITTAL: Family.T2W,
    Role.T2W_CORONAL: Family.T2W,
    Role.T1W: Family.T1W,
    Role.ADC: Family.ADC,
    Role.DCE: Family.DCE,
    Role.LOCALIZER: Family.OTHER,
}

_REGION_OF_BODY_PART: dict[str, Anatomy] = {
    "PROSTATE": Anatomy.PROSTATE,
    **dict.fromkeys(("PELVIS", "BLADDER", "UTERUS", "RECTUM", "HIP", "SSPINE", "SEMVESICLE"), Anatomy.PELVIS),
    **dict.fromkeys(("ABDOMEN", "LIVER", "KIDNEY", "PANCREAS", "SPLEEN", "ABDOMENPELVIS"), Anatomy.ABDOMEN),
    **dict.fromkeys(("CHEST", "LUNG", "HEART", "THORAX"), Anatomy.CHEST),
    **dict.fromkeys(("HEAD", "BRAIN", "SKULL", "FACE", "ORBIT", "NECK"), Anatomy.HEAD),
    **dict.fromkeys(("CSPINE", "TSPINE", "LSPINE", "SPINE", "CTSPINE", "TLSPINE", "LSSPINE"), Anatomy.SPINE),
    "BREAST": Anatomy.BREAST,
    **dict.fromkeys(
        ("SHOULDER", "ARM", "ELBOW", "WRIST", "HAND", "FEMUR", "THIGH", "KNEE", "LEG", "ANKLE", "FOOT"),
        Anatomy.EXTREMITY,
    ),
}
"""Body Part Examined (PS3.16 annex L) -> region."""


def _modality(acquisition: Acquisition) -> Modality:
    if not acquisition.modality:
        return Modality.UNKNOWN
    try:
        return Modality(acquisition.modality)
    except ValueError:
        return Modality.OTHER


def _anatomy(acquisition: Acquisition) -> Anatomy:
    part = acquisition.body_part_examined.strip().upper()
    return _REGION_OF_BODY_PART.get(part, Anatomy.OTHER) if part else Anatomy.UNKNOWN


def _family(entry: RoledStack) -> Family:
    if entry.stack.acquisition.modality != "MR":
        return Family.OTHER
    if entry.role in (Role.DWI, Role.DWI_CALCULATED):
        return _diffusion_family(entry.stack)
    known = _FAMILY_OF_ROLE.get(entry.role)
    if known is not None:
        return known
    return Family.OTHER if _header_tells_the_sequence(entry.stack.acquisition) else Family.UNKNOWN


def _diffusion_family(stack: Stack) -> Family:
    if stack.b_value is None:
        return Family.UNKNOWN
    return Family.DWI_HIGH if stack.b_value.s_per_mm2 >= HIGH_B_FROM_S_PER_MM2 else Family.DWI_LOW


def _header_tells_the_sequence(acquisition: Acquisition) -> bool:
    """Without echo and timing a stack has no role for want of words, not because it is something else."""
    timing = (acquisition.echo_time_ms, acquisition.repetition_time_ms)
    return bool(acquisition.scanning_sequence) and None not in timing


def _field_strength(acquisition: Acquisition) -> FieldStrength:
    tesla = acquisition.magnetic_field_strength_t
    if acquisition.modality != "MR" or tesla is None:
        return FieldStrength.UNKNOWN
    classes = ((1.0, FieldStrength.LOW), (2.0, FieldStrength.T1_5), (4.0, FieldStrength.T3))
    return next((level for below, level in classes if tesla < below), FieldStrength.ULTRA_HIGH)
