"""Testing a server of many guests with tests that are coroutines: a dozen connections, streams and commands at once.

Shown here: `async_sandbox`, its operations awaited and gathered; a process whose lines are iterated over while the test
goes on; a connection from the test into the sandbox, which has no network; a command that ends with its cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from pytest_sandbox import AsyncProcess, AsyncSandbox, Endpoint

pytestmark = pytest.mark.asyncio
HERE = Path(__file__).parent
PORT = 7000


@pytest_asyncio.fixture
async def relay(async_sandbox: AsyncSandbox) -> AsyncIterator[AsyncProcess]:
    await async_sandbox.upload(HERE / "relay.py", "relay.py")
    async with await async_sandbox.start(["python3", "relay.py", str(PORT)]) as process:
        await process.stdout.wait_for("open")
        yield process


@pytest_asyncio.fixture
async def room(relay: AsyncProcess, async_sandbox: AsyncSandbox) -> Endpoint:
    return await async_sandbox.wait_for_port(PORT)


class Guest:
    """One who has come in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def enter(cls, room: Endpoint, name: str) -> Guest:
        guest = cls(*await asyncio.open_connection(*room.address))
        await guest.say(name)
        return guest

    async def say(self, line: str) -> None:
        self._writer.write(f"{line}\n".encode())
        await self._writer.drain()

    async def hear(self, line: str) -> None:
        """Wait until that line comes, at most 10 s."""
        async with asyncio.timeout(10):
            while (heard := (await self._reader.readline()).decode().strip()) != line:
                assert heard, f"the room closed before {line!r}"

    async def leave(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def test_all_hear_what_one_says(room: Endpoint) -> None:
    async with AsyncExitStack() as leaving:
        guests = await asyncio.gather(*(Guest.enter(room, f"guest {number}") for number in range(12)))
        for guest in guests:
            leaving.push_async_callback(guest.leave)
        # Who is not in yet would not hear it.
        await asyncio.gather(*(guest.hear(f"* guest {number} is here") for number, guest in enumerate(guests)))

        await guests[0].say("good evening")

        await asyncio.gather(*(guest.hear("guest 0: good evening") for guest in guests))


async def test_a_name_is_taken_once(room: Endpoint) -> None:
    first = await Guest.enter(room, "ann")
    await first.hear("* ann is here")

    second = await Guest.enter(room, "ann")

    await second.hear("! another name, please")
    await second.leave()
    await first.leave()


async def test_its_log_tells_who_came_and_went(relay: AsyncProcess, room: Endpoint) -> None:
    guest = await Guest.enter(room, "bob")
    await guest.hear("* bob is here")
    await guest.leave()

    told = []
    async for line in relay.stdout:
        told.append(line.decode().strip())
        if told[-1] == "* bob has left":
            break

    assert told[-2:] == ["* bob is here", "* bob has left"]


async def test_the_room_stays_open_while_the_machine_is_busy(async_sandbox: AsyncSandbox, room: Endpoint) -> None:
    sums = [async_sandbox.exec(["python3", "-c", f"print(sum(range({number} * 10**6)))"]) for number in range(1, 5)]

    guest, *results = await asyncio.gather(Guest.enter(room, "eve"), *sums)

    await guest.hear("* eve is here")
    await guest.leave()
    assert [int(result.stdout) for result in results] == [sum(range(number * 10**6)) for number in range(1, 5)]


async def test_a_cancelled_command_leaves_nothing_running(async_sandbox: AsyncSandbox) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await async_sandbox.exec("sleep 1000 & sleep 1000")

    assert await async_sandbox.sweep() == 0
