"""DICOM series -> volumes in patient space, and the part each plays in the study (its role)."""
