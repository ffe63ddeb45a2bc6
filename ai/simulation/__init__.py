"""Synthetic prostate mpMRI: anatomy, sequence physics, artefacts in k-space, DICOM export."""
