"""Terminals: programs driven the way a person would, and what the person would see."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from ..agent.client import AgentClient, AgentFailure, Bell, Channel, ConnectionLost
from ..agent.wire import UNLIMITED, BodyWriter, Kind, Request, to_wire
from ..engines.base import Engine, Started
from ..errors import InvalidSetting, TerminalEnded, TerminalTimeout
from ..models import EOF, MEBIBYTE, Collected, Output, SandboxSettings, TerminalMatch
from ..secret import Secret, revealed
from .keys import key_bytes, pasted
from .processes import REPLACE_ENVIRONMENT, ProcessOperations, RunningCommand, command_errors
from .screen import Screen
from .sources import in_thread
from .transcript import BYTES_PER_TOKEN, Excerpt, Pattern, PlainText, Ring, alternatives, find_first

logger = logging.getLogger(__name__)

DEFAULT_ROWS, DEFAULT_COLUMNS = 24, 80
LARGEST_SIZE = 65_535  # the kernel takes 16 bits: tty_ioctl(4)
DEFAULT_PATIENCE = 30.0  # seconds to wait for a program, unless the terminal or the call says otherwise
SCROLLBACK = 1000  # lines
DEFAULT_BUFFER = MEBIBYTE  # bytes kept of what a program wrote
DEFAULT_IDLE = 0.2  # seconds without output after which a program is taken to wait for input
TERM = "xterm-256color"  # what Screen understands
WINDOW = 256 * 1024  # bytes on their way; a terminal gives 4 KiB at a time
SCREEN_BACKLOG = 256 * 1024  # bytes of plain text not yet drawn: more than any screen with its scrollback shows
SCREEN_SLICE = 16 * 1024  # bytes drawn at a time, some 5 ms, before others get their turn
LAST_USED = 8  # terminals that are not evicted for having finished
LAST_TEXT = 4096  # bytes of the stream that a message is made from
WARN_BEFORE = 4  # terminals before the limit

T = TypeVar("T")
_uses = itertools.count(1)


class Recorder(Protocol):
    """What takes down a terminal's session; seconds count from its start."""

    def output(self, chunk: bytes, at: float) -> None: ...
    def input(self, chunk: bytes, at: float) -> None: ...
    def resize(self, rows: int, columns: int, at: float) -> None: ...
    def exit(self, status: int, at: float) -> None: ...


MakeRecorder = Callable[[str | Sequence[str], int, int, Mapping[str, str]], Recorder]


class TerminalOperations(ProcessOperations):
    """terminal(), and the terminals that there are.

    recorder: makes what takes down a new terminal, from its command, rows, columns and the environment it is given.
    """

    recorder: MakeRecorder | None = None

    def __init__(self, engine: Engine, settings: SandboxSettings, started: Started, client: AgentClient) -> None:
        super().__init__(engine, settings, started, client)
        self._terminals: list[TerminalHandle] = []  # in the order they were opened
        self._opening = 0

    async def terminal(
        self,
        command: str | Sequence[str] | None = None,
        *,
        rows: int = DEFAULT_ROWS,
        columns: int = DEFAULT_COLUMNS,
        cwd: str | None = None,
        env: Mapping[str, str | Secret] | None = None,
        replace_env: bool = False,
        user: str | int | None = None,
        timeout: float = DEFAULT_PATIENCE,
        buffer: int = DEFAULT_BUFFER,
    ) -> TerminalHandle:
        """Start a command on a terminal of its own; cwd, env, replace_env and user are those of exec().

        command: by default the user's shell, as the sandbox's passwd has it. TERM is xterm-256color unless set.
        timeout: seconds that waiting may take by default. buffer: bytes kept of the output, and characters of text that
        nothing was matched in yet; beyond it the oldest are dropped and counted.

        Beyond the setting `terminals` an older one is closed: one that has finished if it is not among the 8 last used,
        else the oldest. Raises CommandNotStarted and its kinds, TerminalNotAvailable among them; UsageError for a size.
        """
        _check_size("terminal", rows, columns)
        if buffer < 1:
            raise InvalidSetting("terminal(buffer=…)", buffer, "a number of bytes above 0")
        screen = Screen(rows, columns, SCROLLBACK)  # which has a limit of its own
        inherited = {} if replace_env else self.settings.environment
        variables = {**({} if "TERM" in inherited else {"TERM": TERM}), **(env or {})}
        body = self._exec_body(
            command, flags=REPLACE_ENVIRONMENT * replace_env, cwd=cwd, env=variables, user=user, cap=UNLIMITED
        )
        body += BodyWriter().u16(rows).u16(columns).bytes()
        shown = "shell" if command is None else command
        self._opening += 1
        try:
            await self._make_room()
            with command_errors(shown, self.settings):
                async with self.losing():
                    channel = await self._client.open(Kind.TERMINAL, body, window=WINDOW)
        finally:
            self._opening -= 1
        plain = {name: revealed(value) for name, value in variables.items()}
        recorder = self.recorder(shown, rows, columns, plain) if self.recorder is not None else None
        terminal = TerminalHandle(self, shown, channel, screen, timeout, buffer, recorder)
        self._terminals.append(terminal)
        return terminal

    async def close_terminals(self) -> None:
        """End all of them at once, each with its whole tree."""
        await asyncio.gather(*(terminal.close() for terminal in self._terminals))

    async def sweep(self) -> int:
        """Kill every process in the sandbox but the agent; return how many there were."""
        killed = await super().sweep()
        self._terminals.clear()
        return killed

    def forget(self, terminal: TerminalHandle) -> None:
        """Count a terminal no more."""
        if terminal in self._terminals:
            self._terminals.remove(terminal)

    async def _make_room(self) -> None:
        limit = self.settings.terminals
        while len(self._terminals) + self._opening > limit and self._terminals:
            evicted = expendable(self._terminals)
            logger.warning("terminal.evict sandbox=%s command=%s limit=%d", self.name, evicted.command, limit)
            await evicted.close(f"was closed because more than terminals={limit} were open")
        if (count := len(self._terminals) + self._opening) >= limit - WARN_BEFORE > 0:
            logger.warning("terminal.many sandbox=%s count=%d limit=%d", self.name, count, limit)


