"""What counting costs the receive path, and what a scrape costs: microseconds per event, milliseconds per scrape.

.venv/bin/python -m benchmarks.telemetry [--events 200000]
"""

import argparse
import tempfile
import time
from pathlib import Path

from prometheus_client import generate_latest

from node import telemetry


def main() -> None:
    """Print both, with the memory-mapped files that a node's processes use."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="how many instances are counted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        telemetry.start(data_dir, "receiver-0", [f"SCANNER{n}" for n in range(20)], ["pacs", "archive"])
        started = time.process_time()
        for _ in range(arguments.events):
            telemetry.instance_received("SCANNER7", "stored", 0.003, 300_000)
        each_us = (time.process_time() - started) / arguments.events * 1e6
        print(f"one received instance: {each_us:.1f} us of processor time")
        started = time.perf_counter()
        text = generate_latest(telemetry.host_registry(data_dir))
        print(f"one scrape of one process: {(time.perf_counter() - started) * 1e3:.1f} ms, {len(text)} bytes")


if __name__ == "__main__":
    main()
