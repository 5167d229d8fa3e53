from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from pytest_sandbox.async_faces import awaited, awaited_iterator
from pytest_sandbox.errors import SandboxClosed, SandboxError


class Core:
    def __init__(self) -> None:
        self.begun, self.cleaned = threading.Event(), threading.Event()
        self.closed = False

    async def greet(self, name: str, *, loudly: bool = False) -> str:
        """Greet somebody."""
        return f"hello {name}{'!' * loudly} from {threading.current_thread().name}"

    async def fail(self) -> None:
        raise SandboxClosed("box")

    async def last(self) -> None:
        """Run until cancelled, then clean up for some rounds of the loop."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            self.cleaned.set()

    async def refuse(self) -> None:
        """Fail while it is cancelled."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("while cleaning up")

    async def count(self, upto: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(upto):
                yield number
            raise SandboxClosed("box")
        finally:
            self.closed = True


class Face:
    def __init__(self) -> None:
        self._core = Core()

    greet = awaited(Core.greet)
    fail = awaited(Core.fail)
    last = awaited(Core.last)
    refuse = awaited(Core.refuse)
    count = awaited_iterator(Core.count)


def test_an_awaited_method_runs_in_the_owner_loop_whatever_loop_awaits_it() -> None:
    face = Face()

    for _ in range(2):  # each time another loop
        assert asyncio.run(face.greet("world", loudly=True)) == "hello world! from pytest-sandbox"


def test_an_awaited_method_has_the_cores_signature_and_docstring() -> None:
    assert str(inspect.signature(Face().greet)) == "(name: 'str', *, loudly: 'bool' = False) -> 'str'"
    assert Face().greet.__doc__ == Face.greet.__doc__ == "Greet somebody."
    assert inspect.iscoroutinefunction(Face().greet)


@pytest.mark.asyncio
async def test_an_error_of_ours_shows_none_of_our_frames() -> None:
    with pytest.raises(SandboxError) as caught:
        await Face().fail()

    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == ["test_an_error_of_ours_shows_none_of_our_frames"]


@pytest.mark.asyncio
async def test_a_cancellation_waits_for_the_clean_up() -> None:
    face = Face()
    task = asyncio.create_task(face.last())
    await asyncio.to_thread(face._core.begun.wait)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert face._core.cleaned.is_set()


@pytest.mark.asyncio
async def test_a_second_cancellation_waits_for_it_as_well() -> None:
    face = Face()
    task = asyncio.create_task(face.last())
    await asyncio.to_thread(face._core.begun.wait)

    task.cancel()
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert face._core.cleaned.is_set()


@pytest.mark.asyncio
async def test_a_cancellation_before_the_first_step_begins_nothing() -> None:
    face = Face()
    task = asyncio.create_task(face.last())

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert not face._core.begun.is_set()


@pytest.mark.asyncio
async def test_a_failure_of_the_clean_up_does_not_hide_the_cancellation() -> None:
    face = Face()
    task = asyncio.create_task(face.refuse())
    await asyncio.to_thread(face._core.begun.wait)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_a_timeout_is_a_cancellation_as_well() -> None:
    face = Face()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await face.last()

    assert face._core.cleaned.is_set()


@pytest.mark.asyncio
async def test_an_iterator_yields_what_the_core_yields_and_raises_its_error() -> None:
    iterator = Face().count(2)

    assert [await anext(iterator), await anext(iterator)] == [0, 1]
    with pytest.raises(SandboxClosed):
        await anext(iterator)


@pytest.mark.asyncio
async def test_an_iteration_left_early_is_closed() -> None:
    face = Face()

    async with aclosing(face.count(3)) as numbers:
        async for _ in numbers:
            break

    assert face._core.closed
