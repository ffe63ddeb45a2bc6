"""HTTP: JSON API, health, and later DICOMweb and the console."""
