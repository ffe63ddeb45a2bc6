"""Files named on the command line."""

from collections.abc import Iterable, Iterator
from pathlib import Path


def files_under(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file given or below a folder given, in sorted order within each folder."""
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file())
        else:
            yield path
