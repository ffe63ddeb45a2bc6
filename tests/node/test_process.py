"""A child process ends when it is asked to, whatever its threads still wait for."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading, time
import node.process

def run(settings, slot, stop):
    threading.Thread(target=time.sleep, args=(600,)).start()
    stop.wait()
    {ending}

node.process.RUNNERS["web"] = run
sys.argv = ["node.process", "web", "--slot", "web-0"]
node.process.main()
"""


@pytest.mark.parametrize(("ending", "code"), [("pass", 0), ("raise ValueError('broken')", 1)])
def test_it_ends_with_its_supervisor_though_a_thread_is_stuck(ending: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(ending=ending)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, log = process.communicate(timeout=30)  # closes standard input, as a supervisor does that is gone
    assert process.returncode == code
    assert ("process.failed" in log) == bool(code)
