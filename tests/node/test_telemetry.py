"""Counting in several processes at once: added up, kept over restarts, with labels nobody outside can make."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from node import telemetry

PROGRAM = """
import sys
from pathlib import Path
from node import telemetry
telemetry.start(Path(sys.argv[1]), sys.argv[2], ["MR1"], ["pacs"])
for line in sys.stdin:
    exec(line)
"""


def _process(data_dir: Path, slot: str, *events: str) -> None:
    """A process of that slot in which these events happen; it dies without saying goodbye."""
    lines = "\n".join([*events, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data_dir), slot], input=lines, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr


def scraped(data_dir: Path) -> dict[tuple[str, frozenset[Any]], float]:
    """Sample name and labels -> value."""
    text = generate_latest(telemetry.host_registry(data_dir)).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def _value(samples: dict[tuple[str, frozenset[Any]], float], name: str, **labels: str) -> float:
    return samples[(name, frozenset(labels.items()))]


def test_processes_are_added_up_and_a_restarted_one_counts_on(tmp_path: Path) -> None:
    event = 'telemetry.instance_received("MR1", "stored", 0.003, 300_000)'
    _process(tmp_path, "receiver-0", event, event)
    _process(tmp_path, "receiver-1", event, 'telemetry.instance_received("MR1", "duplicate", 0.2, 300_000)')
    _process(tmp_path, "receiver-0", event)
    _process(tmp_path, "worker-0", 'telemetry.step_ended("study.assess", 3.0, failed=True)')
    samples = scraped(tmp_path)
    assert _value(samples, "pacsgate_instances_received_total", peer="MR1", outcome="stored") == 4
    assert _value(samples, "pacsgate_instances_received_total", peer="MR1", outcome="duplicate") == 1
    assert _value(samples, "pacsgate_receive_seconds_bucket", le="0.005") == 4
    assert _value(samples, "pacsgate_receive_seconds_count") == 5
    assert _value(samples, "pacsgate_receive_bytes_sum") == 1_500_000
    assert _value(samples, "pacsgate_step_seconds_count", step="study.assess", outcome="failed") == 1
    assert len(list((tmp_path / "metrics").glob("*.db"))) == 6
    telemetry.clear(tmp_path)
    assert scraped(tmp_path) == {}


def test_what_has_not_happened_is_zero_and_not_absent(tmp_path: Path) -> None:
    _process(tmp_path, "receiver-0")
    samples = scraped(tmp_path)
    assert _value(samples, "pacsgate_instances_refused_total", peer="MR1", status="0xA700") == 0
    assert _value(samples, "pacsgate_delivery_attempts_total", destination="pacs", outcome="given-up") == 0
    assert _value(samples, "pacsgate_associations_rejected_total", reason="calling-ae-title") == 0
    assert _value(samples, "pacsgate_audit_messages_dropped_total") == 0


def test_nobody_outside_makes_a_label(tmp_path: Path) -> None:
    """Ten thousand callers, statuses and reasons are still one time series each."""
    _process(tmp_path, "receiver-0")
    before = scraped(tmp_path).keys()
    _process(
        tmp_path,
        "receiver-0",
        'for n in range(10_000): telemetry.association_accepted(f"AE{n}"), telemetry.instance_refused(f"AE{n}", n)',
        'for n in range(10_000): telemetry.instance_received(f"Doe^{n}", f"Doe^{n}", 0.1, 1)',
        'for n in range(1000): telemetry.association_rejected(n, n, n), telemetry.connection_refused(f"Doe{n}")',
        'for n in range(1000): telemetry.delivery_attempted(f"Doe{n}", "retry"), telemetry.object_delivered("Doe", 1)',
    )
    samples = scraped(tmp_path)
    added = {dict(labels).get("outcome", "") + dict(labels).get("status", "") for _, labels in samples.keys() - before}
    assert added <= {"other", "retry", ""}
    assert not [labels for _, labels in samples if any("Doe" in value or "AE" in value for _, value in labels)]
    assert _value(samples, "pacsgate_associations_accepted_total", peer="other") == 10_000
    assert _value(samples, "pacsgate_instances_received_total", peer="other", outcome="other") == 10_000


def test_a_full_disk_costs_the_metrics_and_not_the_process(tmp_path: Path) -> None:
    """Room is taken at the start: a memory-mapped file that grows on a full disk ends its process."""
    program = f"""
import os, errno
from pathlib import Path
def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
os.posix_fallocate = full
from node import telemetry
telemetry.start(Path({str(tmp_path)!r}), "receiver-0", ["MR1"])
telemetry.instance_received("MR1", "stored", 0.1, 1)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "alive" in done.stdout
    assert "metrics.unavailable" in done.stdout + done.stderr


def test_all_time_series_of_a_large_site_have_room(tmp_path: Path) -> None:
    """A hundred peers and fifty destinations stay within the room that was taken."""
    program = f"""
from pathlib import Path
from node import telemetry
telemetry.start(Path({str(tmp_path)!r}), "w", [f"SCANNER{{n}}" for n in range(100)], [f"pacs{{n}}" for n in range(50)])
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert {path.stat().st_size for path in (tmp_path / "metrics").glob("*.db")} == {telemetry.FILE_BYTES}


@pytest.mark.parametrize("damage", [b"", b"\xff" * 100])
def test_a_file_a_crash_cut_short_is_made_anew(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_receiver-0.db").write_bytes(damage)
    _process(tmp_path, "receiver-0", 'telemetry.association_accepted("MR1")')
    assert _value(scraped(tmp_path), "pacsgate_associations_accepted_total", peer="MR1") == 1
