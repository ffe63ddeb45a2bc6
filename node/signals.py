"""Ending on a signal, reliably.

A Python signal handler runs in the main thread, later, between two instructions. If that thread holds the very lock the
handler needs, the process stands still; if the kernel gives the signal to another thread (a numeric library's, say), a
main thread that waits without a timeout never runs it. So the handler does nothing, and the interpreter's C part, which
runs at once in whatever thread, wakes a thread of ours through a socket.
"""

import signal
import socket
import threading
from collections.abc import Iterable


def stop_on(signals: Iterable[signal.Signals]) -> threading.Event:
    """An event that is set once one of ``signals`` arrives. Call it once, in the main thread."""
    stop = threading.Event()
    awaited = frozenset(signals)
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    signal.set_wakeup_fd(sending.fileno())
    for number in awaited:
        signal.signal(number, _leave_it_to_the_watch)
    threading.Thread(target=_watch, args=(receiving, sending, awaited, stop), daemon=True, name="signal-watch").start()
    return stop


def _watch(
    receiving: socket.socket, _sending: socket.socket, awaited: frozenset[signal.Signals], stop: threading.Event
) -> None:
    """Read signal numbers for ever. The sending end is only held: the interpreter writes to it by its number."""
    while True:
        if receiving.recv(1)[0] in awaited:
            stop.set()


def _leave_it_to_the_watch(_number: int, _frame: object) -> None:
    """A handler there must be: the default one would end the process."""
