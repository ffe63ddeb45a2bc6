"""Presentation contexts of our SCPs (PS3.4 A, B, F and J; PS3.7 D.3), as an explicit list.

An association request holds at most 128 contexts; what an SCP supports has no such limit, so everything below is on
offer at once. Two groups of storage SOP classes are left out on purpose:

* non-patient objects (PS3.4 GG: hanging protocols, colour palettes, implant templates, defined procedure protocols,
  protocol approvals, inventories), because they belong to no study and this node keeps studies;
* Media Storage Directory (a DICOMDIR travels on media only) and Storage Commitment (not a storage class).

A site's private classes are added with ``additional_sop_classes``.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from pydicom.uid import (
    HEVCM10P51,
    HEVCMP51,
    HTJ2K,
    JPEG2000,
    MPEG2MPHL,
    MPEG2MPHLF,
    MPEG2MPML,
    MPEG2MPMLF,
    MPEG4HP41,
    MPEG4HP41BD,
    MPEG4HP41BDF,
    MPEG4HP41F,
    MPEG4HP42STEREO,
    MPEG4HP42STEREOF,
    MPEG4HP422D,
    MPEG4HP422DF,
    MPEG4HP423D,
    MPEG4HP423DF,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    Verification,
    register_uid,
    uid_to_service_class,
)

TRANSFER_SYNTAXES: Final[tuple[str, ...]] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLSLossless,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    MPEG2MPML,
    MPEG2MPMLF,
    MPEG2MPHL,
    MPEG2MPHLF,
    MPEG4HP41,
    MPEG4HP41F,
    MPEG4HP41BD,
    MPEG4HP41BDF,
    MPEG4HP422D,
    MPEG4HP422DF,
    MPEG4HP423D,
    MPEG4HP423DF,
    MPEG4HP42STEREO,
    MPEG4HP42STEREOF,
    HEVCMP51,
    HEVCM10P51,
)
"""Transfer syntaxes stored as received, in our order of preference.

