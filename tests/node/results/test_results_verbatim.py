"""The switch of pydicom's value validation: off inside, back on outside, whatever other threads do."""

import threading

import pytest
from pydicom import Dataset, config

from node.results.verbatim import verbatim


def test_an_overlong_identity_passes_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "_reading_validation_mode", config.RAISE)
    monkeypatch.setattr(config.settings, "_writing_validation_mode", config.RAISE)
    with verbatim():
        Dataset().PatientID = "X" * 80
    with pytest.raises(ValueError, match="exceeds the maximum length"):
        Dataset().PatientID = "X" * 80


def test_threads_leave_validation_as_they_found_it() -> None:
    before = config.settings.writing_validation_mode
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with verbatim():
            inside.set()
            leave.wait(5)

    def second() -> None:
        with verbatim():
            pass

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(5)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join(5)
    assert config.settings.writing_validation_mode == before
