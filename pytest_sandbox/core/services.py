"""What the image runs by itself, beside the commands: its entrypoint, kept an eye on."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping

from ..agent.client import Bell, Channel, ConnectionLost
from ..agent.wire import UNLIMITED, BodyReader, Kind, from_wire, to_wire
from ..errors import NoService, NotAnswering, ServiceFailed, tail
from ..models import MEBIBYTE, Output, ProcessExit
from ..secret import Secret
from .events import observed
from .processes import MERGE_STDERR, ProcessOperations, RunningCommand, command_errors, process_exit
from .session import SessionBase
from .transcript import Ring

LOG_BYTES = MEBIBYTE  # kept of what a service has written, the last of it
STOP_GRACE = 10.0  # seconds to write out what it has to, as `docker stop` gives
DEFAULT_WAIT = 30.0  # seconds
LAST_ATTEMPT = 1.0  # seconds in which something else may answer, when the service has ended before the first one


class ServiceOperations(ProcessOperations):
    """start_service, and the service that there is."""

    _service: ServiceHandle | None = None

    @property
    def service(self) -> ServiceHandle:
        """The one that was started last, running or not. Raises NoService."""
        if self._service is None:
            raise NoService(self.name, "none was started; set service=True, or call start_service()")
        return self._service

    @property
    def has_service(self) -> bool:
        return self._service is not None

    async def start_service(self, *arguments: str, env: Mapping[str, str | Secret] | None = None) -> ServiceHandle:
        """Start what the image runs by itself: its entrypoint, as the image's user, in the image's directory.

        arguments: in place of the image's CMD, as after `docker run IMAGE`. env: added to the sandbox's.
        Its standard streams are read all the time; input it has none. It lives until it ends, is killed, or the test
        ends. One that still runs is killed first.
        Raises NoService for an image without entrypoint and command; CommandNotStarted and its kinds.
        """
        program = self.container.program
        command = (*program.entrypoint, *(arguments or program.arguments))
        if not command:
            raise NoService(
                self.name, f"image {self.container.image} has neither ENTRYPOINT nor CMD; run a command with start()"
            )
        if self._service is not None:
            await self._service.kill()
        user = None if self.image_user == self.default_user else self.image_user
        body = self._exec_body(command, flags=MERGE_STDERR, cwd=program.directory, env=env, user=user, cap=UNLIMITED)
        with command_errors(command, self.settings):
            async with self.losing():
                channel = await self._client.open(Kind.EXEC, body)
        self._service = ServiceHandle(self, command, channel, program.stop_signal)
        return self._service

    async def begin_service(self) -> None:
        """Start the service of a lease that is to have one, unless it has been left running for it."""
        if self._service is not None and self._service.finished:
            self._service = None
        if not self.settings.service:
            self._service = None
        elif self._service is None:
            await observed(ServiceOperations.start_service, self, (), {})

    async def end_service(self) -> None:
        """Stop the service in good order, if one runs."""
        if self._service is not None:
            await self._service.stop()

    async def _sweep(self) -> BodyReader:
        if self._service is not None:
            self._service.expect_end()
        return await super()._sweep()

    async def _unless_service_fails(self, waiting: asyncio.Task[None], tried: asyncio.Event, awaited: str) -> None:
        """Wait for a task; give it up as soon as the service has ended by itself. Raises ServiceFailed.

        tried: one attempt is over; that one is waited for, as something else may answer.
        """
        if self._service is None:
            await waiting
            return
        failing = asyncio.create_task(_failure(self._service, tried, awaited), name=f"end of a service of {self.name}")
        try:
            await asyncio.wait((waiting, failing), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and (failure := failing.result()) is not None:
                raise failure
            await waiting
        finally:
            failing.cancel()
            waiting.cancel()
            await asyncio.wait((waiting, failing))


async def _failure(service: ServiceHandle, tried: asyncio.Event, awaited: str) -> ServiceFailed | None:
    failure = await service.failure(awaited)
    if failure is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ATTEMPT):
                await tried.wait()
    return failure


class ServiceHandle(RunningCommand):
    """A running service, or one that has ended; what it writes, to either stream, is its log."""

    def __init__(
        self,
        session: SessionBase,
        command: tuple[str, ...],
        channel: Channel,
        stop_signal: str,
    ) -> None:
        super().__init__(session, command, channel)
        self._stop_signal = int(stop_signal) if stop_signal.isdecimal() else stop_signal
        self._ring = Ring(LOG_BYTES)
        self._changed = Bell()
        self._over = False  # all of its log is here
        self._expected = False  # its end: somebody here has asked for it
        self._reading = asyncio.create_task(self._read(), name=f"service log {self.pid}")

    @property
    def exit(self) -> ProcessExit | None:
        """How it ended; None while it runs, and if that can't be known."""
        report = self._channel.exit_report
        return None if report is None else process_exit(report, self._session.settings)

    async def log(self) -> Output:
        """The last mebibyte of what it wrote to either stream; `total_bytes` counts all."""
        return Output(self._ring.content(), self._ring.total)

    async def wait_for(self, text: str | bytes | re.Pattern[bytes], *, timeout: float = DEFAULT_WAIT) -> bytes:
        """Return the first line of its log that has a text, or in which a pattern is found; it may be there already.

        Raises NotAnswering after `timeout` seconds, with the last lines; ServiceFailed once it has ended without.
        """
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(to_wire(text)))
        awaited = f"a line with {from_wire(pattern.pattern if isinstance(text, re.Pattern) else to_wire(text))!r}"
        searched = 0
        try:
            async with self._session.losing(), asyncio.timeout(timeout):
                while True:
                    over = self._over
                    line, searched = self._line_with(pattern, searched)
                    if line is not None:
                        return line
                    if over:
                        await self._channel.wait_closed()  # at once, unless it is the sandbox that is lost
                        raise self._failed(f"{awaited} did not come")
                    await self._changed.wait()
        except TimeoutError:
            seen = tail(self._ring.content(), "its last lines") or "no output"
            raise NotAnswering(f"the service's log, {awaited},", self.name, timeout, seen) from None

    async def stop(self, grace: float = STOP_GRACE) -> ProcessExit | None:
        """Ask it to end, with the image's STOPSIGNAL; after `grace` seconds kill what is left. Return how it ended."""
        self.expect_end()
        if not self.finished:
            await self.send_signal(self._stop_signal)
            try:
                async with self._session.losing(), asyncio.timeout(grace):
                    await self._channel.wait_closed()
            except TimeoutError:
                pass
        await self.kill()
        return self.exit

    async def terminate(self, grace: float = STOP_GRACE) -> None:
        """Send SIGTERM to its whole tree, SIGKILL after the grace (seconds) to what is left; wait until all is gone."""
        self.expect_end()
        await super().terminate(grace)

    async def close(self) -> None:
        self.expect_end()
        await super().close()

    def expect_end(self) -> None:
        """Take its end for no failure: it is asked for."""
        self._expected = True

    async def failure(self, awaited: str) -> ServiceFailed | None:
        """Wait until nothing of it is left that could answer; what to raise then, or None if that was to be expected.

        A program that puts itself into the background and ends with 0 has not failed: its children are it.
        """
        with contextlib.suppress(ConnectionLost):  # whoever waits for an answer is told
            await self._channel.wait_closed()
            while not self._over:
                await self._changed.wait()
            if not self._expected:
                return self._failed(awaited)
        return None

    def _failed(self, what_did_not_come: str) -> ServiceFailed:
        return ServiceFailed(self.command, self.name, self.exit, what_did_not_come, self._ring.content())

    def _line_with(self, pattern: re.Pattern[bytes], searched: int) -> tuple[bytes | None, int]:
        """Return the first whole line with a match, of those that were not searched; and up to where it was searched.

        The last line is whole without its newline once there is nothing more to come.
        """
        kept = self._ring.content()
        dropped = self._ring.total - len(kept)
        for line in kept[max(searched - dropped, 0) :].splitlines(keepends=True):
            if not line.endswith(b"\n") and not self._over:
                break
            if pattern.search(line):
                return line, searched
        return None, self._ring.total - (0 if self._over else len(kept) - kept.rfind(b"\n") - 1)

    async def _read(self) -> None:
        try:
            while chunk := await self._channel.receive():
                self._ring.append(chunk)
                self._changed.ring()
        except ConnectionLost:
            pass  # whoever uses the sandbox is told
        finally:
            self._over = True
            self._changed.ring()
