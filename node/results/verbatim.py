"""Writing identity as the scanner sent it, even where it is longer than its VR allows (PS3.5 6.2)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.config import disable_value_validation

_LOCK = threading.RLock()


@contextmanager
def verbatim() -> Iterator[None]:
    """Switch pydicom's value validation off for the block: it may raise, and its warnings carry patients' data.

    pydicom's switch is one for the whole process: without the lock, two threads leaving in the order they came would
    leave it off for good.
    """
    with _LOCK, disable_value_validation():
        yield
