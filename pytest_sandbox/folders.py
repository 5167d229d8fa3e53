"""Where this user's runs keep what they need on this host. All of it is for this user only."""

from __future__ import annotations

from pathlib import Path

import platformdirs

NAME = "pytest-sandbox"
PRIVATE = 0o700
PRIVATE_FILE = 0o600


def state_folder(*below: str) -> Path:
    """Make, and return, a folder for what runs know of each other; it is this host's own."""
    return _made(platformdirs.user_state_path(NAME, appauthor=False), below)


def cache_folder(*below: str) -> Path:
    """Make, and return, a folder for what can be made again."""
    return _made(platformdirs.user_cache_path(NAME, appauthor=False), below)


def _made(folder: Path, below: tuple[str, ...]) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)  # the mode is that of the innermost one alone
    for name in below:
        folder /= name
        folder.mkdir(exist_ok=True, mode=PRIVATE)
    return folder
