"""What tests see of a session: the core's operations, each crossing into the owner loop.

No behaviour lives here. A face is a list of one-liners, and its methods have the core's signatures and docstrings.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from .core.events import Journal, Listener, observed, observed_iterator
from .core.processes import OutputReader, ProcessHandle
from .core.sandbox import SandboxCore
from .core.screen import Screen
from .core.services import ServiceHandle
from .core.state import SessionState
from .core.terminal import TerminalHandle
from .engines.base import Engine
from .engines.kept import KeptNotes
from .errors import NotOurs, SandboxError
from .loop import iterate, run
from .models import Container, KeptSandbox, Output, ProcessExit, SandboxSettings
from .secret import Secret

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
C = TypeVar("C")

Operation = Callable[Concatenate[C, P], Coroutine[Any, Any, T]]
OperationIterator = Callable[Concatenate[C, P], AsyncGenerator[T, None]]


class blocking(Generic[C, P, T]):  # noqa: N801  # reads as the function that it is used as
    """A method of a face that runs a coroutine method of its core and waits for it.

    A descriptor over ParamSpec: type checkers and help() see the core's signature, without generated code.
    """

    def __init__(self, operation: Operation[C, P, T]) -> None:
        self._operation = operation

    @overload
    def __get__(self, face: None, owner: type) -> Operation[C, P, T]: ...
    @overload
    def __get__(self, face: object, owner: type) -> Callable[P, T]: ...
    def __get__(self, face: Any, owner: type) -> Operation[C, P, T] | Callable[P, T]:
        if face is None:
            return self._operation  # for help() and inspect: the core's own signature and docstring
        operation, core = self._operation, face._core

        @functools.wraps(operation.__get__(core))
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            __tracebackhide__ = True
            try:
                return run(observed(operation, core, args, kwargs))
            except SandboxError as error:
                trim(error)
                raise

        return call


class blocking_iterator(Generic[C, P, T]):  # noqa: N801
    """The same for an async generator of the core; leaving the iteration early closes it."""

    def __init__(self, operation: OperationIterator[C, P, T]) -> None:
        self._operation = operation

    @overload
    def __get__(self, face: None, owner: type) -> OperationIterator[C, P, T]: ...
    @overload
    def __get__(self, face: object, owner: type) -> Callable[P, Iterator[T]]: ...
    def __get__(self, face: Any, owner: type) -> OperationIterator[C, P, T] | Callable[P, Iterator[T]]:
        if face is None:
            return self._operation
        operation, core = self._operation, face._core

        @functools.wraps(operation.__get__(core))
        def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            __tracebackhide__ = True
            try:
                yield from iterate(observed_iterator(operation, core, args, kwargs))
            except SandboxError as error:
                trim(error)
                raise

        return call


def trim(error: SandboxError) -> None:
    """Take our own frames out: what a user can act upon is the line that called, and the message."""
    logger.debug("operation.failed error=%s", type(error).__name__, exc_info=error)
    error.__traceback__ = None


def presented(
    operation: Callable[P, Coroutine[Any, Any, R]], face: Callable[[R], T]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same operation, its result in a face of its own."""

    @functools.wraps(operation)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return face(await operation(*args, **kwargs))

    return call


class ProcessOutput:
    """One output stream of a process: iterate over it for lines, as bytes."""

    def __init__(self, core: OutputReader) -> None:
        self._core = core

    read_some = blocking(OutputReader.read_some)
    read_line = blocking(OutputReader.read_line)
    wait_for = blocking(OutputReader.wait_for)
    lines = blocking_iterator(OutputReader.lines)

    def __iter__(self) -> Iterator[bytes]:
        return self.lines()


