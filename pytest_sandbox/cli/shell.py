"""`pytest-sandbox shell`: this terminal becomes that of a program in a kept sandbox."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core.sandbox import SandboxCore
from ..core.state import SessionState
from ..engines.kept import KeptNotes
from .choice import Listed, NoSuchSandbox, Standing, chosen, listed

if TYPE_CHECKING:
    from ..core.console import ConsoleHandle
    from ..engines.base import Engine

KEYS_AT_ONCE = 4096  # bytes; a paste is longer
ENDING = (signal.SIGTERM, signal.SIGHUP)


async def open_shell(engine: Engine, arguments: argparse.Namespace) -> int:
    """Return the program's exit status, 128 and the signal's number if one ended it. The sandbox stays.

    The end of this terminal, SIGTERM or SIGHUP ends the program.
    """
    if not (os.isatty(0) and os.isatty(1)):
        raise NoSuchSandbox("shell takes a terminal as standard input and output; see Sandbox.resume for programs")
    meant = chosen(arguments.sandbox, await listed(engine))
    if meant.standing is not Standing.KEPT:
        raise NoSuchSandbox(
            f"{meant.found.name} is {meant.standing.value}, and a sandbox serves one process at a time; "
            "only a kept one can be opened: `pytest --sandbox-keep=failed`"
        )
    with KeptNotes().in_use(meant.found.identity):
        core = await SandboxCore.resume(engine, await _state(engine, meant))
        try:
            # Without a note nothing is known of its workspace.
            return await _converse(core, arguments.command or None, "." if meant.note is not None else "/")
        finally:
            await core.detach()
            _say(f"left {core.name}; `pytest-sandbox rm {core.name}` removes it")


async def _state(engine: Engine, meant: Listed) -> SessionState:
    """What a note has, or what can be known of a sandbox that was created to be kept."""
    if meant.note is not None:
        return SessionState.from_json(meant.note.state)
    return SessionState(
        engine=(await engine.describe()).id,
        container=meant.found.id,
        name=meant.found.name,
        identity=meant.found.identity,
        image_digest="",
        settings={"image": meant.found.image},
        hidden=(),
        snapshot="",
    )


async def _converse(core: SandboxCore, command: list[str] | None, cwd: str) -> int:
    columns, rows = os.get_terminal_size(0)
    variables = {"TERM": os.environ.get("TERM") or "xterm"}
    async with await core.console(
        command, rows=max(rows, 1), columns=max(columns, 1), cwd=cwd, env=variables
    ) as console:
        with _raw_mode(0), _signals(console):
            typing = asyncio.create_task(_type(console))
            try:
                while chunk := await console.read():
                    await asyncio.to_thread(_write_all, 1, chunk)  # a terminal that is held with ^S blocks
            finally:
                typing.cancel()
                await asyncio.wait([typing])
        status = (await console.wait()).exit_code
    return status if status >= 0 else 128 - status


async def _type(console: ConsoleHandle) -> None:
    """Send what is typed until this terminal ends, and then end the program: nobody is there any more."""
    loop = asyncio.get_running_loop()
    while True:
        readable = loop.create_future()
        loop.add_reader(0, readable.set_result, None)
        try:
            await readable
        finally:
            loop.remove_reader(0)  # before the future is done a second time
        try:
            keys = os.read(0, KEYS_AT_ONCE)
        except OSError:  # EIO: it was taken away
            keys = b""
        if not keys:
            await console.terminate()
            return
        await console.write(keys)


@contextmanager
def _raw_mode(descriptor: int) -> Iterator[None]:
    """Let every key through, ^C as well; give the terminal back as it was."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        try:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        except termios.error:
            pass  # taken away


@contextmanager
def _signals(console: ConsoleHandle) -> Iterator[None]:
    """Pass on the size of this terminal whenever it changes; leave when this process is to end."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    resizing: set[asyncio.Task[None]] = set()

    def resize() -> None:
        columns, rows = os.get_terminal_size(0)
        sending = loop.create_task(console.resize(max(rows, 1), max(columns, 1)))
        resizing.add(sending)
        sending.add_done_callback(resizing.discard)

    loop.add_signal_handler(signal.SIGWINCH, resize)
    for number in ENDING:
        loop.add_signal_handler(number, task.cancel)
    try:
        resize()  # it may have changed since it was asked for
        yield
    finally:
        for number in (signal.SIGWINCH, *ENDING):
            loop.remove_signal_handler(number)


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is there any more


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
