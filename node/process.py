"""Entry point of the supervisor's child processes: ``python -m node.process receiver|indexer|worker|web --slot NAME``.

Each process reads the same settings (PACSGATE_CONFIG and PACSGATE_... variables), ends on SIGTERM after finishing
what it is doing, and ends by itself when the supervisor is gone.
"""

import argparse
import os
import signal
import sys
import threading

import structlog

from node import audit, telemetry
from node.live_settings import LiveSettings, settings_at_start
from node.log import configure_logging
from node.settings import Settings
from node.signals import stop_on

log = structlog.get_logger()


def main() -> None:
    """Run one process until SIGTERM or until the supervisor's end of our standard input closes."""
    parser = argparse.ArgumentParser(prog="node.process")
    parser.add_argument("kind", choices=sorted(RUNNERS))
    parser.add_argument("--slot", required=True)
    arguments = parser.parse_args()
    configure_logging(arguments.slot)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    stop = stop_on({signal.SIGTERM})
    threading.Thread(target=_watch_supervisor, args=(stop,), daemon=True, name="supervisor-watch").start()
    code = 0
    try:
        settings = settings_at_start()
        telemetry.start(
            settings.data_dir,
            arguments.slot,
            (peer.ae_title for peer in settings.peers),
            (destination.name for destination in settings.destinations),
        )
        with audit.running(settings, arguments.slot):
            RUNNERS[arguments.kind](settings, arguments.slot, stop)
    except Exception:
        log.exception("process.failed")
        code = 1
    # Not by returning: the interpreter would wait for threads of the job engine that a dead database holds up for ever,
    # and with them for the data directory's lock. What they had not finished is taken up at the next start.
    sys.stderr.flush()
    os._exit(code)


def _watch_supervisor(stop: threading.Event) -> None:
    """Standard input is a pipe the supervisor holds open: its end means the supervisor is gone, even by kill -9."""
    os.read(sys.stdin.fileno(), 1)
    stop.set()


def _run_receiver(settings: Settings, slot: str, stop: threading.Event) -> None:
    from node.dimse.association import AssociationLimits
    from node.dimse.server import ReceiverOptions, run_receiver
    from node.heartbeat import Heartbeat, identify
    from node.objects import open_objects

    me = identify(settings, "receiver", slot)
    dicom, live = settings.dicom, LiveSettings.of_process(settings)
    options = ReceiverOptions(
        ae_title=dicom.ae_title,
        host=dicom.host,
        port=dicom.port,
        slot_name=me.slot,
        peers=lambda: live.current.peers,
        require_called_ae_title=dicom.require_called_ae_title,
        reuse_port=dicom.processes > 1,
        duplicates=settings.storage.duplicates,
        commitment=settings.commitment,
        host_name_lifetime_s=settings.association.host_name_lifetime_s,
        tls=settings.tls.model_copy(update={"host": settings.tls_host}) if settings.tls.enabled else None,
        limits=AssociationLimits(
            maximum_associations=dicom.maximum_associations,
            network_timeout_s=dicom.network_timeout_s,
            idle_timeout_s=settings.association.idle_timeout_s,
            minimum_free_bytes=settings.storage.minimum_free_bytes,
            recovered_free_bytes=settings.storage.recovered_free_bytes,
            maximum_associations_per_peer=settings.association.maximum_associations_per_peer,
            maximum_bytes_per_association=settings.association.maximum_bytes_per_association,
            transfer_audit_interval_s=settings.audit.transfer_interval_s,
        ),
    )
    with Heartbeat(settings, me, stop):
        run_receiver(options, settings.database_url, settings.data_dir, stop, open_objects(settings))


def _run_indexer(settings: Settings, slot: str, stop: threading.Event) -> None:
    from node.heartbeat import Heartbeat, identify
    from node.indexer import run_indexer

    with Heartbeat(settings, identify(settings, "indexer", slot), stop):
        run_indexer(settings, stop)


def _run_worker(settings: Settings, slot: str, stop: threading.Event) -> None:
    from node.heartbeat import Heartbeat, identify
    from node.workflow.worker import Worker

    me = identify(settings, "worker", slot, settings.worker.queues_of(slot))
    with Heartbeat(settings, me, stop) as heartbeat:
        Worker(LiveSettings.of_process(settings), me, heartbeat).run(stop)


def _run_web(settings: Settings, slot: str, stop: threading.Event) -> None:
    from node.heartbeat import Heartbeat, identify
    from node.web.server import run_web

    with Heartbeat(settings, identify(settings, "web", slot), stop):
        run_web(settings, stop)


RUNNERS = {"receiver": _run_receiver, "indexer": _run_indexer, "worker": _run_worker, "web": _run_web}


if __name__ == "__main__":
    main()
