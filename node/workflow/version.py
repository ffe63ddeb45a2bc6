"""The pipeline version: rises with every change that can change a result.

It is part of every result's UIDs, and jobs of one version are never continued by another.
"""

PIPELINE_VERSION = "0.1.0"
