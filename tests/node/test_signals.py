"""A process ends on SIGTERM also when another thread gets the signal."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import threading, signal
{imports}
from node.signals import stop_on
threading.Thread(target=threading.Event().wait, daemon=True).start()
stop = stop_on({{signal.SIGTERM}})
print("waiting", flush=True)
stop.wait()
print("stopped", flush=True)
"""


@pytest.mark.parametrize("imports", ["", "import numpy", "import node.dimse.server"])
def test_sigterm_stops(imports: str) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(imports=imports)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[0] == "stopped\n"
        assert process.returncode == 0
