"""What the heirs of tests do. Apart, and importing little, for an heir imports it when its owner has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write(path: str, subjects: Sequence[str]) -> None:
    Path(path).write_text("\n".join(subjects))