Where a sender proposes several in one context it can convert between them, and the first of ours wins: uncompressed
before lossless before lossy, so that no sender compresses with loss on our account. Deflated Explicit VR Little Endian
(1.2.840.10008.1.2.1.99) and Deflated Image Frame Compression (1.2.840.10008.1.2.8.1) are not accepted: a few kilobytes
of deflated zeros inflate to gigabytes before a header can be read. JPIP references carry no pixels; JPEG XL has no
decoder here yet.
"""

CURRENT_STORAGE_SOP_CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "1.2.840.10008.5.1.4.1.1.1": "ComputedRadiographyImageStorage",
        "1.2.840.10008.5.1.4.1.1.1.1": "DigitalXRayImageStorageForPresentation",
        "1.2.840.10008.5.1.4.1.1.1.1.1": "DigitalXRayImageStorageForProcessing",
        "1.2.840.10008.5.1.4.1.1.1.2": "DigitalMammographyXRayImageStorageForPresentation",
        "1.2.840.10008.5.1.4.1.1.1.2.1": "DigitalMammographyXRayImageStorageForProcessing",
        "1.2.840.10008.5.1.4.1.1.1.3": "DigitalIntraOralXRayImageStorageForPresentation",
        "1.2.840.10008.5.1.4.1.1.1.3.1": "DigitalIntraOralXRayImageStorageForProcessing",
        "1.2.840.10008.5.1.4.1.1.2": "CTImageStorage",
        "1.2.840.10008.5.1.4.1.1.2.1": "EnhancedCTImageStorage",
        "1.2.840.10008.5.1.4.1.1.2.2": "LegacyConvertedEnhancedCTImageStorage",
        "1.2.840.10008.5.1.4.1.1.3.1": "UltrasoundMultiFrameImageStorage",
        "1.2.840.10008.5.1.4.1.1.4": "MRImageStorage",
        "1.2.840.10008.5.1.4.1.1.4.1": "EnhancedMRImageStorage",
        "1.2.840.10008.5.1.4.1.1.4.2": "MRSpectroscopyStorage",
        "1.2.840.10008.5.1.4.1.1.4.3": "EnhancedMRColorImageStorage",
        "1.2.840.10008.5.1.4.1.1.4.4": "LegacyConvertedEnhancedMRImageStorage",
        "1.2.840.10008.5.1.4.1.1.6.1": "UltrasoundImageStorage",
        "1.2.840.10008.5.1.4.1.1.6.2": "EnhancedUSVolumeStorage",
        "1.2.840.10008.5.1.4.1.1.6.3": "PhotoacousticImageStorage",
        "1.2.840.10008.5.1.4.1.1.7": "SecondaryCaptureImageStorage",
        "1.2.840.10008.5.1.4.1.1.7.1": "MultiFrameSingleBitSecondaryCaptureImageStorage",
        "1.2.840.10008.5.1.4.1.1.7.2": "MultiFrameGrayscaleByteSecondaryCaptureImageStorage",
        "1.2.840.10008.5.1.4.1.1.7.3": "MultiFrameGrayscaleWordSecondaryCaptureImageStorage",
        "1.2.840.10008.5.1.4.1.1.7.4": "MultiFrameTrueColorSecondaryCaptureImageStorage",
        "1.2.840.10008.5.1.4.1.1.9.1.1": "TwelveLeadECGWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.1.2": "GeneralECGWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.1.3": "AmbulatoryECGWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.1.4": "General32bitECGWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.2.1": "HemodynamicWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.3.1": "CardiacElectrophysiologyWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.4.1": "BasicVoiceAudioWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.4.2": "GeneralAudioWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.5.1": "ArterialPulseWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.6.1": "RespiratoryWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.6.2": "MultichannelRespiratoryWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.7.1": "RoutineScalpElectroencephalogramWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.7.2": "ElectromyogramWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.7.3": "ElectrooculogramWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.7.4": "SleepElectroencephalogramWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.8.1": "BodyPositionWaveformStorage",
        "1.2.840.10008.5.1.4.1.1.9.100.1": "WaveformPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.9.100.2": "WaveformAcquisitionPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.1": "GrayscaleSoftcopyPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.2": "ColorSoftcopyPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.3": "PseudoColorSoftcopyPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.4": "BlendingSoftcopyPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.5": "XAXRFGrayscaleSoftcopyPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.6": "GrayscalePlanarMPRVolumetricPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.7": "CompositingPlanarMPRVolumetricPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.8": "AdvancedBlendingPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.9": "VolumeRenderingVolumetricPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.10": "SegmentedVolumeRenderingVolumetricPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.11": "MultipleVolumeRenderingVolumetricPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.11.12": "VariableModalityLUTSoftcopyPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.12.1": "XRayAngiographicImageStorage",
        "1.2.840.10008.5.1.4.1.1.12.1.1": "EnhancedXAImageStorage",
        "1.2.840.10008.5.1.4.1.1.12.2": "XRayRadiofluoroscopicImageStorage",
        "1.2.840.10008.5.1.4.1.1.12.2.1": "EnhancedXRFImageStorage",
        "1.2.840.10008.5.1.4.1.1.13.1.1": "XRay3DAngiographicImageStorage",
        "1.2.840.10008.5.1.4.1.1.13.1.2": "XRay3DCraniofacialImageStorage",
        "1.2.840.10008.5.1.4.1.1.13.1.3": "BreastTomosynthesisImageStorage",
        "1.2.840.10008.5.1.4.1.1.13.1.4": "BreastProjectionXRayImageStorageForPresentation",
        "1.2.840.10008.5.1.4.1.1.13.1.5": "BreastProjectionXRayImageStorageForProcessing",
        "1.2.840.10008.5.1.4.1.1.14.1": "IntravascularOpticalCoherenceTomographyImageStorageForPresentation",
        "1.2.840.10008.5.1.4.1.1.14.2": "IntravascularOpticalCoherenceTomographyImageStorageForProcessing",
        "1.2.840.10008.5.1.4.1.1.20": "NuclearMedicineImageStorage",
        "1.2.840.10008.5.1.4.1.1.30": "ParametricMapStorage",
        "1.2.840.10008.5.1.4.1.1.66": "RawDataStorage",
        "1.2.840.10008.5.1.4.1.1.66.1": "SpatialRegistrationStorage",
        "1.2.840.10008.5.1.4.1.1.66.2": "SpatialFiducialsStorage",
        "1.2.840.10008.5.1.4.1.1.66.3": "DeformableSpatialRegistrationStorage",
        "1.2.840.10008.5.1.4.1.1.66.4": "SegmentationStorage",
        "1.2.840.10008.5.1.4.1.1.66.5": "SurfaceSegmentationStorage",
        "1.2.840.10008.5.1.4.1.1.66.6": "TractographyResultsStorage",
        "1.2.840.10008.5.1.4.1.1.66.7": "LabelMapSegmentationStorage",
        "1.2.840.10008.5.1.4.1.1.66.8": "HeightMapSegmentationStorage",
        "1.2.840.10008.5.1.4.1.1.67": "RealWorldValueMappingStorage",
        "1.2.840.10008.5.1.4.1.1.68.1": "SurfaceScanMeshStorage",
        "1.2.840.10008.5.1.4.1.1.68.2": "SurfaceScanPointCloudStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.1": "VLEndoscopicImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.1.1": "VideoEndoscopicImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.2": "VLMicroscopicImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.2.1": "VideoMicroscopicImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.3": "VLSlideCoordinatesMicroscopicImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.4": "VLPhotographicImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.4.1": "VideoPhotographicImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.1": "OphthalmicPhotography8BitImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.2": "OphthalmicPhotography16BitImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.3": "StereometricRelationshipStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.4": "OphthalmicTomographyImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.5": "WideFieldOphthalmicPhotographyStereographicProjectionImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.6": "WideFieldOphthalmicPhotography3DCoordinatesImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.7": "OphthalmicOpticalCoherenceTomographyEnFaceImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.5.8": "OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.6": "VLWholeSlideMicroscopyImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.7": "DermoscopicPhotographyImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.8": "ConfocalMicroscopyImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1.9": "ConfocalMicroscopyTiledPyramidalImageStorage",
        "1.2.840.10008.5.1.4.1.1.78.1": "LensometryMeasurementsStorage",
        "1.2.840.10008.5.1.4.1.1.78.2": "AutorefractionMeasurementsStorage",
        "1.2.840.10008.5.1.4.1.1.78.3": "KeratometryMeasurementsStorage",
        "1.2.840.10008.5.1.4.1.1.78.4": "SubjectiveRefractionMeasurementsStorage",
        "1.2.840.10008.5.1.4.1.1.78.5": "VisualAcuityMeasurementsStorage",
        "1.2.840.10008.5.1.4.1.1.78.6": "SpectaclePrescriptionReportStorage",
        "1.2.840.10008.5.1.4.1.1.78.7": "OphthalmicAxialMeasurementsStorage",
        "1.2.840.10008.5.1.4.1.1.78.8": "IntraocularLensCalculationsStorage",
        "1.2.840.10008.5.1.4.1.1.79.1": "MacularGridThicknessAndVolumeReportStorage",
        "1.2.840.10008.5.1.4.1.1.80.1": "OphthalmicVisualFieldStaticPerimetryMeasurementsStorage",
        "1.2.840.10008.5.1.4.1.1.81.1": "OphthalmicThicknessMapStorage",
        "1.2.840.10008.5.1.4.1.1.82.1": "CornealTopographyMapStorage",
        "1.2.840.10008.5.1.4.1.1.88.11": "BasicTextSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.22": "EnhancedSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.33": "ComprehensiveSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive3DSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.35": "ExtensibleSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.40": "ProcedureLogStorage",
        "1.2.840.10008.5.1.4.1.1.88.50": "MammographyCADSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.59": "KeyObjectSelectionDocumentStorage",
        "1.2.840.10008.5.1.4.1.1.88.65": "ChestCADSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.67": "XRayRadiationDoseSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.68": "RadiopharmaceuticalRadiationDoseSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.69": "ColonCADSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.70": "ImplantationPlanSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.71": "AcquisitionContextSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.72": "SimplifiedAdultEchoSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.73": "PatientRadiationDoseSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.74": "PlannedImagingAgentAdministrationSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.75": "PerformedImagingAgentAdministrationSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.76": "EnhancedXRayRadiationDoseSRStorage",
        "1.2.840.10008.5.1.4.1.1.88.77": "WaveformAnnotationSRStorage",
        "1.2.840.10008.5.1.4.1.1.90.1": "ContentAssessmentResultsStorage",
        "1.2.840.10008.5.1.4.1.1.91.1": "MicroscopyBulkSimpleAnnotationsStorage",
        "1.2.840.10008.5.1.4.1.1.104.1": "EncapsulatedPDFStorage",
        "1.2.840.10008.5.1.4.1.1.104.2": "EncapsulatedCDAStorage",
        "1.2.840.10008.5.1.4.1.1.104.3": "EncapsulatedSTLStorage",
        "1.2.840.10008.5.1.4.1.1.104.4": "EncapsulatedOBJStorage",
        "1.2.840.10008.5.1.4.1.1.104.5": "EncapsulatedMTLStorage",
        "1.2.840.10008.5.1.4.1.1.128": "PositronEmissionTomographyImageStorage",
        "1.2.840.10008.5.1.4.1.1.128.1": "LegacyConvertedEnhancedPETImageStorage",
        "1.2.840.10008.5.1.4.1.1.130": "EnhancedPETImageStorage",
        "1.2.840.10008.5.1.4.1.1.131": "BasicStructuredDisplayStorage",
        "1.2.840.10008.5.1.4.1.1.200.2": "CTPerformedProcedureProtocolStorage",
        "1.2.840.10008.5.1.4.1.1.200.8": "XAPerformedProcedureProtocolStorage",
        "1.2.840.10008.5.1.4.1.1.481.1": "RTImageStorage",
        "1.2.840.10008.5.1.4.1.1.481.2": "RTDoseStorage",
        "1.2.840.10008.5.1.4.1.1.481.3": "RTStructureSetStorage",
        "1.2.840.10008.5.1.4.1.1.481.4": "RTBeamsTreatmentRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.5": "RTPlanStorage",
        "1.2.840.10008.5.1.4.1.1.481.6": "RTBrachyTreatmentRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.7": "RTTreatmentSummaryRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.8": "RTIonPlanStorage",
        "1.2.840.10008.5.1.4.1.1.481.9": "RTIonBeamsTreatmentRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.10": "RTPhysicianIntentStorage",
        "1.2.840.10008.5.1.4.1.1.481.11": "RTSegmentAnnotationStorage",
        "1.2.840.10008.5.1.4.1.1.481.12": "RTRadiationSetStorage",
        "1.2.840.10008.5.1.4.1.1.481.13": "CArmPhotonElectronRadiationStorage",
        "1.2.840.10008.5.1.4.1.1.481.14": "TomotherapeuticRadiationStorage",
        "1.2.840.10008.5.1.4.1.1.481.15": "RoboticArmRadiationStorage",
        "1.2.840.10008.5.1.4.1.1.481.16": "RTRadiationRecordSetStorage",
        "1.2.840.10008.5.1.4.1.1.481.17": "RTRadiationSalvageRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.18": "TomotherapeuticRadiationRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.19": "CArmPhotonElectronRadiationRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.20": "RoboticRadiationRecordStorage",
        "1.2.840.10008.5.1.4.1.1.481.21": "RTRadiationSetDeliveryInstructionStorage",
        "1.2.840.10008.5.1.4.1.1.481.22": "RTTreatmentPreparationStorage",
        "1.2.840.10008.5.1.4.1.1.481.23": "EnhancedRTImageStorage",
        "1.2.840.10008.5.1.4.1.1.481.24": "EnhancedContinuousRTImageStorage",
        "1.2.840.10008.5.1.4.1.1.481.25": "RTPatientPositionAcquisitionInstructionStorage",
        "1.2.840.10008.5.1.4.1.1.501.1": "DICOSCTImageStorage",
        "1.2.840.10008.5.1.4.1.1.501.2.1": "DICOSDigitalXRayImageStorageForPresentation",
        "1.2.840.10008.5.1.4.1.1.501.2.2": "DICOSDigitalXRayImageStorageForProcessing",
        "1.2.840.10008.5.1.4.1.1.501.3": "DICOSThreatDetectionReportStorage",
        "1.2.840.10008.5.1.4.1.1.501.4": "DICOS2DAITStorage",
        "1.2.840.10008.5.1.4.1.1.501.5": "DICOS3DAITStorage",
        "1.2.840.10008.5.1.4.1.1.501.6": "DICOSQuadrupoleResonanceStorage",
        "1.2.840.10008.5.1.4.1.1.601.1": "EddyCurrentImageStorage",
        "1.2.840.10008.5.1.4.1.1.601.2": "EddyCurrentMultiFrameImageStorage",
        "1.2.840.10008.5.1.4.34.7": "RTBeamsDeliveryInstructionStorage",
        "1.2.840.10008.5.1.4.34.10": "RTBrachyApplicationSetupDeliveryInstructionStorage",
    }
)
"""Storage SOP classes in force (PS3.4 B.5), with the industrial ones of DICOS and DICONDE: UID to keyword."""

RETIRED_STORAGE_SOP_CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "1.2.840.10008.5.1.1.27": "StoredPrintStorage",
        "1.2.840.10008.5.1.1.29": "HardcopyGrayscaleImageStorage",
        "1.2.840.10008.5.1.1.30": "HardcopyColorImageStorage",
        "1.2.840.10008.5.1.4.1.1.3": "UltrasoundMultiFrameImageStorageRetired",
        "1.2.840.10008.5.1.4.1.1.5": "NuclearMedicineImageStorageRetired",
        "1.2.840.10008.5.1.4.1.1.6": "UltrasoundImageStorageRetired",
        "1.2.840.10008.5.1.4.1.1.8": "StandaloneOverlayStorage",
        "1.2.840.10008.5.1.4.1.1.9": "StandaloneCurveStorage",
        "1.2.840.10008.5.1.4.1.1.9.1": "WaveformStorageTrial",
        "1.2.840.10008.5.1.4.1.1.10": "StandaloneModalityLUTStorage",
        "1.2.840.10008.5.1.4.1.1.11": "StandaloneVOILUTStorage",
        "1.2.840.10008.5.1.4.1.1.12.3": "XRayAngiographicBiPlaneImageStorage",
        "1.2.840.10008.5.1.4.1.1.77.1": "VLImageStorageTrial",
        "1.2.840.10008.5.1.4.1.1.77.2": "VLMultiFrameImageStorageTrial",
        "1.2.840.10008.5.1.4.1.1.88.1": "TextSRStorageTrial",
        "1.2.840.10008.5.1.4.1.1.88.2": "AudioSRStorageTrial",
        "1.2.840.10008.5.1.4.1.1.88.3": "DetailSRStorageTrial",
        "1.2.840.10008.5.1.4.1.1.88.4": "ComprehensiveSRStorageTrial",
        "1.2.840.10008.5.1.4.1.1.129": "StandalonePETCurveStorage",
        "1.2.840.10008.5.1.4.34.1": "RTBeamsDeliveryInstructionStorageTrial",
    }
)
"""Storage SOP classes the standard has retired and old modalities and archives still send: UID to keyword."""

STORAGE_SOP_CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {**CURRENT_STORAGE_SOP_CLASSES, **RETIRED_STORAGE_SOP_CLASSES}
)
"""Every storage SOP class accepted by default: UID to keyword."""


def supported_contexts(additional_sop_classes: Iterable[str] = ()) -> list[PresentationContext]:
    """Return the contexts the SCP supports: Verification, Modality Performed Procedure Step, Storage Commitment, and
    every storage SOP class in every transfer syntax.

    ``additional_sop_classes`` are UIDs of private storage SOP classes to accept as well.
    """
    storage_sop_classes = dict.fromkeys([*STORAGE_SOP_CLASSES, *additional_sop_classes])
    _register_with_storage_service(storage_sop_classes)
    storage = [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in storage_sop_classes]
    commitment = storage_commitment_context()
    # Both roles: peers ask us for commitment, and destinations report, as SCP, on associations they open (PS3.4 J.3.3).
    commitment.scu_role = commitment.scp_role = True
    return [verification_context(), procedure_step_context(), commitment, *storage]


def verification_context() -> PresentationContext:
    """Return the context of the Verification SOP class (PS3.4 A), in the two syntaxes a peer may ask for."""
    return build_context(Verification, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def procedure_step_context() -> PresentationContext:
    """Return the context of the Modality Performed Procedure Step SOP class (PS3.4 F.7)."""
    return build_context(ModalityPerformedProcedureStep, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def storage_commitment_context() -> PresentationContext:
    """Return the context of the Storage Commitment Push Model SOP class (PS3.4 J.3)."""
    return build_context(StorageCommitmentPushModel, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def is_storage_context(context: PresentationContext) -> bool:
    """Tell whether a context belongs to the Storage service."""
    return uid_to_service_class(str(context.abstract_syntax)) is StorageServiceClass


def _register_with_storage_service(sop_classes: Iterable[str]) -> None:
    """Teach pynetdicom the storage SOP classes it does not know; it aborts associations that use an unknown one."""
    for uid in sop_classes:
        if uid_to_service_class(uid) is not StorageServiceClass:
            keyword = STORAGE_SOP_CLASSES.get(uid, "PrivateStorage" + uid.replace(".", "_"))
            register_uid(uid, keyword, StorageServiceClass)
