"""The web process: uvicorn around the application, ended by the supervisor's stop event."""

import threading

import uvicorn

from node.settings import Settings
from node.web.app import create_app


def run_web(settings: Settings, stop: threading.Event) -> None:
    """Serve HTTP until ``stop`` is set."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.web.host,
            port=settings.web.port,
            log_level="warning",
            access_log=False,
            server_header=False,
        )
    )
    threading.Thread(target=_end_with, args=(stop, server), daemon=True, name="stop-watch").start()
    server.run()


def _end_with(stop: threading.Event, server: uvicorn.Server) -> None:
    stop.wait()
    server.should_exit = True
