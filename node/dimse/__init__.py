"""DICOM message services (PS3.4, PS3.7), one file per service, and the association policy."""
