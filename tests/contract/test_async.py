"""What the awaited face promises beyond what the blocking one does, on every engine."""

from __future__ import annotations

import asyncio

import pytest

from pytest_sandbox import AsyncSandbox, CommandFailed, CommandTimeout, Sandbox
from pytest_sandbox.engines.base import Engine
from pytest_sandbox.models import SandboxSettings


@pytest.fixture
def async_face(sandbox: Sandbox) -> AsyncSandbox:
    return AsyncSandbox(sandbox._core)


@pytest.mark.asyncio
async def test_operations_are_awaited(async_face: AsyncSandbox) -> None:
    await async_face.write_text("in/side", "text")

    result = await async_face.exec("cat in/side", check=True)

    assert result.stdout.text == "text"
    assert [entry.path.name async for entry in async_face.walk()] == ["in", "side"]
    assert b"".join([chunk async for chunk in async_face.read_chunks("in/side")]) == b"text"


@pytest.mark.asyncio
async def test_errors_are_those_of_the_blocking_face(async_face: AsyncSandbox) -> None:
    with pytest.raises(CommandFailed):
        await async_face.exec("exit 3", check=True)
    with pytest.raises(CommandTimeout):
        await async_face.exec("sleep 60", timeout=0.1)
    with pytest.raises(FileNotFoundError):
        await async_face.read_text("missing")


@pytest.mark.asyncio
async def test_cancelling_kills_the_command_with_its_whole_tree(async_face: AsyncSandbox) -> None:
    await async_face.exec("mkfifo started", check=True)
    command = asyncio.create_task(async_face.exec("setsid sleep 4711 & echo > started; wait"))
    await async_face.exec("cat started", check=True)

    command.cancel()

    with pytest.raises(asyncio.CancelledError):
        await command
    assert (await async_face.exec("ps -o args 2>/dev/null || ps")).stdout.text.count("sleep 4711") == 0


@pytest.mark.asyncio
async def test_a_thousand_commands_at_once(async_face: AsyncSandbox) -> None:
    results = await asyncio.gather(*(async_face.exec(["true"]) for _ in range(1000)))

    assert all(result.exit_code == 0 for result in results)


@pytest.mark.asyncio
async def test_a_process_is_written_to_and_iterated_over(async_face: AsyncSandbox) -> None:
    async with await async_face.start("cat") as process:
        await process.write(b"one\ntwo\n")
        await process.close_stdin()

        assert [line async for line in process.stdout] == [b"one\n", b"two\n"]
        assert (await process.wait()).exit_code == 0


@pytest.mark.asyncio
async def test_leaving_the_context_kills_what_is_left(async_face: AsyncSandbox) -> None:
    async with await async_face.start("sleep 4712") as process:
        pass

    assert (await process.wait()).exit_code < 0


def test_a_sandbox_outlives_the_event_loop_it_was_used_in(async_face: AsyncSandbox) -> None:
    asyncio.run(async_face.write_text("kept", "between loops"))

    assert asyncio.run(async_face.read_text("kept")) == "between loops"


def test_both_faces_see_the_same_session(sandbox: Sandbox, async_face: AsyncSandbox) -> None:
    sandbox.write_text("f", "one session")

    assert asyncio.run(async_face.read_text("f")) == "one session"


@pytest.mark.asyncio
async def test_a_sandbox_of_ones_own_is_closed_with_its_context(engine: Engine, settings: SandboxSettings) -> None:
    async with await AsyncSandbox.create(settings, engine) as sandbox:
        assert await sandbox.running()

    assert not await sandbox.running()
