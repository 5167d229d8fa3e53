"""Commands in a session: run to their end, or started and accompanied."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import BinaryIO, Final, Self

from ..agent.client import HIT_MEMORY, HIT_PIDS, AgentFailure, Channel, ExitReport
from ..agent.wire import MAX_OPEN, MAX_WINDOW, UNLIMITED, BodyWriter, Kind, Request, from_wire, to_wire
from ..errors import (
    TAIL_LINES,
    CommandFailed,
    CommandHitLimit,
    CommandLost,
    CommandTimeout,
    LimitNotAvailable,
    NotAnswering,
    OutputEnded,
    OutputTruncated,
    ProcessStillRunning,
    SandboxError,
    command_not_started,
    shown,
    tail,
)
from ..models import (
    DEFAULT_OUTPUT_LIMIT,
    ExecResult,
    Limit,
    LimitHit,
    Output,
    ProcessExit,
    ResourceUsage,
    SandboxSettings,
)
from ..secret import Secret, hidden_names, masked, revealed
from .events import Journal
from .session import NOBODY, SessionBase
from .sources import chunks

STDIN_PIPED, MERGE_STDERR, REPLACE_ENVIRONMENT, BARE = 1, 2, 4, 8  # flags of an EXEC body
HARDENED_HOME = "/tmp"  # of a user who has none, in a file system that can't be written to
OPEN_OVERHEAD = 5  # bytes of an OPEN before its body
LONGEST_LINE = 1024 * 1024  # a longer one comes in pieces: a program that writes none must not fill the host's memory
DEFAULT_GRACE = 0.2  # seconds between SIGTERM and SIGKILL

# By name as on Linux, whatever the host runs on: SIGUSR1 is 30 on macOS.
SIGNALS: Final[Mapping[str, int]] = {
    name: number
    for number, name in enumerate(
        "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT "  # noqa: SIM905  # a table to read
        "CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS".split(),
        start=1,
    )
}


class Default(Enum):
    """Stands for a value that the settings have."""

    SETTINGS = "as in the settings"


class ProcessOperations(SessionBase):
    """exec, start and sweep."""

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | Default | None = Default.SETTINGS,
        cwd: str | None = None,
        env: Mapping[str, str | Secret] | None = None,
        replace_env: bool = False,
        user: str | int | None = None,
        stdin: bytes | str | BinaryIO | None = None,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
        check: bool = False,
        wait_all: bool = False,
        grace: float = DEFAULT_GRACE,
    ) -> ExecResult:
        """Run a command to its end.

        command: a string is a script for `/bin/sh -c`; a sequence is the program and its arguments, without a shell.
        timeout: seconds from the command's start, None for no limit; by default the settings'. Beyond it the whole
        process tree gets SIGTERM, and after `grace` seconds SIGKILL.
        cwd: below the workspace if relative. env: added to the sandbox's, or all there is with replace_env.
        user: name, uid, `name:group` or `uid:gid`. stdin: None is /dev/null; a file is read in binary mode, to its end.
        output_limit: bytes kept of each stream; the rest is counted and dropped.
        check: raise unless the exit code is 0 and all output was kept.
        wait_all: wait for the processes it left in the background too, and have their output; the timeout covers them.

        Raises CommandNotStarted and its kinds, CommandTimeout, CommandLost; with check CommandFailed, CommandHitLimit,
        OutputTruncated.
        """
        limit = self.settings.timeout if isinstance(timeout, Default) else timeout
        window = min(output_limit, MAX_WINDOW)
        body = self._exec_body(
            command,
            flags=STDIN_PIPED * (stdin is not None) | REPLACE_ENVIRONMENT * replace_env,
            cwd=cwd,
            env=env,
            user=user,
            cap=window,
        )
        # The window is the whole output limit: nothing has to be consumed while the command runs, and what an agent
        # sends beyond the limit breaks the protocol.
        with command_errors(command, self.settings):
            async with self.channel(Kind.EXEC, body, window=window) as channel:
                try:
                    async with asyncio.timeout(limit) as clock:
                        if stdin is None:
                            await _ended(channel, wait_all)
                        else:
                            await _fed_and_ended(channel, stdin, wait_all)
                except TimeoutError:
                    if limit is None or not clock.expired():
                        raise  # stdin's own
                    await channel.terminate(grace)
                    raise CommandTimeout(await _result(command, channel, self.settings), limit) from None
                result = await _result(command, channel, self.settings)
                if result.survivors:
                    channel.discard()
        if check and not result.ok:
            raise CommandHitLimit(result) if result.limits else CommandFailed(result)
        if check and (result.stdout.truncated or result.stderr.truncated):
            raise OutputTruncated(result, output_limit)
        return result

    async def start(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str | Secret] | None = None,
        replace_env: bool = False,
        user: str | int | None = None,
        merge_stderr: bool = False,
    ) -> ProcessHandle:
        """Start a command and return at once; the arguments are those of exec().

        merge_stderr: standard error comes in `stdout`, in the order it was written.
        The process lives until it ends, is killed, or the test ends; as a context manager it leaves nothing behind.
        """
        flags = STDIN_PIPED | MERGE_STDERR * merge_stderr | REPLACE_ENVIRONMENT * replace_env
        return await self._started(
            command, self._exec_body(command, flags=flags, cwd=cwd, env=env, user=user, cap=UNLIMITED)
        )

    async def _started(self, command: str | Sequence[str], body: bytes) -> ProcessHandle:
        with command_errors(command, self.settings):
            async with self.losing():
                channel = await self._client.open(Kind.EXEC, body)
        return ProcessHandle(self, command, channel)

    async def sweep(self) -> int:
        """Kill every process in the sandbox but the agent; return how many there were."""
        return (await self._sweep()).u32()

    def _exec_body(
        self,
        command: str | Sequence[str] | None,
        *,
        flags: int,
        cwd: str | None,
        env: Mapping[str, str | Secret] | None,
        user: str | int | None,
        cap: int,
        trusted: bool = False,
    ) -> bytes:
        """The body of an EXEC; no command stands for the user's shell, which only terminals have.

        trusted: the command is our own, and needs what those of a hardened sandbox don't get.
        """
        arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else command or []
        if command is not None and not arguments:
            raise ValueError("an empty command")
        inherited = {} if flags & REPLACE_ENVIRONMENT else self.settings.environment
        if self.settings.hardened and not trusted:
            flags |= BARE
            if not flags & REPLACE_ENVIRONMENT and user is None and self.default_user == NOBODY:
                inherited = {"HOME": HARDENED_HOME, **inherited}
        if env:
            hidden_names(env, self.settings.secrets)  # remembered, before the command can show them
        environment = [_assignment(name, value) for name, value in {**inherited, **(env or {})}.items()]
        body = BodyWriter().u32(flags).u32(len(arguments))
        for argument in arguments:
            body.str(_without_nul(argument, "argument"))
        body.u32(len(environment))
        for assignment in environment:
            body.str(assignment)
        body.str(self.absolute("." if cwd is None else cwd))
        body.str(_without_nul(self.default_user if user is None else str(user), "user"))
        body.u64(self.settings.file_size or UNLIMITED).u64(self.settings.open_files or UNLIMITED)
        encoded = body.u64(cap).u64(cap).bytes()
        if len(encoded) + OPEN_OVERHEAD > MAX_OPEN:  # no kernel would take it either
            raise command_not_started(command or "shell", errno.E2BIG, "execve", arguments[0] if arguments else "")
        return encoded


class RunningCommand:
    """A command that is accompanied: a process of start(), or a terminal's."""

    def __init__(self, session: SessionBase, command: str | Sequence[str], channel: Channel) -> None:
        self.command = command
        self.pid = channel.pid  # in the sandbox
        self._session = session
        self._channel = channel

    @property
    def journal(self) -> Journal | None:
        return self._session.journal

    @property
    def settings(self) -> SandboxSettings:
        return self._session.settings

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def identity(self) -> Mapping[str, object]:
        """What of an event is not the sandbox's own."""
        return {"pid": self.pid}

    @property
    def finished(self) -> bool:
        """Whether it has ended, or its sandbox has; never waits."""
        return self._channel.finished

    async def send_signal(self, signal: int | str, *, tree: bool = False) -> None:
        """Send a signal, by number or by name (`"SIGHUP"`, `"HUP"`), to the process or to all of its tree."""
        body = BodyWriter().u32(_signal_number(signal)).u8(tree)
        await self._channel.request(Request.SIGNAL, body.bytes())

    async def terminate(self, grace: float = DEFAULT_GRACE) -> None:
        """Send SIGTERM to its whole tree, SIGKILL after the grace (seconds) to what is left; wait until all is gone.

        A terminal sends SIGHUP before that, as when its window is closed: an interactive shell ignores SIGTERM.
        """
        async with self._session.losing():
            await self._channel.terminate(grace)

    async def kill(self) -> None:
        """Kill its whole tree, and wait until all are gone."""
        await self.terminate(grace=0)

    async def wait(self, timeout: float | None = None) -> ProcessExit:
        """Wait for its end; output that nobody has read yet can be read afterwards.

        A process of start() that writes more than a mebibyte which nobody reads never ends, as on any full pipe.
        Raises ProcessStillRunning after `timeout` seconds, CommandLost.
        """
        with command_errors(self.command, self._session.settings):
            async with self._session.losing():
                try:
                    async with asyncio.timeout(timeout):
                        report = await self._channel.exit()
                except TimeoutError:
                    raise ProcessStillRunning(self.command, timeout or 0) from None
        return process_exit(report, self._session.settings)

    async def close(self) -> None:
        """Kill what is left of its tree and wait until it is gone. Idempotent; no error if the sandbox is gone."""
        await self._channel.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class ProcessHandle(RunningCommand):
    """A command that start() began."""

    def __init__(self, session: SessionBase, command: str | Sequence[str], channel: Channel) -> None:
        super().__init__(session, command, channel)
        self.stdout = OutputReader(session, command, channel, 0)
        self.stderr = OutputReader(session, command, channel, 1)

    async def write(self, content: bytes) -> None:
        """Write to its standard input, as fast as it reads. Raises BrokenPipeError once nothing reads it any more."""
        async with self._session.losing():
            if not await self._channel.send(content):
                raise BrokenPipeError(errno.EPIPE, "nothing reads the standard input of", str(self.command))

    async def close_stdin(self) -> None:
        """End its standard input. Idempotent."""
        await self._channel.send_eof()


