"""``pacsgate doctor`` and the bucket: one that does not answer is named, local files need no check."""

from pathlib import Path

import pytest

from node.doctor import examine
from node.settings import load_settings
from storage import object_store_cloud
from tests.fixtures.dcmtk import free_port
from tests.fixtures.s3 import BUCKET, CREDENTIALS, s3_server


def check(tmp_path: Path, **storage: str) -> list[tuple[str, str]]:
    settings = load_settings(storage={"data_dir": tmp_path, **storage})
    return [(c.state, c.detail) for c in examine(settings) if c.name == "objects"]


def test_the_bucket_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store_cloud, "MAX_RETRIES", 1)
    assert check(tmp_path) == []
    url = f"s3://{BUCKET}/objects"
    with s3_server(tmp_path / "s3.log", free_port()) as endpoint:
        assert check(tmp_path, objects_url=url, objects_endpoint_url=endpoint) == [("ok", f"{url} answers")]
    ((state, detail),) = check(tmp_path, objects_url=url, objects_endpoint_url=endpoint)
    assert state == "fail"
    assert url in detail
