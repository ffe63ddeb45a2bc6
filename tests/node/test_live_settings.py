"""Settings that follow their file: a valid change counts as a whole, an invalid one changes nothing and is said."""

import os
import threading
from pathlib import Path

import pytest

from node.live_settings import ACCEPTED_FILE, ConfigurationChange, LiveSettings, settings_at_start
from node.settings import ConfigurationError, load_settings

PACS = "[[destinations]]\nname = '{0}'\nae_title = 'PACS'\nhost = '10.0.0.1'\nport = 104\n"


class Site:
    """A configuration file somebody edits under a running process."""

    def __init__(self, folder: Path, text: str = "") -> None:
        self.path = folder / "pacsgate.toml"
        self.data_dir = folder / "data"
        self._head = f"[storage]\ndata_dir = '{self.data_dir}'\n"
        self.write(text)
        self.changes: list[ConfigurationChange] = []
        self.live = LiveSettings(load_settings(self.path), self.path, keep_accepted=True, poll_s=0, settle_s=0)
        self.live.on_change = self.changes.append

    def write(self, text: str, head: str | None = None) -> None:
        """As an editor does: a new file in the place of the old one."""
        new = self.path.with_suffix(".new")
        new.write_text((self._head if head is None else head) + text)
        new.replace(self.path)

    def names(self) -> list[str]:
        return [destination.name for destination in self.live.current.destinations]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, PACS.format("first"))


def test_a_valid_change_counts_from_the_next_question_on(site: Site) -> None:
    before = site.live.current
    site.write(PACS.format("first") + PACS.format("second") + "[delivery]\nmax_attempts = 3\n")
    assert site.names() == ["first", "second"]
    assert site.live.current.delivery.max_attempts == 3
    assert [d.name for d in before.destinations] == ["first"], "who took the settings keeps what it took"
    (change,) = site.changes
    assert not change.refused
    assert change.message == "in force now: destinations, delivery"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[destinations]\n", "pacsgate.toml"),
        ("[delivery]\nmax_attempts = 0\n", "delivery.max_attempts"),
        ("[[rules]]\nname = 'r'\ndestinations = ['nobody']\n", "no [[destinations]] entry is named nobody"),
        ("[completion]\nstudy_quiet_s = 1\nseries_quiet_s = 2\n", "study_quiet_s"),
        ("\x00", "pacsgate.toml"),
    ],
)
def test_an_invalid_file_changes_nothing_and_is_told_once(site: Site, text: str, reason: str) -> None:
    before = site.live.current
    site.write(text)
    for _ in range(3):
        assert site.live.current is before
    (change,) = site.changes
    assert change.refused
    assert reason in change.message
    site.write(PACS.format("mended"))
    assert site.names() == ["mended"]
    assert [change.refused for change in site.changes] == [True, False]


def test_a_file_that_is_gone_changes_nothing(site: Site) -> None:
    site.path.unlink()
    assert site.names() == ["first"]
    assert [change.refused for change in site.changes] == [True]
    site.write(PACS.format("back"))
    assert site.names() == ["back"]


def test_what_needs_a_restart_is_named_and_waits_for_it(site: Site) -> None:
    site.write(PACS.format("second") + "[dicom]\nport = 104\n[web]\nhost = '127.0.0.2'\n")
    assert site.live.current.dicom.port == 11112
    assert site.names() == ["second"], "the rest counts"
    assert site.changes[0].needs_restart == ("dicom.port", "web.host")
    assert "needs a restart: dicom.port, web.host" in site.changes[0].message


def test_no_half_of_a_change_opens_the_node(tmp_path: Path) -> None:
    """Without peers everybody may associate: sensible on loopback alone, which the running listener is not."""
    peer = "[[peers]]\nname = 'mr'\nae_title = 'MR'\nhost = '10.0.0.2'\n"
    site = Site(tmp_path, "[dicom]\nhost = '0.0.0.0'\n" + peer)
    site.write("[dicom]\nhost = '127.0.0.1'\n")  # valid by itself; the port stays open to all until the restart
    assert [p.name for p in site.live.current.peers] == ["mr"]
    assert site.changes[0].refused
    assert "[[peers]]" in site.changes[0].message


def test_touching_the_file_is_no_change(site: Site) -> None:
    os.utime(site.path, (1, 1))
    assert site.names() == ["first"]
    assert site.changes == []


def test_a_file_being_written_is_left_alone_for_a_moment(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS.format("first"))
    patient = LiveSettings(load_settings(site.path), site.path, poll_s=0, settle_s=3600)
    site.write(PACS.format("second"))
    assert [d.name for d in patient.current.destinations] == ["first"]


def test_the_environment_still_overrides(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSGATE_DELIVERY__MAX_ATTEMPTS", "7")
    site.write("[delivery]\nmax_attempts = 3\n")
    assert site.live.current.delivery.max_attempts == 7


def test_a_process_restarted_on_a_faulty_file_starts_with_the_last_accepted_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(PACS.format("second"))
    assert site.names() == ["second"]
    accepted = site.data_dir / ACCEPTED_FILE
    assert accepted.stat().st_mode & 0o777 == 0o600, "it may hold the database's password"
    site.write("[[nonsense")
    monkeypatch.setenv("PACSGATE_CONFIG", str(site.path))
    monkeypatch.setenv("PACSGATE_STORAGE__DATA_DIR", str(site.data_dir))
    assert [d.name for d in settings_at_start().destinations] == ["second"]
    accepted.unlink()
    with pytest.raises(ConfigurationError, match=r"pacsgate\.toml"):
        settings_at_start()


def test_without_a_file_nothing_changes() -> None:
    settings = load_settings()
    live = LiveSettings(settings)
    assert live.current is settings


def test_many_threads_see_one_change(site: Site) -> None:
    site.write(PACS.format("second"))
    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda: seen.append(site.names())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.changes) == 1
    assert {tuple(names) for names in seen} <= {("first",), ("second",)}
    assert site.names() == ["second"]