class Process:
    """A command that is running in a sandbox."""

    def __init__(self, core: ProcessHandle) -> None:
        self._core = core
        self.command = core.command
        self.pid = core.pid
        self.stdout = ProcessOutput(core.stdout)
        self.stderr = ProcessOutput(core.stderr)

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.command!r}>"

    @property
    def finished(self) -> bool:
        """Whether it has ended; never waits."""
        return self._core.finished

    write = blocking(ProcessHandle.write)
    close_stdin = blocking(ProcessHandle.close_stdin)
    send_signal = blocking(ProcessHandle.send_signal)
    terminate = blocking(ProcessHandle.terminate)
    kill = blocking(ProcessHandle.kill)
    wait = blocking(ProcessHandle.wait)
    close = blocking(ProcessHandle.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Service:
    """The image's own program, which runs in a sandbox beside the commands."""

    def __init__(self, core: ServiceHandle) -> None:
        self._core = core
        self.command = core.command
        self.pid = core.pid

    def __repr__(self) -> str:
        return f"<Service {self.pid} {self.command!r}>"

    @property
    def finished(self) -> bool:
        """Whether it has ended; never waits."""
        return self._core.finished

    @property
    def exit(self) -> ProcessExit | None:
        """How it ended; None while it runs, and if that can't be known."""
        return self._core.exit

    @property
    def log(self) -> Output:
        """The last mebibyte of what it wrote to either stream; `total_bytes` counts all."""
        return self._log()

    _log = blocking(ServiceHandle.log)

    wait_for = blocking(ServiceHandle.wait_for)
    wait = blocking(ServiceHandle.wait)
    send_signal = blocking(ServiceHandle.send_signal)
    stop = blocking(ServiceHandle.stop)
    terminate = blocking(ServiceHandle.terminate)
    kill = blocking(ServiceHandle.kill)


class Terminal:
    """A command on a terminal of its own, driven and looked at."""

    def __init__(self, core: TerminalHandle) -> None:
        self._core = core
        self.command = core.command
        self.pid = core.pid

    def __repr__(self) -> str:
        return f"<Terminal {self.pid} {self.command!r}>"

    @property
    def finished(self) -> bool:
        """Whether its command has ended; never waits."""
        return self._core.finished

    @property
    def screen(self) -> Screen:
        """What it shows now; later output does not change it."""
        return self._show()

    @property
    def output(self) -> Output:
        """The last bytes exactly as they were written, as many as the buffer takes; `total_bytes` counts all."""
        return self._output()

    _show = blocking(TerminalHandle.screen)
    _output = blocking(TerminalHandle.output)

    send = blocking(TerminalHandle.send)
    sendline = blocking(TerminalHandle.sendline)
    press = blocking(TerminalHandle.press)
    paste = blocking(TerminalHandle.paste)
    expect = blocking(TerminalHandle.expect)
    wait_for_screen = blocking(TerminalHandle.wait_for_screen)
    read_until_idle = blocking(TerminalHandle.read_until_idle)
    collect = blocking(TerminalHandle.collect)
    lines = blocking_iterator(TerminalHandle.lines)
    screenshot = blocking(TerminalHandle.screenshot)
    resize = blocking(TerminalHandle.resize)
    send_signal = blocking(TerminalHandle.send_signal)
    terminate = blocking(TerminalHandle.terminate)
    kill = blocking(TerminalHandle.kill)
    wait = blocking(TerminalHandle.wait)
    close = blocking(TerminalHandle.close)

    def __iter__(self) -> Iterator[str]:
        return self.lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Sandbox:
    """A session in a container, for tests that are plain functions; usable from any thread."""

    def __init__(self, core: SandboxCore) -> None:
        self._core = core

    @classmethod
    def create(
        cls,
        settings: SandboxSettings | None = None,
        engine: Engine | None = None,
        *,
        keep: bool = False,
        events: Listener | None = None,
    ) -> Self:
        """Start a sandbox outside of any fixture; close it, or use it as a context manager.

        engine: by default the one that DOCKER_HOST or the platform names. keep: it outlives this process, and even a
        loss of its stream, until it is closed. events: called with each Event; must not wait.
        Raises what SandboxCore.create raises.
        """
        __tracebackhide__ = True
        try:
            return cls(run(new_core(settings or SandboxSettings(), engine, events, keep=keep)))
        except SandboxError as error:
            trim(error)
            raise

    @classmethod
    def resume(
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
            return cls(run(resumed_core(state, engine, store, environment, events)))
        except SandboxError as error:
            trim(error)
            raise

    @classmethod
    def kept(cls, engine: Engine | None = None) -> list[KeptSandbox]:
        """Return the kept sandboxes that run on the engine, whoever made them."""
        return run(kept_on(engine))

    @classmethod
    def remove_kept(cls, kept: KeptSandbox, engine: Engine | None = None) -> None:
        """Remove a kept sandbox, in use or not. Raises NotOurs if the container of that id is not that one."""
        run(remove_kept(kept, engine))

    def __repr__(self) -> str:
        return f"<Sandbox {self.name} image={self.settings.image}>"

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
    def service(self) -> Service:
        """The image's own program, started last, running or not. Raises NoService."""
        return Service(self._core.service)

    # Processes
    exec = blocking(SandboxCore.exec)
    start = blocking(presented(SandboxCore.start, Process))
    terminal = blocking(presented(SandboxCore.terminal, Terminal))
    close_terminals = blocking(SandboxCore.close_terminals)
    sweep = blocking(SandboxCore.sweep)

    # The image's own program
    start_service = blocking(presented(SandboxCore.start_service, Service))

    # Ports
    endpoint = blocking(SandboxCore.endpoint)
    wait_for_port = blocking(SandboxCore.wait_for_port)
    wait_for_http = blocking(SandboxCore.wait_for_http)
    wait_for_command = blocking(SandboxCore.wait_for_command)

    # Files
    read_bytes = blocking(SandboxCore.read_bytes)
    read_text = blocking(SandboxCore.read_text)
    read_chunks = blocking_iterator(SandboxCore.read_chunks)
    write_bytes = blocking(SandboxCore.write_bytes)
    write_text = blocking(SandboxCore.write_text)
    stat = blocking(SandboxCore.stat)
    lstat = blocking(SandboxCore.lstat)
    exists = blocking(SandboxCore.exists)
    is_file = blocking(SandboxCore.is_file)
    is_dir = blocking(SandboxCore.is_dir)
    list_dir = blocking(SandboxCore.list_dir)
    walk = blocking_iterator(SandboxCore.walk)
    glob = blocking(SandboxCore.glob)
    mkdir = blocking(SandboxCore.mkdir)
    remove = blocking(SandboxCore.remove)
    rename = blocking(SandboxCore.rename)
    copy = blocking(SandboxCore.copy)
    chmod = blocking(SandboxCore.chmod)
    chown = blocking(SandboxCore.chown)
    symlink = blocking(SandboxCore.symlink)
    read_link = blocking(SandboxCore.read_link)
    upload = blocking(SandboxCore.upload)
    download = blocking(SandboxCore.download)
    unpack = blocking(SandboxCore.unpack)
    apply_patch = blocking(SandboxCore.apply_patch)

    # Workspaces
    persist = blocking(SandboxCore.persist)
    hydrate = blocking(SandboxCore.hydrate)
    snapshot = blocking(SandboxCore.snapshot)
    restore = blocking(SandboxCore.restore)
    changes = blocking(SandboxCore.changes)
    reset = blocking(SandboxCore.reset)
    fork = blocking(presented(SandboxCore.fork, lambda core: Sandbox(core)))

    # Its life
    state = blocking(SandboxCore.state)
    keep = blocking(SandboxCore.keep)
    detach = blocking(SandboxCore.detach)
    running = blocking(SandboxCore.running)
    close = blocking(SandboxCore.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def new_core(
    settings: SandboxSettings, engine: Engine | None, events: Listener | None, *, keep: bool
) -> SandboxCore:
    core = await SandboxCore.create(await _found(engine), settings, keep=keep, journal=_journal(events))
    async with AsyncExitStack() as undo:
        undo.push_async_callback(core.close)
        await core.begin_service()
        undo.pop_all()
    return core


async def resumed_core(
    state: SessionState,
    engine: Engine | None,
    store: Path | None,
    environment: Mapping[str, str | Secret] | None,
    events: Listener | None,
) -> SandboxCore:
    return await SandboxCore.resume(
        await _found(engine), state, store=store, environment=environment, journal=_journal(events)
    )


async def kept_on(engine: Engine | None) -> list[KeptSandbox]:
    return await (await _found(engine)).kept()


async def remove_kept(kept: KeptSandbox, engine: Engine | None) -> None:
    engine = await _found(engine)
    if any(each.id == kept.id and each.identity != kept.identity for each in await engine.kept()):
        raise NotOurs(kept.name)
    await engine.remove(Container(kept.id, kept.name, kept.image, "", ""))
    KeptNotes().forget(kept.identity)


def _journal(events: Listener | None) -> Journal | None:
    return None if events is None else Journal(events)


async def _found(engine: Engine | None) -> Engine:
    if engine is None:
        # Here, not above: it brings the engine's client, and a pytest run that uses no sandbox must not pay for that.
        from .engines.discovery import find_engine

        engine = await find_engine()
    return engine
