"""Structured logs to stderr: events with UIDs, one JSON object per line, never a patient's name."""

import logging
import sys

import structlog


def configure_logging(process: str, *, pretty: bool = False) -> None:
    """Set up logging of this process. ``pretty`` is for people at a terminal, JSON lines for everybody else.

    Args:
        process: which process speaks (receiver-0, worker, web, cli); part of every line.
        pretty: coloured columns instead of JSON.
    """
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # Libraries speak through the standard logging: warnings only, and never the values of data elements.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    logging.getLogger("highdicom").setLevel(logging.ERROR)
