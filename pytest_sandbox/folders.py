"""Where this user's runs keep what they need on this host. All of it is for this user only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from .errors import HostFolderUnusable

NAME = "pytest-sandbox"
PRIVATE = 0o700
PRIVATE_FILE = 0o600


def state_folder(*below: str) -> Path:
    """Make, and return, a folder for what runs know of each other; it is this host's own. Raises HostFolderUnusable."""
    return _made(platformdirs.user_state_path(NAME, appauthor=False), below)


def cache_folder(*below: str) -> Path:
    """Make, and return, a folder for what can be made again. Raises HostFolderUnusable."""
    return _made(platformdirs.user_cache_path(NAME, appauthor=False), below)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise HostFolderUnusable for what the system refuses in one of them."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # nothing of the system's: a lock that did not come free in time
        raise HostFolderUnusable(str(folder), str(error.strerror)) from error


def _made(folder: Path, below: tuple[str, ...]) -> Path:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)  # the mode is that of the innermost one alone
        for name in below:
            folder /= name
            folder.mkdir(exist_ok=True, mode=PRIVATE)
    return folder
