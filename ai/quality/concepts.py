"""The concepts a quality score is explained by.

A concept bottleneck (Koh et al. 2020, arXiv 2007.04612): the score is a monotone function of these, so that whoever
reads it can see what lowered it.
"""

from enum import StrEnum


class Concept(StrEnum):
    """What can be wrong with an image, in the words of people who scan."""

    MOTION = "motion"
    GHOSTING = "ghosting"
    NOISE = "noise"
    BLUR = "blur"
    BIAS = "bias"
    DISTORTION = "distortion"
    SPIKE = "spike"
    WRAP = "wrap"
    COVERAGE = "coverage"


CONCEPTS = tuple(Concept)
"""The order of the concepts wherever they are numbers."""
