"""The learned part of quality assessment. Only its own modules, and worker processes, import torch."""