class OutputReader:
    """One output stream of a running process. Whoever reads it makes room for more."""

    def __init__(self, session: SessionBase, command: str | Sequence[str], channel: Channel, stream: int) -> None:
        self._session = session
        self._command = command
        self._channel = channel
        self._stream = stream
        self._unread = bytearray()  # the beginning of a line whose end has not come

    async def read_some(self) -> bytes:
        """Return what has been written, waiting for at least one byte; b"" at the end."""
        if self._unread:
            return self._take(len(self._unread))
        async with self._session.losing():
            return await self._channel.receive(self._stream)

    async def read_line(self) -> bytes:
        """Return the next line with its newline; the last one may lack it; b"" at the end."""
        searched = 0
        while (end := self._unread.find(b"\n", searched) + 1) == 0 and len(self._unread) < LONGEST_LINE:
            searched = len(self._unread)
            async with self._session.losing():
                chunk = await self._channel.receive(self._stream)
            if not chunk:
                return self._take(len(self._unread))
            self._unread += chunk
        return self._take(end or LONGEST_LINE)

    async def wait_for(self, text: str | bytes | re.Pattern[bytes], *, timeout: float = 30.0) -> bytes:
        """Return the next line that has a text, or in which a pattern is found; those before it are dropped.

        Raises NotAnswering after `timeout` seconds, OutputEnded; both show the last lines.
        """
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(to_wire(text)))
        awaited = from_wire(pattern.pattern if isinstance(text, re.Pattern) else to_wire(text))
        seen: deque[bytes] = deque(maxlen=TAIL_LINES)
        try:
            async with asyncio.timeout(timeout):
                async for line in self.lines():
                    seen.append(line)
                    if pattern.search(line):
                        return line
        except TimeoutError:
            last = b"".join([*seen, self._unread])
            raise NotAnswering(
                f"`{shown(self._command)}`, a line with {awaited!r},",
                self._session.name,
                timeout,
                tail(last, "its last lines") or "no output",
            ) from None
        raise OutputEnded(self._command, awaited, b"".join(seen))

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines as they come, each with its newline."""
        while line := await self.read_line():
            yield line

    def _take(self, count: int) -> bytes:
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken


async def _ended(channel: Channel, wait_all: bool) -> None:
    await channel.exit()
    if wait_all:
        await channel.wait_closed()


async def _fed_and_ended(channel: Channel, source: bytes | str | BinaryIO, wait_all: bool) -> None:
    """Feed the command while it runs. Its end ends the feeding; a source that fails ends the wait with its error."""
    feeding = asyncio.create_task(_feed(channel, source))
    ending = asyncio.create_task(_ended(channel, wait_all))
    try:
        await asyncio.wait((feeding, ending), return_when=asyncio.FIRST_COMPLETED)
        if feeding.done():
            feeding.result()
        await ending
    finally:
        feeding.cancel()
        ending.cancel()
        await asyncio.wait((feeding, ending))


async def _feed(channel: Channel, source: bytes | str | BinaryIO) -> None:
    async with contextlib.aclosing(chunks(source)) as pieces:
        async for piece in pieces:
            if not await channel.send(piece):
                return
    await channel.send_eof()


async def _result(command: str | Sequence[str], channel: Channel, settings: SandboxSettings) -> ExecResult:
    report = await channel.exit()
    streams = []
    for number, written in ((0, report.stdout), (1, report.stderr)):
        content = channel.take(number)
        total = channel.total(number)
        # The stream's EOF counts what background children wrote as well; a claim of less than what came is no claim.
        streams.append(Output(content, max(written if total is None else total, len(content))))
    return ExecResult(
        command=command if isinstance(command, str) else tuple(command),
        exit_code=report.status,
        stdout=streams[0],
        stderr=streams[1],
        duration=report.duration,
        usage=_usage(report),
        survivors=report.survivors and not channel.closed,
        limits=_limits(report, settings),
    )


def _limits(report: ExitReport, settings: SandboxSettings) -> tuple[LimitHit, ...]:
    """What a failed command ran into. That a file grew too large only the signal tells, or a shell that had it."""
    hits = []
    if report.hits & HIT_MEMORY:
        hits.append(LimitHit(Limit.MEMORY, settings.memory))
    if report.hits & HIT_PIDS:
        hits.append(LimitHit(Limit.PIDS, settings.pids))
    if settings.file_size is not None and report.status in (-SIGNALS["XFSZ"], 128 + SIGNALS["XFSZ"]):
        hits.append(LimitHit(Limit.FILE_SIZE, settings.file_size))
    return tuple(hits)


def process_exit(report: ExitReport, settings: SandboxSettings) -> ProcessExit:
    """How a command ended whose output went elsewhere."""
    return ProcessExit(
        exit_code=report.status,
        duration=report.duration,
        usage=_usage(report),
        survivors=report.survivors,
        stdout_bytes=report.stdout,
        stderr_bytes=report.stderr,
        limits=_limits(report, settings),
    )


def _usage(report: ExitReport) -> ResourceUsage:
    return ResourceUsage(user_seconds=report.user, system_seconds=report.system, peak_bytes=report.peak)


@contextlib.contextmanager
def command_errors(command: str | Sequence[str], settings: SandboxSettings) -> Iterator[None]:
    try:
        yield
    except AgentFailure as failure:
        raise _command_error(command, failure, settings) from None


def _command_error(command: str | Sequence[str], failure: AgentFailure, settings: SandboxSettings) -> SandboxError:
    if failure.operation == "supervisor":
        return CommandLost(command)
    if failure.operation == "setrlimit":
        return LimitNotAvailable(
            failure.subject, str(getattr(settings, failure.subject)), "the engine gives its containers less"
        )
    return command_not_started(command, failure.errno, failure.operation, failure.subject)


def _assignment(name: str, value: str | Secret) -> bytes:
    if not name or "=" in name:
        raise ValueError(f"environment variable name {name!r}")
    return _without_nul(f"{name}={revealed(value)}", "environment variable")


def _without_nul(text: str, what: str) -> bytes:
    raw = to_wire(text)
    if b"\0" in raw:
        raise ValueError(f"{what} {masked(repr(text))} has a NUL byte")
    return raw


def _signal_number(signal: int | str) -> int:
    if isinstance(signal, int):
        number: int | None = int(signal) if 0 < signal <= 64 else None
    else:
        number = SIGNALS.get(signal.upper().removeprefix("SIG"))
    if number is None:
        raise ValueError(f"signal {signal!r}; expected a name such as SIGTERM or a number from 1 to 64")
    return number
