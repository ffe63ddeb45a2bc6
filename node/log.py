"""Structured logs to stderr: events with UIDs, one JSON object per line, never a patient's name."""

import logging
import sys
import warnings
from functools import partial

import structlog
from structlog.typing import EventDict


def configure_logging(process: str, level: int = logging.INFO) -> None:
    """Set up logging of this process.

    Args:
        process: which process speaks (supervisor, receiver-0, worker-0, web-0, cli); part of every line.
        level: lowest level that is written.
    """
    structlog.configure(
        processors=[
            partial(_with_process, process),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries put the values of data elements, patient names among them, into their warnings and log lines.
    warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_free_of_values)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _with_process(process: str, _logger: object, _method: str, event: EventDict) -> EventDict:
    """Name the process in every line, whichever of its threads speaks."""
    event["process"] = process
    return event


def _is_free_of_values(record: logging.LogRecord) -> bool:
    """Drop what DICOM libraries log; their errors reach us as exceptions.

    Not by the loggers' level: pydicom sets its own when it is imported, which may be after us.
    """
    return record.name.partition(".")[0] not in {"pydicom", "highdicom"}
