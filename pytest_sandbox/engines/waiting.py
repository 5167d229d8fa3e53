"""What a call to an engine is at, told to people while it is stuck. Calls run in threads; who waits is in the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NOTICE_SECONDS = 10.0  # of one request; told again after twice as long, and so on

_here = threading.local()  # `operation`: what the thread works for


class Operation:
    """One or several requests, of which one is under way.

    call, subject: of that request, or of the whole before the first; kept when the thread is given up.
    """

    def __init__(self, call: str, subject: str) -> None:
        self.call, self.subject = call, subject
        self._began = time.monotonic()

    def serve(self) -> None:
        """Let requests of this thread be this operation's."""
        _here.operation = self

    @contextmanager
    def told(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Tell when a request takes long, for as long as the block lasts; in an event loop."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(NOTICE_SECONDS, lambda: look(NOTICE_SECONDS))
        told: float | None = None  # when the request began that was told of

        def look(patience: float) -> None:
            nonlocal timer, told
            waited = time.monotonic() - self._began
            if told != self._began:
                patience = NOTICE_SECONDS
            if waited >= patience:
                tell(f"waiting for the engine's `{self.call}` of {self.subject} for {waited:.0f} s")
                told, patience = self._began, 2 * waited
            timer = loop.call_later(patience - waited, lambda: look(patience))

        try:
            yield
        finally:
            timer.cancel()

    @property
    def is_stuck(self) -> bool:
        """Whether the request under way has had no answer for long."""
        return time.monotonic() - self._began >= NOTICE_SECONDS

    def begin(self, call: str, subject: str) -> None:
        self.call, self.subject, self._began = call, subject, time.monotonic()


def begin(call: str, subject: str) -> None:
    """Say what request this thread makes now."""
    operation: Operation | None = getattr(_here, "operation", None)
    if operation is not None:
        operation.begin(call, subject)
