"""The coded quality findings: CID 6314 to 6318 of PS3.16 (prostate study and image quality concerns).

CID 6314 names study concerns, 6315 common image concerns, 6316 MR artefacts, 6317 DCE and 6318 DWI concerns.
Meanings are spelled as in the standard's dictionary; receivers compare value and scheme, people read the meaning.
"""

from ai.quality.types import Code

# CID 6314, study quality
INCOMPLETE_STUDY = Code("130574", "DCM", "Incomplete study")
PROTOCOL_NOT_FOLLOWED = Code("130570", "DCM", "Protocol not followed")
STUDY_DID_NOT_MATCH_REQUEST = Code("130573", "DCM", "Study performed did not match request")

# CID 6315, common image quality
ANATOMY_COVERAGE_INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")
POOR_FOV_SELECTION = Code("130577", "DCM", "Poor FOV selection")
POOR_SNR = Code("130578", "DCM", "Poor SNR")

# CID 6316, MR artefacts
MOTION_ARTIFACT = Code("RID11423", "RADLEX", "Motion related artifact")
GHOST = Code("RID11426", "RADLEX", "Ghost")
SMEARING = Code("RID11424", "RADLEX", "Smearing")
NON_UNIFORM_SIGNAL = Code("RID11408", "RADLEX", "Non-uniform signal intensity artifact")
PHASE_WRAPAROUND = Code("RID11395", "RADLEX", "Phase wraparound artifact")

# CID 7011, for defects CID 6316 has no word for
IMAGE_ARTIFACT = Code("111207", "DCM", "Image artifact(s)")
UNDER_EXPOSED = Code("111211", "DCM", "Under exposed")
OVER_EXPOSED = Code("111212", "DCM", "Over exposed")

# CID 6317, DCE
POOR_CONTRAST_TIMING = Code("130579", "DCM", "Poor contrast timing")

# CID 6318, DWI
DISTORTION = Code("130586", "DCM", "Distortion artifact in the area of interest")
SEVERE_DISTORTION = Code("130584", "DCM", "Severe distortion in the area of interest")
EXPECTED_B_VALUE_MISSING = Code("130583", "DCM", "Expected b-value is missing")
EXPECTED_ADC_MISSING = Code("130585", "DCM", "Expected ADC map is missing")
