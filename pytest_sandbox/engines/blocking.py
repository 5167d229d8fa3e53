"""Blocking calls from coroutines, each in a thread that can be given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_thread(function: Callable[[], Result]) -> asyncio.Future[Result]:
    """Run `function` in a thread of its own, now, and return its future in the running loop.

    Not a ThreadPoolExecutor: the interpreter joins those threads at its exit, and one that waits for a hanging engine
    would keep pytest from ending. A daemon thread is just left behind. Starting one takes about 0.05 ms.
    How a call ends that was given up is nobody's business, and asyncio's to report neither.
    """
    outcome: Future[Result] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  # carried over to the coroutine, not handled
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=run, name="pytest-sandbox-engine", daemon=True).start()
    future = asyncio.wrap_future(outcome)
    future.add_done_callback(lambda future: future.cancelled() or future.exception())
    return future
