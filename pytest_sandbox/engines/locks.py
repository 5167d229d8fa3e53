"""Locks by which processes of this host know of each other: those of flock(2), which end with their holders."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..folders import PRIVATE_FILE, writing


def is_held(descriptor: int, by: int = fcntl.LOCK_EX) -> bool:
    """Say whether somebody holds a lock on an open file that excludes one `by` flock(2), and close it."""
    try:
        fcntl.flock(descriptor, by | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold a lock file in one of the user's folders. Raises filelock.Timeout, HostFolderUnusable."""
    import filelock  # takes a while, and heirs have no use for it

    lock = filelock.FileLock(path, timeout=seconds, mode=PRIVATE_FILE)
    with writing(path.parent):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
