"""The list of image metrics: what each means, its UCUM unit, and why it may be absent.

The order is that of the features of a learned model, and METRICS_VERSION the identity of all formulas together: a value
measured under one version must not be compared with a threshold or model made under another.
"""

from collections.abc import Mapping
from dataclasses import dataclass

METRICS_VERSION = "2"
"""Raised whenever any formula, constant, unit or the order changes."""

ARBITRARY = "[arb'U]"
RATIO = "1"


@dataclass(frozen=True)
class Definition:
    """What a metric is: UCUM unit, meaning, and the reason given where it cannot be computed."""

    unit: str
    meaning: str
    absent: str


_LITTLE_TISSUE = "too little tissue"
_NO_NOISE = "no noise or too little tissue"
_NO_PHASE = "phase direction unknown or image too small"
_FLAT = "flat image"

IMAGE_DEFINITIONS: Mapping[str, Definition] = {
    "noise_sigma": Definition(ARBITRARY, "Noise SD from the finest Haar detail of the central box", _LITTLE_TISSUE),
    "signal": Definition(ARBITRARY, "Median tissue signal of the central box", _LITTLE_TISSUE),
    "snr": Definition(RATIO, "Signal over noise SD, corrected for the Rician floor of white noise", _NO_NOISE),
    "structure_to_noise": Definition(
        RATIO, "5th to 95th percentile range of the smoothed central box over noise SD", _NO_NOISE
    ),
    "cnr": Definition(RATIO, "Difference of the two Otsu tissue classes over noise SD", _NO_NOISE),
    "laplacian_to_haar_noise": Definition(RATIO, "Noise SD by Immerkaer's mask over that by Haar detail", _NO_NOISE),
    "haar_kurtosis": Definition(RATIO, "Kurtosis of the finest Haar detail, 3 for noise", _FLAT),
    "edge_width": Definition(
        "mm", "Full width at half maximum of the blur of step edges", "gradients are noise or none"
    ),
    "perceptual_blur": Definition(RATIO, "Crete's blur of the blurrier axis, 0 sharp to 1", _FLAT),
    "perceptual_blur_difference": Definition(RATIO, "Crete's blur along phase less that along frequency", _NO_PHASE),
    "high_frequency_share": Definition(RATIO, "Share of power above half the Nyquist frequency", _FLAT),
    "spectral_slope": Definition(RATIO, "Exponent of the radial fall-off of power, 0 for noise", _FLAT),
    "spectral_anisotropy": Definition(RATIO, "Log ratio of high-frequency power, phase over frequency", _NO_PHASE),
    "mscn_shape": Definition(RATIO, "Generalised Gaussian exponent of local contrast, 2 Gaussian", _FLAT),
    "mscn_variance": Definition(RATIO, "Variance of local contrast", _FLAT),
    "mscn_product_asymmetry": Definition(RATIO, "Asymmetry of products of neighbours, 0 for noise", _FLAT),
    "gradient_concentration": Definition(RATIO, "RMS over mean gradient, 1.13 for noise", _FLAT),
    "gradient_entropy": Definition(RATIO, "Entropy of the gradient magnitude, 0 to 1", _FLAT),
    "phase_correlation_ratio": Definition(RATIO, "Long-range autocorrelation along phase over frequency", _NO_PHASE),
    "ghost_prominence": Definition(
        RATIO, "Sharpest autocorrelation peak along phase less that along frequency", _NO_PHASE
    ),
    "nyquist_ghost": Definition(
        RATIO, "Autocorrelation peak at half the field of view, phase less frequency", _NO_PHASE
    ),
    "wrap_continuity": Definition(
        RATIO, "Correlation across the seam of the phase borders less the frequency borders", _NO_PHASE
    ),
    "spike_ratio": Definition(
        RATIO, "Largest k-space amplitude over its surroundings", "flat image or image too small"
    ),
    "zipper_ratio": Definition(RATIO, "Roughest row or column over its neighbours", "most lines are empty"),
    "entropy_focus": Definition(RATIO, "Entropy focus criterion, 0 focused to 1 spread", "empty image"),
    "bias_field_range": Definition(RATIO, "95th over 5th percentile of a second-order field", _LITTLE_TISSUE),
    "hot_spot_ratio": Definition(RATIO, "99.5th percentile of slice over that of its central box", "empty centre"),
    "void_fraction": Definition(RATIO, "Share of the central box darker than tissue", "empty image"),
    "clipped_fraction": Definition(RATIO, "Share of tissue pixels at the volume's highest value", "empty image"),
    "valid_fraction": Definition(RATIO, "Share of the central box that is not zero, 0 if constant", "empty image"),
}
"""Metrics of one image, which need no neighbour."""

DEFINITIONS: Mapping[str, Definition] = {
    **IMAGE_DEFINITIONS,
    "signal_drop": Definition(RATIO, "Log drop of a slice's signal below its weaker neighbour", _LITTLE_TISSUE),
}
"""Metrics that every slice of a stack has; a volume has their medians (MAXIMUM_METRICS: their maxima)."""

METRIC_NAMES: tuple[str, ...] = tuple(IMAGE_DEFINITIONS)
"""Names of the metrics of one image in their stable order, which is the order of features."""

MAXIMUM_METRICS = frozenset({"signal_drop", "clipped_fraction"})
