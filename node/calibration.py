"""The site's calibration of the quality score, as the configuration names it: read once by each process that judges.

Commands that only show it must start fast, so that image processing is imported where there is a calibration to read.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from node.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from ai.quality.calibration import Calibration


def calibration_of(settings: Settings) -> "Calibration | None":
    """The calibration in force; None where the shipped cut points are.

    Raises:
        ConfigurationError: the file is no calibration for this version; the message says what to do.
    """
    path = settings.quality.calibration
    if path is None:
        return None
    from ai.quality.calibration import Calibration, CalibrationError

    try:
        return Calibration.load(path)
    except CalibrationError as error:
        raise ConfigurationError(f"quality.calibration: {error}") from error


def calibration_in_words(settings: Settings) -> str:
    """What judges image quality, in a line. Raises ConfigurationError."""
    calibration = calibration_of(settings)
    return "the cut points as shipped" if calibration is None else str(calibration.stamp)


def calibration_document(settings: Settings) -> dict[str, Any] | None:
    """The stamp for JSON, None for the shipped cut points, or ``error``: for views that must not fail with the file."""
    try:
        calibration = calibration_of(settings)
    except ConfigurationError as error:
        return {"error": str(error)}
    return None if calibration is None else asdict(calibration.stamp)