class Evictable(Protocol):
    @property
    def finished(self) -> bool: ...
    @property
    def last_used(self) -> int: ...


E = TypeVar("E", bound=Evictable)


def expendable(terminals: Sequence[E]) -> E:
    """Return the one to close for another, of terminals in the order they were opened."""
    recent = sorted(terminals, key=lambda terminal: terminal.last_used)[-LAST_USED:]
    finished = (terminal for terminal in terminals if terminal.finished and terminal not in recent)
    return next(finished, terminals[0])


class TerminalHandle(RunningCommand):
    """A command on a terminal, which is read all the time, whether anybody waits for its output or not.

    Its text is searched without control sequences, each line ending with a newline alone, and what was matched is not
    searched again.
    """

    def __init__(
        self,
        session: TerminalOperations,
        command: str | Sequence[str],
        channel: Channel,
        screen: Screen,
        timeout: float,
        buffer: int,
        recorder: Recorder | None,
    ) -> None:
        super().__init__(session, command, channel)
        self.recorder = recorder
        self.last_used = next(_uses)
        self._terminals = session
        self._timeout = timeout
        self._buffer = buffer
        self._ring = Ring(buffer)
        self._text = PlainText(buffer)
        self._screen = screen
        self._undrawn = bytearray()
        self._changed = Bell()
        self._closed = ""  # how, for messages
        self._started = asyncio.get_running_loop().time()
        self._tasks = (
            asyncio.create_task(self._read(), name=f"terminal output {self.pid}"),
            asyncio.create_task(self._watch(), name=f"terminal end {self.pid}"),
        )

    # --- input ---

    async def send(self, content: str | bytes, *, timeout: float | None = None) -> None:
        """Type it, exactly; the Enter key is `\\r`.

        A program that does not read lets some 300 KB wait. Raises TerminalTimeout when it takes no more, having got a
        part perhaps; TerminalEnded.
        """
        raw = content if isinstance(content, bytes) else to_wire(content)
        limit = self._timeout if timeout is None else timeout
        self.last_used = next(_uses)
        async with self._terminals.losing():
            try:
                async with asyncio.timeout(limit):
                    if self._over or not await self._channel.send(raw):
                        raise await self._ended("take input")
            except TimeoutError:
                raise self._timeout_error(limit, f"take {len(raw)} bytes of input") from None
        if self.recorder is not None:
            self.recorder.input(raw, self._now())

    async def sendline(self, line: str | bytes = "", *, timeout: float | None = None) -> None:
        """Type a line and press Enter."""
        await self.send(line + b"\r" if isinstance(line, bytes) else line + "\r", timeout=timeout)

    async def press(self, *keys: str, timeout: float | None = None) -> None:
        """Press keys one after the other: `enter`, `up`, `f5`, a character, or with modifiers `ctrl-c`, `shift-tab`.

        Cursor keys are sent the way the program has asked for. Raises UnknownKey before anything is sent.
        """
        application = self._drawn().application_cursor_keys
        await self.send(b"".join(key_bytes(key, application=application) for key in keys), timeout=timeout)

    async def paste(self, text: str, *, timeout: float | None = None) -> None:
        """Paste text, in brackets if the program has asked to be told pasted from typed."""
        await self.send(pasted(text, bracketed=self._drawn().bracketed_paste), timeout=timeout)

    # --- output ---

    async def expect(self, pattern: Pattern | Sequence[Pattern], *, timeout: float | None = None) -> TerminalMatch:
        """Wait for a text, a compiled regular expression or EOF, or for the first to come of several.

        Searched is what has come since the last match, without control sequences. EOF is the end of the command.
        timeout: seconds, by default the terminal's; float("inf") for no limit.
        Raises TerminalTimeout, TerminalEnded: nothing is lost then, and the next call searches the same text.
        """
        wanted = alternatives(pattern)
        awaited = f"show {' or '.join(map(_shown_pattern, wanted))}"
        match = await self._until(lambda: find_first(wanted, self._text.text, ended=self._over), timeout, awaited)
        self._text.take(len(match.before) + len(match.text))
        return match

    async def lines(self) -> AsyncGenerator[str, None]:
        """Yield the lines as they come, each with its newline, until the command ends; the last one may lack it."""
        while True:
            match = await self.expect(["\n", EOF], timeout=math.inf)
            if line := match.before + match.text:
                yield line
            if match.pattern is EOF:
                return

    async def wait_for_screen(
        self, condition: str | re.Pattern[str] | Callable[[Screen], object], *, timeout: float | None = None
    ) -> Screen:
        """Wait until the screen shows a text, a match, or what a function of it finds true; return it as it was then.

        The function is called whenever output has come, and must not use the sandbox. Raises TerminalTimeout,
        TerminalEnded.
        """
        awaited = "show what was waited for on its screen"
        if callable(condition):
            holds = condition
        elif isinstance(condition, str):
            awaited, text = f"show {condition!r} on its screen", condition
            holds = lambda screen: text in screen.text  # noqa: E731
        else:
            awaited, search = f"show {condition.pattern!r} on its screen", condition.search
            holds = lambda screen: search(screen.text)  # noqa: E731
        screen = await self._until(lambda: self._drawn() if holds(self._drawn()) else None, timeout, awaited)
        return screen.copy()

    async def read_until_idle(self, idle: float = DEFAULT_IDLE, *, timeout: float | None = None) -> str:
        """Take the text that comes until nothing has come for `idle` seconds, or the command has ended.

        Raises TerminalTimeout when it goes on longer than that.
        """
        limit = self._timeout if timeout is None else timeout
        excerpt = Excerpt(self._buffer // BYTES_PER_TOKEN)
        if not await self._gather(excerpt, limit, idle):
            raise self._timeout_error(limit, "come to rest")
        return excerpt.text

    async def collect(self, within: float, *, idle: float | None = None, max_tokens: int | None = None) -> Collected:
        """Take the text that comes within so many seconds, or until the command ends or is silent for `idle` seconds.

        max_tokens: the most that the text may be long, at 4 bytes each; beyond it head and tail are kept around a
        marker. By default what the terminal's buffer holds.
        """
        excerpt = Excerpt(self._buffer // BYTES_PER_TOKEN if max_tokens is None else max_tokens)
        await self._gather(excerpt, within, idle)
        return Collected(excerpt.text, excerpt.tokens, excerpt.truncated)

    async def output(self) -> Output:
        """Return the last bytes exactly as they were written, as many as the buffer takes; `total_bytes` counts all."""
        return Output(self._ring.content(), self._ring.total)

    async def screen(self) -> Screen:
        """Return what the terminal shows now; later output does not change it."""
        self.last_used = next(_uses)
        return self._drawn().copy()

    async def screenshot(self, path: str | os.PathLike[str]) -> None:
        """Draw what it shows now into a file, an SVG or a PNG by its suffix. Raises UsageError for another one.

        A PNG takes the extra `screenshots`: UsageError says so.
        """
        from .screenshot import save

        screen = await self.screen()
        await in_thread(lambda: save(screen, Path(path)))

    # --- its size and its end ---

    async def resize(self, rows: int, columns: int) -> None:
        """Give it another size; the programs in its foreground get SIGWINCH. Raises UsageError."""
        _check_size("resize", rows, columns)
        self._drawn().resize(rows, columns)
        await self._channel.request(Request.RESIZE, BodyWriter().u16(rows).u16(columns).bytes())
        if self.recorder is not None:
            self.recorder.resize(rows, columns, self._now())

    async def close(self, how: str = "was closed") -> None:
        """Kill what is left of its tree and wait until it is gone. Idempotent; no error if the sandbox is gone."""
        self._closed = self._closed or how
        self._terminals.forget(self)
        await self._channel.end()
        await asyncio.wait(self._tasks)

    # --- inside ---

    @property
    def _over(self) -> bool:
        """The command has ended, and all of its output is here; a child that it left may write on and on."""
        if self._closed:
            return True
        report = self._channel.exit_report
        whole = report is not None and self._ring.total >= report.stdout
        return self._channel.finished and (whole or not self._channel.waiting(0))

    async def _until(self, look: Callable[[], T | None], timeout: float | None, awaited: str) -> T:
        """Look after each change until there is something. Raises TerminalTimeout, TerminalEnded, SandboxLost."""
        limit = self._timeout if timeout is None else timeout
        self.last_used = next(_uses)
        async with self._terminals.losing():
            try:
                async with asyncio.timeout(limit) as clock:
                    while (found := look()) is None:
                        if self._over:
                            raise await self._ended(awaited)
                        await self._changed.wait()
                    return found
            except TimeoutError:
                if not clock.expired():
                    raise  # the condition's own
                raise self._timeout_error(limit, awaited) from None

    async def _gather(self, excerpt: Excerpt, within: float, idle: float | None) -> bool:
        """Move text into the excerpt; say whether it came to an end before the time was over."""
        self.last_used = next(_uses)
        async with self._terminals.losing():
            try:
                async with asyncio.timeout(within):
                    while True:
                        excerpt.add(self._text.take())
                        if self._over:
                            return True
                        try:
                            async with asyncio.timeout(idle):
                                await self._changed.wait()
                        except TimeoutError:
                            return True
            except TimeoutError:
                return False

    async def _ended(self, awaited: str) -> TerminalEnded:
        """The error to raise now that it is over; how else it can be over is raised here."""
        how = self._closed
        if not how:
            with command_errors(self.command, self._session.settings):
                status = (await self._channel.exit()).status
            how = f"ended with exit code {status}" if status >= 0 else f"was ended by signal {-status}"
        return TerminalEnded(self.command, how, awaited, self._drawn().framed(), self._last_text())

    def _timeout_error(self, limit: float, awaited: str) -> TerminalTimeout:
        return TerminalTimeout(self.command, limit, awaited, self._drawn().framed(), self._last_text())

    def _last_text(self) -> str:
        text = PlainText(LAST_TEXT)
        text.feed(self._ring.content()[-LAST_TEXT:])
        return text.text

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    async def _read(self) -> None:
        try:
            while chunk := await self._channel.receive():
                self._ring.append(chunk)
                self._text.feed(chunk)
                if self.recorder is not None:
                    self.recorder.output(chunk, self._now())
                self._undrawn += chunk
                self._changed.ring()
                # Drawing takes a hundred times as long as all else, so plain text waits until somebody looks. A program
                # that draws may also ask the terminal something, and wait for the answer.
                if b"\x1b" in chunk:
                    while self._undrawn:
                        self._draw(SCREEN_SLICE)
                        await asyncio.sleep(0)
                else:
                    del self._undrawn[:-SCREEN_BACKLOG]
        except ConnectionLost:
            pass  # whoever uses the terminal is told
        finally:
            self._changed.ring()

    async def _watch(self) -> None:
        try:
            report = await self._channel.exit()
            while not self._over:
                await self._changed.wait()
            if self.recorder is not None:
                self.recorder.exit(report.status, self._now())
        except (AgentFailure, ConnectionLost):
            pass  # as above
        finally:
            self._changed.ring()

    def _drawn(self) -> Screen:
        if b"\x1b" not in self._undrawn:  # of plain text nobody sees what is beyond the scrollback
            seen = self._screen.rows + SCROLLBACK
            lines = self._undrawn.rsplit(b"\n", seen)
            if len(lines) > seen:
                del self._undrawn[: len(lines[0]) + 1]
        self._draw(len(self._undrawn))
        return self._screen

    def _draw(self, count: int) -> None:
        chunk = bytes(self._undrawn[:count])
        del self._undrawn[:count]
        # An answer that finds no room is for a program that does not read.
        self._channel.send_if_room(self._screen.feed(chunk))


def _check_size(source: str, rows: int, columns: int) -> None:
    for name, size in (("rows", rows), ("columns", columns)):
        if not 1 <= size <= LARGEST_SIZE:
            raise InvalidSetting(f"{source}({name}=…)", size, f"a whole number from 1 to {LARGEST_SIZE}")


def _shown_pattern(pattern: Pattern) -> str:
    return "its end" if pattern is EOF else repr(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
