"""The commands that help to write [[peers]]; and what the configuration shows of secrets."""

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from node.dimse.user_identity import Passcodes
from tests.fixtures.certificates import Authority

Command = Callable[..., Result]


def test_a_passcode_becomes_a_line_of_configuration(pacsgate: Command, tmp_path: Path) -> None:
    line = pacsgate("peer", "passcode", "--passcode", "correct horse").stdout.strip()
    key, _, value = line.partition(" = ")
    assert key == "passcode_hash"
    assert Passcodes().confirm(value.strip('"'), b"correct horse")
    config = tmp_path / "pacsgate.toml"
    config.write_text(
        f"[[peers]]\nname = 'ws'\nae_title = 'WS'\nhost = '10.0.0.1'\nusername = 'bob'\n{line}\n"
        f"[[peers]]\nname = 'mr'\nae_title = 'MR'\nhost = '10.0.0.2'\n"
    )
    shown = pacsgate("config", "show", "--config", config, "--json").stdout
    assert [peer["passcode_hash"] for peer in json.loads(shown)["peers"]] == ["(set)", ""]
    assert "argon2" not in shown
    assert pacsgate("peer", "passcode", "--passcode", "").exit_code != 0


def test_a_certificate_becomes_lines_of_configuration(pacsgate: Command, tmp_path: Path) -> None:
    identity = Authority(tmp_path).issue("mr1.hospital.test")
    lines = pacsgate("peer", "certificate", identity.certificate).stdout.splitlines()
    assert lines == [
        "tls = true",
        f'certificate_sha256 = "{identity.fingerprint}"',
        'certificate_name = "mr1.hospital.test"',
    ]
    refused = pacsgate("peer", "certificate", tmp_path / "none.pem")
    assert refused.exit_code != 0
    assert "cannot be read" in refused.stderr


def test_the_doctor_looks_at_the_certificates(pacsgate: Command, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    config = tmp_path / "pacsgate.toml"

    def states(valid_days: int, mode: int = 0o600) -> list[str]:
        identity = authority.issue("node.hospital.test", valid_days=valid_days)
        identity.key.chmod(mode)
        config.write_text(
            f"[storage]\ndata_dir = '{tmp_path / 'data'}'\nminimum_free_bytes = 1\n[tls]\nport = 1\n"
            f"certificate = '{identity.certificate}'\nkey = '{identity.key}'\nca = '{authority.certificate}'\n"
        )
        checks = json.loads(pacsgate("doctor", "--config", config, "--json").stdout)
        return [check["state"] for check in checks if check["name"] == "TLS certificates"]

    assert states(200) == ["ok"]
    assert states(10) == ["warn"]
    assert states(200, 0o644) == ["fail"]
    # What every receiver would die of, again and again, `up` does not even start with.
    refused = pacsgate("up", "--config", config)
    assert refused.exit_code != 0
    assert "chmod 600" in refused.stderr
    assert not (tmp_path / "data").exists()
