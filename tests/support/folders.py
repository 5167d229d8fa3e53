"""Folders of pytest's that other users have to get into."""

from __future__ import annotations

import tempfile
from pathlib import Path


def let_others_in(folder: Path) -> None:
    """Open a temporary folder, and those that pytest has made above it, to other users."""
    for each in (folder, *folder.parents):
        if Path(tempfile.gettempdir()) in each.parents:
            each.chmod(0o755)
