"""Everything that talks: DICOM services, workflow, result objects, web console, command line."""
