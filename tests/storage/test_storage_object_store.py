"""One contract for every kind of object store: local files, and a bucket at an S3 server (moto's)."""

import hashlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import IntegrityError, InvalidDigest, ObjectMissing, ObjectStoreUnavailable
from storage.object_store import ObjectStorage, open_object_store
from storage.object_store_cloud import CloudObjectStore
from storage.objects import ObjectStore
from tests.fixtures.dcmtk import free_port
from tests.fixtures.s3 import BUCKET, CREDENTIALS, s3_server

ABSENT = "0" * 64
GIGABYTE = 10**9


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    os.environ.update(CREDENTIALS)
    with s3_server(tmp_path_factory.mktemp("s3") / "log", free_port()) as url:
        yield url
    for name in CREDENTIALS:
        del os.environ[name]


@pytest.fixture
def cloud(s3_url: str, tmp_path: Path) -> CloudObjectStore:
    return CloudObjectStore(f"s3://{BUCKET}/{uuid4().hex}", tmp_path / "cache", s3_url)


@pytest.fixture(params=["local", "cloud"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStorage:
    if request.param == "local":
        return ObjectStore(tmp_path / "objects")
    chosen: CloudObjectStore = request.getfixturevalue("cloud")
    return chosen


def _damage(cloud: CloudObjectStore, digest: str) -> None:
    obstore.put(cloud._store, f"{digest[:2]}/{digest}", b"damaged")


class TestContract:
    """The same for every kind."""

    def test_put_then_read(self, store: ObjectStorage) -> None:
        stored = store.put(b"image")
        assert (stored.digest, stored.size_bytes) == (hashlib.sha256(b"image").hexdigest(), 5)
        assert store.contains(stored.digest)
        assert store.read(stored.digest) == b"image"
        with store.open(stored.digest) as file:
            assert file.read() == b"image"
        store.verify(stored.digest)
        assert store.path(stored.digest).read_bytes() == store.verified_path(stored.digest).read_bytes() == b"image"

    def test_adopting_moves_the_file_and_is_idempotent(self, store: ObjectStorage, tmp_path: Path) -> None:
        digests = set()
        for _ in range(2):
            path = tmp_path / "received"
            path.write_bytes(b"image")
            digests.add(store.adopt(path).digest)
            assert not path.exists()
        (digest,) = digests
        assert store.read(digest) == b"image"

    def test_keeping_leaves_the_file_and_is_idempotent(self, store: ObjectStorage, tmp_path: Path) -> None:
        digest = hashlib.sha256(b"image").hexdigest()
        path = tmp_path / "received"
        path.write_bytes(b"image")
        for _ in range(2):
            store.keep(path, digest)
            assert path.read_bytes() == b"image"
        path.unlink()
        assert store.contains(digest)
        assert store.read(digest) == b"image"

    def test_a_missing_object_is_named(self, store: ObjectStorage) -> None:
        assert not store.contains(ABSENT)
        for look in (store.read, store.verify, store.open, store.verified_path):
            with pytest.raises(ObjectMissing, match=ABSENT):
                look(ABSENT)

    def test_nothing_but_a_digest_is_a_name(self, store: ObjectStorage) -> None:
        for name in ("", "../../etc/passwd", "A" * 64, "0" * 63, f"{ABSENT}\n"):
            for look in (store.path, store.contains, store.read, store.verified_path):
                with pytest.raises(InvalidDigest):
                    look(name)


class TestCloud:
    """What only a bucket has: a server that can be away, copies that can be stale."""

    def test_a_second_host_reads_what_the_first_has_stored(
        self, cloud: CloudObjectStore, s3_url: str, tmp_path: Path
    ) -> None:
        digest = cloud.put(b"image").digest
        assert CloudObjectStore(cloud._name, tmp_path / "other", s3_url).read(digest) == b"image"

    def test_an_object_larger_than_a_part_travels_in_parts(
        self, cloud: CloudObjectStore, s3_url: str, tmp_path: Path
    ) -> None:
        data = os.urandom(20_000_001)
        path = tmp_path / "large"
        path.write_bytes(data)
        digest = cloud.adopt(path).digest
        other = CloudObjectStore(cloud._name, tmp_path / "other", s3_url)
        assert other.path(digest).read_bytes() == data

    def test_damage_in_the_bucket_is_found_and_no_copy_kept(self, cloud: CloudObjectStore) -> None:
        digest = cloud.put(b"image").digest
        _damage(cloud, digest)
        for look in (cloud.read, cloud.verify, cloud.path, cloud.open):
            with pytest.raises(IntegrityError, match=digest):
                look(digest)
        assert list(cloud._cache.root.iterdir()) == []
        cloud.put(b"image")
        assert cloud.read(digest) == b"image"

    def test_a_damaged_copy_is_fetched_anew(self, cloud: CloudObjectStore) -> None:
        digest = cloud.put(b"image").digest
        cloud.path(digest).write_bytes(b"damaged")
        assert cloud.read(digest) == b"image"

    def test_a_copy_serves_while_the_server_is_away(self, cloud: CloudObjectStore, tmp_path: Path) -> None:
        digest = cloud.put(b"image").digest
        cloud.verify(digest)
        away = CloudObjectStore(cloud._name, tmp_path / "cache", f"http://127.0.0.1:{free_port()}")
        assert away.read(digest) == b"image"

    @pytest.mark.slow
    def test_a_server_that_is_away_is_reported_in_time_and_the_file_is_left(self, tmp_path: Path) -> None:
        os.environ.update(CREDENTIALS)
        away = CloudObjectStore(f"s3://{BUCKET}/x", tmp_path / "cache", f"http://127.0.0.1:{free_port()}")
        path = tmp_path / "received"
        path.write_bytes(b"image")
        begun = time.monotonic()
        with pytest.raises(ObjectStoreUnavailable, match=f"s3://{BUCKET}/x"):
            away.adopt(path)
        assert time.monotonic() - begun < 45
        assert path.read_bytes() == b"image"

    def test_a_missing_bucket_is_reported(self, s3_url: str, tmp_path: Path) -> None:
        store = CloudObjectStore("s3://no-such-bucket", tmp_path / "cache", s3_url)
        with pytest.raises(ObjectStoreUnavailable, match="no such bucket"):
            store.put(b"image")

    def test_memory_is_bounded(self, cloud: CloudObjectStore, s3_url: str, tmp_path: Path) -> None:
        """150 MB there and back in a process of its own cost some tens of MB."""
        program = (
            "import sys, resource; from pathlib import Path; from storage.object_store_cloud import CloudObjectStore\n"
            "url, s3_url, folder = sys.argv[1:]; folder = Path(folder)\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "store = CloudObjectStore(url, folder / 'first', s3_url); store.put(b'warm'); before = peak()\n"
            "digest = store.adopt(folder / 'large').digest\n"
            "CloudObjectStore(url, folder / 'second', s3_url).verify(digest); print(peak() - before)\n"
        )
        with (tmp_path / "large").open("wb") as file:
            for number in range(150):
                file.write(number.to_bytes(2) * 500_000)
        command = [sys.executable, "-c", program, cloud._name, s3_url, str(tmp_path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stderr
        assert int(run.stdout) * resource.getpagesize() / 4096 < 100_000, "kB"


def test_the_configuration_chooses_the_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    local = open_object_store("", tmp_path, "", GIGABYTE)
    assert isinstance(local, ObjectStore)
    assert local.root == tmp_path / "objects"
    for url in ("s3://bucket/prefix", "gs://bucket", "az://container"):
        assert isinstance(open_object_store(url, tmp_path, "", GIGABYTE), CloudObjectStore)
    with pytest.raises(ObjectStoreUnavailable, match="nonsense"):
        open_object_store("nonsense://bucket", tmp_path, "", GIGABYTE)


@given(name=st.text(max_size=80))
def test_no_received_string_ever_names_an_object(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    store = CloudObjectStore("s3://bucket", tmp_path_factory.getbasetemp() / "names", "http://127.0.0.1:1")
    with pytest.raises(InvalidDigest):
        store.path(name)
