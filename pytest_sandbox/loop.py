"""The owner loop: one event loop in one thread per process, in which everything of the core runs.

Sandboxes of any scope live in it, whatever loop or thread a test has. It starts on first use, and ends with the
interpreter.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
MISSED_SIGNAL_BOUND = 0.2  # seconds
EXIT_BOUND = 5.0  # seconds that clean-up in the loop may take when the interpreter ends


class _Call(Generic[T]):
    """One coroutine that a thread waits for."""

    def __init__(self, owner: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self._owner = owner
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        # A bare lock, held until the task is done: half the time of concurrent.futures.Future, whose cancel() does not
        # wait for the task's clean-up either.
        self._ended = threading.Lock()
        self._ended.acquire()
        self._over = False

    def result(self) -> T:
        __tracebackhide__ = True  # of an interruption who reads the report sees his own line
        try:
            self._owner.call_soon_threadsafe(self._begin)
            self._wait_until_ended()
        except BaseException:
            # Ctrl-C, or pytest-timeout's exception from a signal handler. What the coroutine has begun must be undone
            # before the caller goes on; a second one gives up waiting, but not the clean-up.
            self._owner.call_soon_threadsafe(self._cancel)
            self._wait_until_ended()
            raise
        assert self._task is not None
        return self._task.result()

    def _wait_until_ended(self) -> None:
        __tracebackhide__ = True
        # A signal that comes after the interpreter last looked and before the thread sleeps does not wake it: without
        # a bound that Ctrl-C would be seen when the command ends, which may be never. One may also come when the lock
        # has just been taken: then only the flag says that there is nothing left to wait for.
        while not self._over:
            self._ended.acquire(timeout=MISSED_SIGNAL_BOUND)

    def _begin(self) -> None:
        self._task = self._owner.create_task(self._coroutine)
        self._task.add_done_callback(lambda _: self._end())

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # interrupted before it was scheduled
            self._coroutine.close()
            self._end()

    def _end(self) -> None:
        self._over = True
        self._ended.release()


class OwnerLoop:
    """A running event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="pytest-sandbox", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop and wait for its result; callable from any other thread.

        Whatever interrupts the waiting cancels the coroutine, waits for its clean-up, and then goes on its way.
        """
        __tracebackhide__ = True
        if self.is_current_thread:
            coroutine.close()
            raise RuntimeError("a blocking call from inside the owner loop would wait for itself; await the coroutine")
        return _Call(self._loop, coroutine).result()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call it in the loop, from any thread; what is handed over first is called first."""
        self._loop.call_soon_threadsafe(callback)

    def create_task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Only from inside the loop."""
        return self._loop.create_task(coroutine)

    @property
    def is_current_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Cancel what runs, wait for its clean-up within a bound, and end the thread."""
        if self._thread.is_alive() and not self.is_current_thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(EXIT_BOUND)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=EXIT_BOUND))
        self._loop.close()


_owner: OwnerLoop | None = None
_owner_lock = threading.Lock()  # protects _owner against two threads that use it first


def owner() -> OwnerLoop:
    """Return this process's loop, starting it if need be."""
    global _owner
    with _owner_lock:
        if _owner is None:
            _owner = OwnerLoop()
            atexit.register(_owner.stop)
        return _owner


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the core in the owner loop and wait for its result. See OwnerLoop.run."""
    __tracebackhide__ = True
    return owner().run(coroutine)


async def cross(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await, in whatever loop, a coroutine of the core that runs in the owner loop.

    A cancellation cancels it there, waits for its clean-up, and then goes on its way.
    """
    there = owner()
    if there.is_current_thread:
        return await coroutine
    here = asyncio.get_running_loop()
    ended = asyncio.Event()
    task: asyncio.Task[T] | None = None

    def begin() -> None:
        nonlocal task
        task = there.create_task(coroutine)
        task.add_done_callback(lambda _: _tell(here, ended))

    def cancel() -> None:
        assert task is not None  # begin() was there first
        task.cancel()

    there.call_soon(begin)
    cancelled: asyncio.CancelledError | None = None
    while not ended.is_set():
        try:
            await ended.wait()
        except asyncio.CancelledError as error:
            # A second one does not shorten the clean-up either: it is bounded where it is done.
            cancelled = error
            there.call_soon(cancel)
    assert task is not None
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at, or asyncio would complain that nobody did
    raise cancelled


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(ended.set)
    except RuntimeError:
        pass  # the loop was closed under the one who waited


_END = object()


async def cross_iterate(generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Iterate, in whatever loop, over an async generator of the core; leaving the iteration early closes it."""
    try:
        while (item := await cross(_next(generator))) is not _END:
            yield item  # type: ignore[misc]  # only _END is not a T
    finally:
        await cross(generator.aclose())


def iterate(generator: AsyncGenerator[T, None]) -> Iterator[T]:
    """Iterate over an async generator of the core; leaving the iteration early closes it."""
    __tracebackhide__ = True
    try:
        while True:
            item = run(_next(generator))
            if item is _END:
                return
            yield item  # type: ignore[misc]  # only _END is not a T
    finally:
        _close(generator)


async def _next(generator: AsyncGenerator[T, None]) -> T | object:
    return await anext(generator, _END)


def _close(generator: AsyncGenerator[Any, None]) -> None:
    closing = generator.aclose()
    if owner().is_current_thread:
        # The garbage collector found a forgotten iterator, and runs in whatever thread it likes.
        task = asyncio.get_running_loop().create_task(closing)
        _closing.add(task)
        task.add_done_callback(_closing.discard)
    else:
        run(closing)


_closing: set[asyncio.Task[None]] = set()


def _forget() -> None:
    """In a child of fork(2) the loop's thread does not exist, nor does the one that may have held the lock."""
    global _owner, _owner_lock
    _owner = None
    _owner_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
