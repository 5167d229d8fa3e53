"""What coroutines see of a session: the same operations as in faces.py, awaited, from whatever event loop they run in.

No behaviour lives here either: the core runs in the owner loop, so a sandbox may outlive the loop of a test, and serve
several at once. Cancelling an awaited operation ends it in the sandbox: a command's whole tree is killed.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from .core.events import Listener, observed, observed_iterator
from .core.processes import OutputReader, ProcessHandle
from .core.sandbox import SandboxCore
from .core.screen import Screen
from .core.services import ServiceHandle
from .core.state import SessionState
from .core.terminal import TerminalHandle
from .engines.base import Engine
from .errors import SandboxError
from .faces import Operation, OperationIterator, kept_on, new_core, presented, remove_kept, resumed_core, trim
from .loop import cross, cross_iterate
from .models import Container, KeptSandbox, Output, ProcessExit, SandboxSettings
from .secret import Secret

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")


class awaited(Generic[C, P, T]):  # noqa: N801  # reads as the function that it is used as
    """A method of a face that awaits a coroutine method of its core; typed as faces.blocking is."""

    def __init__(self, operation: Operation[C, P, T]) -> None:
        self._operation = operation

    @overload
    def __get__(self, face: None, owner: type) -> Operation[C, P, T]: ...
    @overload
    def __get__(self, face: object, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, face: Any, owner: type) -> Operation[C, P, T] | Callable[P, Coroutine[Any, Any, T]]:
        if face is None:
            return self._operation
        operation, core = self._operation, face._core

        @functools.wraps(operation.__get__(core))
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            __tracebackhide__ = True
            try:
                return await cross(observed(operation, core, args, kwargs))
            except SandboxError as error:
                trim(error)
                raise

        return call


class awaited_iterator(Generic[C, P, T]):  # noqa: N801
    """The same for an async generator of the core; `aclosing()` of contextlib closes one that is left early at once."""

    def __init__(self, operation: OperationIterator[C, P, T]) -> None:
        self._operation = operation

    @overload
    def __get__(self, face: None, owner: type) -> OperationIterator[C, P, T]: ...
    @overload
    def __get__(self, face: object, owner: type) -> Callable[P, AsyncGenerator[T, None]]: ...
    def __get__(self, face: Any, owner: type) -> OperationIterator[C, P, T] | Callable[P, AsyncGenerator[T, None]]:
        if face is None:
            return self._operation
        operation, core = self._operation, face._core

        @functools.wraps(operation.__get__(core))
        async def call(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
            __tracebackhide__ = True
            try:
                async with aclosing(cross_iterate(observed_iterator(operation, core, args, kwargs))) as items:
                    async for item in items:
                        yield item
            except SandboxError as error:
                trim(error)
                raise

        return call


class AsyncProcessOutput:
    """One output stream of a process: iterate over it for lines, as bytes."""

    def __init__(self, core: OutputReader) -> None:
        self._core = core

    read_some = awaited(OutputReader.read_some)
    read_line = awaited(OutputReader.read_line)
    wait_for = awaited(OutputReader.wait_for)
    lines = awaited_iterator(OutputReader.lines)

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self.lines()


class AsyncProcess:
    """A command that is running in a sandbox."""

    def __init__(self, core: ProcessHandle) -> None:
        self._core = core
        self.command = core.command
        self.pid = core.pid
        self.stdout = AsyncProcessOutput(core.stdout)
        self.stderr = AsyncProcessOutput(core.stderr)

    def __repr__(self) -> str:
        return f"<AsyncProcess {self.pid} {self.command!r}>"

    @property
    def finished(self) -> bool:
        """Whether it has ended; never waits."""
        return self._core.finished

    write = awaited(ProcessHandle.write)
    close_stdin = awaited(ProcessHandle.close_stdin)
    send_signal = awaited(ProcessHandle.send_signal)
    terminate = awaited(ProcessHandle.terminate)
    kill = awaited(ProcessHandle.kill)
    wait = awaited(ProcessHandle.wait)
    close = awaited(ProcessHandle.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class AsyncService:
    """The image's own program, which runs in a sandbox beside the commands."""

    def __init__(self, core: ServiceHandle) -> None:
        self._core = core
        self.command = core.command
        self.pid = core.pid

    def __repr__(self) -> str:
        return f"<AsyncService {self.pid} {self.command!r}>"

    @property
    def finished(self) -> bool:
        """Whether it has ended; never waits."""
        return self._core.finished

    @property
    def exit(self) -> ProcessExit | None:
        """How it ended; None while it runs, and if that can't be known."""
        return self._core.exit

    @property
    def log(self) -> Coroutine[Any, Any, Output]:
        """The last mebibyte of what it wrote to either stream; `total_bytes` counts all."""
        return self._log()

    _log = awaited(ServiceHandle.log)

    wait_for = awaited(ServiceHandle.wait_for)
    wait = awaited(ServiceHandle.wait)
    send_signal = awaited(ServiceHandle.send_signal)
    stop = awaited(ServiceHandle.stop)
    terminate = awaited(ServiceHandle.terminate)
    kill = awaited(ServiceHandle.kill)


