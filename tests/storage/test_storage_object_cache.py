"""The cache of local copies: bounded, the least recently used go first, what is in use stays."""

import os
import time
from pathlib import Path

from storage.object_cache import IN_USE_S, ObjectCache


def _add(cache: ObjectCache, name: str, size_bytes: int, idle_s: float) -> None:
    with cache.new_file() as path:
        path.write_bytes(bytes(size_bytes))
        cache.add(path, name)
    used_at = time.time() - idle_s
    os.utime(cache.root / name, (used_at, used_at))


def _names(cache: ObjectCache) -> set[str]:
    return {path.name for path in cache.root.iterdir()}


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 1000)
    for idle_s, name in ((4000, "oldest"), (3000, "old"), (2000, "young")):
        _add(cache, name, 10, idle_s)
    cache.find("oldest")
    (tmp_path / "big").write_bytes(bytes(985))
    os.utime(tmp_path / "big", (time.time() - 1000,) * 2)
    assert cache.cut_back() == 20
    assert _names(cache) == {"oldest", "big"}


def test_what_is_in_use_stays_though_the_limit_is_passed(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 100)
    _add(cache, "idle", 80, IN_USE_S + 60)
    for number in range(3):
        _add(cache, f"busy-{number}", 80, IN_USE_S - 60)
    cache.cut_back()
    assert _names(cache) == {"busy-0", "busy-1", "busy-2"}


def test_it_is_cut_back_while_it_is_filled(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 1000)
    for number in range(40):
        _add(cache, f"copy-{number:02}", 100, 4000 - number)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1100
    assert "copy-39" in _names(cache)


def test_an_abandoned_file_leaves_nothing_and_a_crash_is_swept(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 1000)
    with cache.new_file() as path:
        path.write_bytes(b"half")
    assert _names(cache) == set()
    (tmp_path / "orphan.part").write_bytes(b"half")
    assert cache.sweep_temporary(3600) == 0
    assert cache.sweep_temporary(0) == 1
    assert _names(cache) == set()
