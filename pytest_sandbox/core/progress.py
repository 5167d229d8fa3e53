"""What a long transfer is at, for whoever watches: nothing of one that is small or soon over."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..models import MEBIBYTE

LARGE = 8 * MEBIBYTE  # bytes from which on the clock is looked at
PATIENCE = 1.0  # seconds that may pass in silence
INTERVAL = 0.2  # seconds from one line to the next


class Transfer:
    """Bytes on their way, as a context: `uploading model.bin: 120 of 512 MiB`, and an empty line at the end.

    tell: takes a line in place of the last one. total: bytes, None if that is not known.
    """

    def __init__(self, tell: Callable[[str], None], what: str, total: int | None = None) -> None:
        self._tell = tell
        self._what = what
        self._of = "" if total is None else f" of {total // MEBIBYTE}"
        self._done = 0
        self._told = False
        self._next = time.monotonic() + PATIENCE

    def count(self, size: int) -> None:
        self._done += size
        if self._done < LARGE or (now := time.monotonic()) < self._next:
            return
        self._next, self._told = now + INTERVAL, True
        # A name may be a sandbox's, and what it does to a terminal is not to be found out here.
        what = "".join(character if character.isprintable() else "?" for character in self._what)
        self._tell(f"{what}: {self._done // MEBIBYTE}{self._of} MiB")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._told:
            self._tell("")