class AsyncTerminal:
    """A command on a terminal of its own, driven and looked at; `await terminal.screen`, `await terminal.output`."""

    def __init__(self, core: TerminalHandle) -> None:
        self._core = core
        self.command = core.command
        self.pid = core.pid

    def __repr__(self) -> str:
        return f"<AsyncTerminal {self.pid} {self.command!r}>"

    @property
    def finished(self) -> bool:
        """Whether its command has ended; never waits."""
        return self._core.finished

    @property
    def screen(self) -> Coroutine[Any, Any, Screen]:
        """What it shows now; later output does not change it."""
        return self._show()

    @property
    def output(self) -> Coroutine[Any, Any, Output]:
        """The last bytes exactly as they were written, as many as the buffer takes; `total_bytes` counts all."""
        return self._output()

    _show = awaited(TerminalHandle.screen)
    _output = awaited(TerminalHandle.output)

    send = awaited(TerminalHandle.send)
    sendline = awaited(TerminalHandle.sendline)
    press = awaited(TerminalHandle.press)
    paste = awaited(TerminalHandle.paste)
    expect = awaited(TerminalHandle.expect)
    wait_for_screen = awaited(TerminalHandle.wait_for_screen)
    read_until_idle = awaited(TerminalHandle.read_until_idle)
    collect = awaited(TerminalHandle.collect)
    lines = awaited_iterator(TerminalHandle.lines)
    screenshot = awaited(TerminalHandle.screenshot)
    resize = awaited(TerminalHandle.resize)
    send_signal = awaited(TerminalHandle.send_signal)
    terminate = awaited(TerminalHandle.terminate)
    kill = awaited(TerminalHandle.kill)
    wait = awaited(TerminalHandle.wait)
    close = awaited(TerminalHandle.close)

    def __aiter__(self) -> AsyncGenerator[str, None]:
        return self.lines()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class AsyncSandbox:
    """A session in a container, for tests that are coroutines; usable from any event loop."""

    def __init__(self, core: SandboxCore) -> None:
        self._core = core

    @classmethod
    async def create(
        cls,
        settings: SandboxSettings | None = None,
        engine: Engine | None = None,
        *,
        keep: bool = False,
        events: Listener | None = None,
    ) -> Self:
        """Start a sandbox outside of any fixture; close it, or use it as an async context manager.

        engine: by default the one that DOCKER_HOST or the platform names. keep: it outlives this process, and even a
        loss of its stream, until it is closed. events: called with each Event; must not wait.
        Raises what SandboxCore.create raises.
        """
        __tracebackhide__ = True
        try:
            return cls(await cross(new_core(settings or SandboxSettings(), engine, events, keep=keep)))
        except SandboxError as error:
            trim(error)
            raise

    @classmethod
    async def resume(
        cls,
        state: SessionState,
        engine: Engine | None = None,
        *,
        store: Path | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        events: Listener | None = None,
    ) -> Self:
        """Go on with a kept session, or with its last snapshot: see SandboxCore.resume."""
        __tracebackhide__ = True
        try:
            return cls(await cross(resumed_core(state, engine, store, environment, events)))
        except SandboxError as error:
            trim(error)
            raise

    @classmethod
    async def kept(cls, engine: Engine | None = None) -> list[KeptSandbox]:
        """Return the kept sandboxes that run on the engine, whoever made them."""
        return await cross(kept_on(engine))

    @classmethod
    async def remove_kept(cls, kept: KeptSandbox, engine: Engine | None = None) -> None:
        """Remove a kept sandbox, in use or not. Raises NotOurs if the container of that id is not that one."""
        await cross(remove_kept(kept, engine))

    def __repr__(self) -> str:
        return f"<AsyncSandbox {self.name} image={self.settings.image}>"

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def settings(self) -> SandboxSettings:
        return self._core.settings

    @property
    def workspace(self) -> PurePosixPath:
        return self._core.workspace

    @property
    def container(self) -> Container:
        return self._core.container

    @property
    def service(self) -> AsyncService:
        """The image's own program, started last, running or not. Raises NoService."""
        return AsyncService(self._core.service)

    # Processes
    exec = awaited(SandboxCore.exec)
    start = awaited(presented(SandboxCore.start, AsyncProcess))
    terminal = awaited(presented(SandboxCore.terminal, AsyncTerminal))
    close_terminals = awaited(SandboxCore.close_terminals)
    sweep = awaited(SandboxCore.sweep)

    # The image's own program
    start_service = awaited(presented(SandboxCore.start_service, AsyncService))

    # Ports
    endpoint = awaited(SandboxCore.endpoint)
    wait_for_port = awaited(SandboxCore.wait_for_port)
    wait_for_http = awaited(SandboxCore.wait_for_http)
    wait_for_command = awaited(SandboxCore.wait_for_command)

    # Files
    read_bytes = awaited(SandboxCore.read_bytes)
    read_text = awaited(SandboxCore.read_text)
    read_chunks = awaited_iterator(SandboxCore.read_chunks)
    write_bytes = awaited(SandboxCore.write_bytes)
    write_text = awaited(SandboxCore.write_text)
    stat = awaited(SandboxCore.stat)
    lstat = awaited(SandboxCore.lstat)
    exists = awaited(SandboxCore.exists)
    is_file = awaited(SandboxCore.is_file)
    is_dir = awaited(SandboxCore.is_dir)
    list_dir = awaited(SandboxCore.list_dir)
    walk = awaited_iterator(SandboxCore.walk)
    glob = awaited(SandboxCore.glob)
    mkdir = awaited(SandboxCore.mkdir)
    remove = awaited(SandboxCore.remove)
    rename = awaited(SandboxCore.rename)
    copy = awaited(SandboxCore.copy)
    chmod = awaited(SandboxCore.chmod)
    chown = awaited(SandboxCore.chown)
    symlink = awaited(SandboxCore.symlink)
    read_link = awaited(SandboxCore.read_link)
    upload = awaited(SandboxCore.upload)
    download = awaited(SandboxCore.download)
    unpack = awaited(SandboxCore.unpack)
    apply_patch = awaited(SandboxCore.apply_patch)

    # Workspaces
    persist = awaited(SandboxCore.persist)
    hydrate = awaited(SandboxCore.hydrate)
    snapshot = awaited(SandboxCore.snapshot)
    restore = awaited(SandboxCore.restore)
    reset = awaited(SandboxCore.reset)
    changes = awaited(SandboxCore.changes)
    fork = awaited(presented(SandboxCore.fork, lambda core: AsyncSandbox(core)))

    # Its life
    state = awaited(SandboxCore.state)
    keep = awaited(SandboxCore.keep)
    detach = awaited(SandboxCore.detach)
    running = awaited(SandboxCore.running)
    close = awaited(SandboxCore.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
