"""Settings: file, environment, and refusals a PACS administrator understands."""

import re
from pathlib import Path

import pytest

from node.settings import ConfigurationError, DeliverySettings, ObjectKind, load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "pacsgate.toml"
    path.write_text(text)
    return path


def test_defaults_bind_to_loopback_only() -> None:
    settings = load_settings()
    assert (settings.dicom.ae_title, settings.dicom.port, settings.web.port) == ("PACSGATE", 11112, 8080)
    assert settings.dicom.host == settings.web.host == "127.0.0.1"
    assert settings.database_url.startswith("sqlite:///")
    assert settings.database_url != settings.engine_url


def test_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "[dicom]\nport = 104\nae_title = 'GATE'\n")
    monkeypatch.setenv("PACSGATE_DICOM__PORT", "10400")
    settings = load_settings(path)
    assert (settings.dicom.port, settings.dicom.ae_title) == (10400, "GATE")


def test_a_destination_receives_every_kind_of_result_unless_told() -> None:
    """Original images are forwarded only where somebody asks for them."""
    settings = load_settings(destinations=[{"name": "pacs", "ae_title": "PACS", "host": "pacs", "port": 104}])
    assert {*settings.destinations[0].receives, ObjectKind.ORIGINAL} == set(ObjectKind)
    assert ObjectKind.ORIGINAL not in settings.destinations[0].receives
    assert settings.destination("pacs") is settings.destinations[0]
    assert settings.destination("gone") is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[dicom]\nprot = 1", "dicom.prot"),
        ("[dicom]\nport = 70000", "dicom.port"),
        ("[dicom]\nae_title = 'SEVENTEEN LETTERS'", "dicom.ae_title"),
        ("[dicom]\nae_title = 'BACK\\\\SLASH'", "dicom.ae_title"),
        ("[dicom\n", "pacsgate.toml"),
        ("[dicom]\nhost = '0.0.0.0'", "[[peers]]"),
        ("[storage]\nobjects_url = 'ftp://bucket'", "objects_url"),
        ("[storage]\nobjects_url = 's3://key:secret@bucket'", "no credentials"),
        ("[storage]\nobjects_endpoint_url = 'http://127.0.0.1:9000'", "objects_endpoint_url"),
        ("[node]\nsilent_after_s = 10", "three heartbeat_interval_s"),
        ("[node]\nroles = ['worker']", "PostgreSQL"),
        ("[node]\nroles = ['scanner']", "node.roles"),
        ("[node]\nhost_name = '../etc'", "node.host_name"),
        ("[worker]\nqueues = []", "worker.queues"),
        ("[[destinations]]\nname = 'a/b'\nae_title = 'A'\nhost = 'h'\nport = 1", "destinations"),
        ("[[destinations]]\nname='a'\nae_title='A'\nhost='h'\nport=1\nreceives=['everything']", "receives"),
        (2 * "[[destinations]]\nname='a'\nae_title='A'\nhost='h'\nport=1\n", "share a name"),
        ("[[destinations]]\nname='a'\nae_title='A'\nhost='127.0.0.1'\nport=11112\n", "this node itself"),
        ("[[rules]]\nname='a'\ndestinations=['nowhere']", "no [[destinations]] entry is named nowhere"),
        ("[[rules]]\nname='a'\n", "rules.0.destinations"),
        (2 * "[[rules]]\nname='a'\ndestinations=[]\n", "share a name"),
        ("[[rules]]\nname='a'\ndestinations=[]\nwhen.modalty='MR'", "rules.0.when.modalty"),
        ("[[rules]]\nname='a'\ndestinations=[]\nwhen.verdict='good'", "rules.0.when.verdict"),
        ("[[rules]]\nname='a'\ndestinations=[]\nwhen.time_of_day='25:00-07:00'", "rules.0.when.time_of_day"),
        ("[[rules]]\nname='a'\ndestinations=[]\nwhen.modality=[]", "rules.0.when.modality"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        load_settings(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_settings(tmp_path / "none.toml")


def test_every_option_states_the_reason_of_its_default() -> None:
    settings = load_settings()
    for name in ("dicom", "association", "tls", "audit", "web", "storage", "node", "worker", "completion", "delivery"):
        for key, info in type(getattr(settings, name)).model_fields.items():
            assert info.description, f"{name}.{key}"


def test_the_last_delivery_attempt_comes_hours_after_the_first() -> None:
    """The reason given for max_attempts ("about twenty hours") is true."""
    from storage.deliveries import RetryPolicy

    options = DeliverySettings()  # type: ignore[call-arg]
    policy = RetryPolicy(options.first_retry_s, options.backoff_rate, options.max_attempts)
    waits = [policy.wait_s(attempt) for attempt in range(1, options.max_attempts)]
    assert 19 * 3600 < sum(waits) < 22 * 3600
    assert waits == sorted(waits)
    assert max(waits) <= 3600
