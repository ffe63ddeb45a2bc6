"""Verification service (PS3.4 A): the answer to C-ECHO, by which a technician sees that the node is reachable."""

from typing import Final

import structlog
from pynetdicom.events import Event

_log = structlog.get_logger(__name__)

SUCCESS: Final = 0x0000


def on_c_echo(event: Event) -> int:
    """Handle evt.EVT_C_ECHO; an association that got this far may echo."""
    requestor = event.assoc.requestor
    _log.info("echo", calling_ae_title=requestor.ae_title, peer_address=requestor.address_info.address)
    return SUCCESS
