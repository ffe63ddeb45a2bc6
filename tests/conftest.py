"""Fixtures every room shares."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.fixtures.databases", "tests.fixtures.folders", "tests.fixtures.studies"]

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(os.environ.get("PACSGATE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow suites first, so that parallel runs end together; real-data tests skipped where the data is absent."""
    items.sort(key=lambda item: "slow" not in item.keywords)
    if SHARED_DATA.is_dir():
        return
    if os.environ.get("CI") and (REPOSITORY.parent / "shared" / "data").is_dir():
        raise pytest.UsageError(f"real scanner data is at hand but not at {SHARED_DATA}: its tests must run in CI")
    absent = pytest.mark.skip(reason=f"real scanner data not found at {SHARED_DATA} (set PACSGATE_SHARED_DATA)")
    for item in items:
        if "real_data" in item.keywords:
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scanner data. Tests that use it carry the marker ``real_data``."""
    return SHARED_DATA
