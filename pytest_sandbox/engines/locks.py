"""Locks by which processes of this host know of each other: those of flock(2), which end with their holders."""

from __future__ import annotations

import fcntl
import os


def is_held(descriptor: int) -> bool:
    """Say whether somebody holds a lock on an open file, and close that."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
