"""The coded terms of the audit trail: DICOM CIDs 400 to 404 (PS3.16) and the RFC 3881 values PS3.15 A.5 takes over."""

from enum import StrEnum
from typing import Final, NamedTuple


class Code(NamedTuple):
    """A coded value (PS3.15 A.5.1, CodedValueType)."""

    value: str
    scheme: str
    meaning: str


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


# Audit event IDs (CID 400).
APPLICATION_ACTIVITY: Final = _dcm("110100", "Application Activity")
BEGIN_TRANSFERRING: Final = _dcm("110102", "Begin Transferring DICOM Instances")
INSTANCES_TRANSFERRED: Final = _dcm("110104", "DICOM Instances Transferred")
QUERY: Final = _dcm("110112", "Query")
SECURITY_ALERT: Final = _dcm("110113", "Security Alert")
USER_AUTHENTICATION: Final = _dcm("110114", "User Authentication")

# Audit event types (CID 401; those of security alerts are CID 403).
APPLICATION_START: Final = _dcm("110120", "Application Start")
APPLICATION_STOP: Final = _dcm("110121", "Application Stop")
LOGIN: Final = _dcm("110122", "Login")
NODE_AUTHENTICATION: Final = _dcm("110126", "Node Authentication")
SOFTWARE_CONFIGURATION: Final = _dcm("110131", "Software Configuration")
USE_OF_RESTRICTED_FUNCTION: Final = _dcm("110132", "Use of Restricted Function")
AUDIT_RECORDING_STOPPED: Final = _dcm("110133", "Audit Recording Stopped")

# Roles of active participants (CID 402).
APPLICATION: Final = _dcm("110150", "Application")
DESTINATION: Final = _dcm("110152", "Destination Role ID")
SOURCE: Final = _dcm("110153", "Source Role ID")

# Types of participant object IDs (CID 404; the patient number is RFC 3881's, PS3.15 A.5.1.2.4).
STUDY_INSTANCE_UID: Final = _dcm("110180", "Study Instance UID")
SOP_CLASS_UID: Final = _dcm("110181", "SOP Class UID")
NODE_ID: Final = _dcm("110182", "Node ID")
PATIENT_NUMBER: Final = Code("2", "RFC-3881", "Patient Number")

AUDIT_SOURCE_TYPE: Final = "4"
"""Application server process (PS3.15 A.5.1.2.1)."""


class Action(StrEnum):
    """Event Action Code."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    EXECUTE = "E"


class Outcome(StrEnum):
    """Event Outcome Indicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"
    MAJOR_FAILURE = "12"


class ObjectType(StrEnum):
    """Participant Object Type Code."""

    PERSON = "1"
    SYSTEM_OBJECT = "2"


class ObjectRole(StrEnum):
    """Participant Object Type Code Role (PS3.15 A.5.1.2.2): those we use."""

    PATIENT = "1"
    REPORT = "3"
    SECURITY_RESOURCE = "13"
