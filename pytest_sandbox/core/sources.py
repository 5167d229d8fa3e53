"""What a caller gives as input, as chunks of bytes; reading it never blocks the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable
from typing import BinaryIO, TypeVar

T = TypeVar("T")
CHUNK = 256 * 1024


async def in_thread(function: Callable[[], T]) -> T:
    """Run a call that may block for ever in a daemon thread of its own.

    Not asyncio.to_thread: a few blocked calls use up its workers, engine calls then wait behind them, and
    the interpreter does not exit before they return.
    """
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  # handed over, to be raised where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=work, name="pytest-sandbox source", daemon=True).start()
    return await asyncio.wrap_future(outcome)


async def chunks(source: bytes | str | BinaryIO) -> AsyncGenerator[bytes, None]:
    """Yield the source's bytes; text is encoded as UTF-8. A file's own errors pass through."""
    if isinstance(source, str):
        yield source.encode("utf-8", "surrogateescape")
    elif isinstance(source, bytes):
        yield source
    else:
        # read1 where there is one: a pipe's bytes go on as they come, not when a whole chunk is there.
        read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        while chunk := await in_thread(lambda: read(CHUNK)):
            if not isinstance(chunk, bytes):
                raise TypeError(f"input must be opened in binary mode; it gave {type(chunk).__name__}")
            yield chunk
