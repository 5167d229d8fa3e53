from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator

import pytest

from pytest_sandbox.loop import iterate, owner, run


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def test_a_coroutines_result_comes_back() -> None:
    assert run(double(21)) == 42


def test_a_coroutines_error_comes_back() -> None:
    async def failing() -> None:
        raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        run(failing())


def test_all_threads_share_one_loop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    loops = [run(loop())]
    thread = threading.Thread(target=lambda: loops.append(run(loop())))
    thread.start()
    thread.join()

    assert loops[0] is loops[1]


def test_it_works_while_the_caller_runs_a_loop_of_its_own() -> None:
    async def test() -> int:
        return run(double(4))

    assert asyncio.run(test()) == 8


def test_the_callers_context_variables_are_seen() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("mine")

    async def seen() -> str:
        return variable.get()

    assert run(seen()) == "mine"


def test_a_blocking_call_from_inside_is_refused_at_once() -> None:
    async def inside() -> int:
        return run(double(1))

    with pytest.raises(RuntimeError, match="would wait for itself"):
        run(inside())


# The second is what pytest-timeout raises. Not an OSError: asyncio swallows one that is raised while it wakes the loop.
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, pytest.fail.Exception])
def test_an_interrupted_wait_cancels_and_waits_for_the_clean_up(interruption: type[BaseException]) -> None:
    cleaned: list[str] = []

    async def interrupted() -> None:
        try:
            # From here on the main thread waits, or is about to: both are to be interrupted alike.
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # clean-up takes a while
            cleaned.append("done")

    def interrupt(*_: object) -> None:
        raise interruption

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(interruption):
            run(interrupted())
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert cleaned == ["done"]


async def numbers(closed: list[str]) -> AsyncGenerator[int, None]:
    try:
        for number in range(3):
            yield number
    finally:
        await asyncio.sleep(0)
        closed.append("closed")


def test_iteration_goes_to_the_end_and_closes() -> None:
    closed: list[str] = []

    assert list(iterate(numbers(closed))) == [0, 1, 2]
    assert closed == ["closed"]


def test_leaving_an_iteration_early_closes_it() -> None:
    closed: list[str] = []
    iterator = iterate(numbers(closed))

    assert next(iterator) == 0
    del iterator

    assert closed == ["closed"]


def test_an_iterator_that_is_dropped_inside_the_loop_closes_without_a_deadlock() -> None:
    closed: list[str] = []
    iterators = [iterate(numbers(closed))]
    next(iterators[0])

    async def drop() -> None:
        iterators.clear()

    run(drop())
    while not closed:
        run(asyncio.sleep(0))  # the closing is a task of the loop; let it have its turns

    assert closed == ["closed"]


def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    run(double(1))
    child = os.fork()
    if child == 0:
        os._exit(run(double(21)))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert run(double(2)) == 4


def test_the_interpreter_ends_while_something_still_runs() -> None:
    script = """
import asyncio
from pytest_sandbox.loop import owner, run
async def forever():
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned up")
async def begin():
    global task
    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
run(begin())
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "cleaned up\n", "")


def test_the_loop_starts_on_first_use_only() -> None:
    script = "import threading, pytest_sandbox.loop; print(threading.active_count())"

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)

    assert ended.stdout == "1\n"
    assert owner() is owner()
