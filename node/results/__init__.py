"""The DICOM objects pacsgate authors: quality report, lesion report, segmentation."""
