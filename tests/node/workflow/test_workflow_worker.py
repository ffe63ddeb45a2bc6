"""A worker process as the supervisor starts it, with destinations in every condition at once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from sqlalchemy import select

from node.deliveries import destinations_of, last_configuration_change
from node.routing.route import results_again
from node.settings import load_settings
from storage.database import Database, sqlite_url
from storage.models import Delivery, Study, utc_now
from tests.fixtures.dcmtk import free_port, storescp
from tests.fixtures.scripted_pacs import black_hole

pytestmark = [pytest.mark.peers, pytest.mark.slow]

HEALTHY_WITHIN_S = 20.0
"""Far less than the black hole's time-out, with room for a busy machine."""


def entry(name: str, port: int, receives: str = '"quality-report", "lesion-report", "segmentation"') -> str:
    ae_title = "PACS" if name == "pacs" else name.upper()
    return (
        f'[[destinations]]\nname = "{name}"\nae_title = "{ae_title}"\nhost = "127.0.0.1"\nport = {port}\n'
        f"receives = [{receives}]\n"
    )


class Site:
    """A node's folder with a judged study, and its worker."""

    def __init__(self, data_dir: Path, config: Path, text: str) -> None:
        self.config = config
        self._head = f'[storage]\ndata_dir = "{data_dir}"\n[delivery]\ntimeout_s = 60\nfirst_retry_s = 1\n'
        self.write(text)
        self.database = Database(sqlite_url(data_dir / "index.db"))

    def write(self, text: str) -> None:
        new = self.config.with_suffix(".new")
        new.write_text(self._head + text)
        new.replace(self.config)

    def send_results(self) -> None:
        with self.database.session() as session:
            uid = session.scalars(select(Study.study_instance_uid)).one()
            results_again(session, load_settings(self.config), uid, utc_now())

    def states(self, destination: str) -> Counter[str]:
        with self.database.read() as session:
            return Counter(session.scalars(select(Delivery.state).where(Delivery.destination == destination)))

    def standing(self, destination: str) -> dict[str, Any]:
        with self.database.read() as session:
            found = destinations_of(session, load_settings(self.config))
        return next(item for item in found if item["name"] == destination)

    @contextmanager
    def worker(self) -> Iterator[None]:
        environment = dict(os.environ, PACSGATE_CONFIG=str(self.config))
        command = [sys.executable, "-m", "node.process", "worker", "--slot", "worker-0"]
        with self.config.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, stderr=log, stdout=log)
            try:
                yield
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.database.dispose()

    def wait(self, condition: Callable[[], bool], within_s: float, what: str) -> float:
        """Seconds until the condition holds."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > within_s:
                raise AssertionError(f"not within {within_s:g} s: {what}\n{self._log()}")
            time.sleep(0.1)
        return time.monotonic() - begun

    def _log(self) -> str:
        return self.config.with_suffix(".log").read_text()[-3000:]


@pytest.fixture
def data_dir(judged_data_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(judged_data_dir, tmp_path / "data"))


def test_a_dead_and_a_silent_pacs_hold_up_nobody(
    data_dir: Path, tmp_path: Path, simulated_files: list[Path], record_property: Callable[[str, object], None]
) -> None:
    """Results and received images reach the healthy one while one refuses and one never answers."""
    with storescp(tmp_path / "pacs") as pacs, black_hole() as silent_port:
        healthy = entry("pacs", pacs.port, '"quality-report", "lesion-report", "segmentation", "original"')
        site = Site(
            data_dir, tmp_path / "node.toml", healthy + entry("dead", free_port()) + entry("silent", silent_port)
        )
        site.send_results()
        expected = 3 + len(simulated_files)
        with site.worker():
            site.wait(lambda: site.standing("dead")["last_failure_at"] is not None, 60, "the worker is at work")
            taken_s = site.wait(
                lambda: site.states("pacs") == Counter(delivered=expected), HEALTHY_WITHIN_S, "all is delivered"
            )
            assert site.states("silent") == Counter(pending=3)
            assert site.standing("silent")["sending_since"] is not None, "it is still waiting for the silent one"
            assert site.standing("silent")["last_failure_at"] is None
            assert site.states("dead") == Counter(pending=3)
            record_property("seconds_to_deliver_everything", taken_s)
        arrived = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in pacs.files()}
        assert len(arrived) == expected
        for sent in simulated_files:
            original = pydicom.dcmread(sent)
            assert pydicom.dcmread(arrived[str(original.SOPInstanceUID)]) == original


def test_the_worker_follows_its_configuration_file(data_dir: Path, tmp_path: Path) -> None:
    """A PACS that moves: nothing is restarted, a slip of the pen changes nothing, and both are in the journal."""

    def change() -> dict[str, Any]:
        with site.database.read() as session:
            return last_configuration_change(session) or {"event": ""}

    with storescp(tmp_path / "pacs") as pacs:
        site = Site(data_dir, tmp_path / "node.toml", entry("pacs", free_port()))
        with site.worker():
            site.wait(lambda: site.standing("pacs")["last_failure_at"] is not None, 60, "the old place is tried")
            site.write('[[destinations]]\nname = "pacs"\n')
            site.wait(lambda: change()["event"] == "configuration-refused", 20, "the slip is refused")
            assert "destinations.0.ae_title" in change()["message"]
            site.write(entry("pacs", pacs.port))
            site.wait(lambda: change()["event"] == "configuration-reloaded", 20, "the new place is known")
            assert change()["rules_version"]
            site.wait(lambda: site.states("pacs") == Counter(delivered=3), 30, "delivered at the new place")
    assert len(pacs.files()) == 3
