"""Files that hold what was learnt: they are used as they were made, or not at all."""

import hashlib
from pathlib import Path


class UnusableModel(Exception):
    """A model file that does not fit this version or is damaged; the message says which, what differs, what to do."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_version(path: Path, what: str, found: object, wanted: object) -> None:
    """Raise UnusableModel unless the version found in a file is the wanted one."""
    if found != wanted:
        raise UnusableModel(
            f"{path} was made with {what} version {found}, this installation has {wanted}: "
            "install the model that belongs to this release, or train it again"
        )
