"""Ports of programs in a sandbox, reached from the tests' machine; and waiting until they answer.

No network is needed and nothing is published by the engine: each connection is a command in the sandbox, the agent
itself, that joins its standard streams to the port; with UDP each sender is one (datagrams.py). So whoever connects
reaches the program or is refused, as it is there; a program that listens on the sandbox's loopback only is reached as
well, and so is one behind a remote engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ..agent.wire import UNLIMITED
from ..errors import (
    CommandNotStarted,
    CommandTimeout,
    FileOperationError,
    InvalidPort,
    InvalidSetting,
    NotAnswering,
    PortTaken,
    SandboxClosed,
    SandboxError,
    shown,
)
from ..models import Endpoint
from .datagrams import DatagramRelay
from .files import FileOperations
from .processes import REPLACE_ENVIRONMENT, STDIN_PIPED, ProcessHandle
from .services import ServiceOperations

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PROTOCOLS = ("tcp", "udp")
HIGHEST_PORT = 65535
CHUNK = 64 * 1024
DEFAULT_WAIT = 30.0  # seconds
# Neither a kernel nor a program has an event for "I answer now", so whoever waits for that has to try again.
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25  # seconds: 0.01, 0.02, 0.04 …
_LISTENING = re.compile(rb"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:0000 0A ", re.MULTILINE)  # proc(5); 0A: LISTEN
TABLE_BYTES = 16 * 1024 * 1024  # of /proc/net/tcp: 100,000 connections
STATUS_BYTES = 64 * 1024  # of an answer, in which its first line should have ended


@dataclass
class _Forwarding:
    """A socket of ours, and what goes through it. server: None for one that is closed with its only task."""

    endpoint: Endpoint
    server: asyncio.Server | None
    connections: set[asyncio.Task[None]] = field(default_factory=set)


class PortOperations(ServiceOperations, FileOperations):
    """endpoint, and wait_for_…"""

    async def endpoint(self, port: int, *, protocol: Literal["tcp", "udp"] = "tcp", host_port: int = 0) -> Endpoint:
        """Return where a port of the sandbox is reached from the tests' machine, on its loopback interface.

        Whether anything listens there is another question: wait_for_port() waits for that, of TCP. Nobody can tell
        whether a UDP port is served but by what the program answers; what is sent to one that is not is lost.
        host_port: 0 for a free one. The same port has the same endpoint until the test ends, which ends its connections
        as well. Raises InvalidPort, PortTaken, SandboxLost; InvalidSetting for another protocol.
        """
        _check_port(port)
        if host_port:
            _check_port(host_port)
        if protocol not in PROTOCOLS:
            raise InvalidSetting("protocol", protocol, "`tcp` or `udp`")
        await self.exists(".", user="")  # a sandbox that is gone says so here: a socket can only break off
        async with self._endpoint_lock:
            known = self._forwardings.get((port, protocol))
            if known is not None and host_port in (0, known.endpoint.port):
                return known.endpoint
            if known is not None:
                raise PortTaken(host_port, f"port {port} of the sandbox is at {known.endpoint} already")
            try:
                opened = await (self._listen(port, host_port) if protocol == "tcp" else self._bind(port, host_port))
            except OSError as error:
                raise PortTaken(host_port, os.strerror(error.errno or 0)) from None
            self._forwardings[port, protocol] = opened
        if self._closing is not None:  # meanwhile; whoever closed it did not know of this one
            await self.close_ports()
            raise SandboxClosed(self.name)
        return opened.endpoint

    async def wait_for_port(self, port: int, *, timeout: float = DEFAULT_WAIT) -> Endpoint:
        """Return the endpoint of a port once a program in the sandbox accepts connections there.

        Raises NotAnswering after `timeout` seconds, with what was tried and what listens instead; ServiceFailed as soon
        as the sandbox's service has ended by itself; what endpoint() raises; SandboxLost.
        """

        async def accepted() -> tuple[bool, str]:
            async with self._connected(port):
                return True, ""

        await self._until(f"port {port}", accepted, timeout)
        return await self.endpoint(port)

    async def wait_for_http(
        self, port: int, path: str = "/", *, status: int | Sequence[int] = 200, timeout: float = DEFAULT_WAIT
    ) -> Endpoint:
        """Return the endpoint of a port once a GET of that path is answered with a status, or one of several.

        Raises what wait_for_port() raises.
        """
        wanted = (status,) if isinstance(status, int) else tuple(status)
        request = f"GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode()

        async def answered() -> tuple[bool, str]:
            async with self._connected(port) as (first, process):
                with contextlib.suppress(BrokenPipeError):  # it has not read it to the end; that is no answer either
                    await process.write(request)
                answer = bytearray(first)
                while b"\n" not in answer and len(answer) < STATUS_BYTES:
                    chunk = await process.stdout.read_some()
                    if not chunk:
                        break
                    answer += chunk
            line = answer.partition(b"\n")[0].strip().decode("utf-8", "replace")[:200]
            words = line.split()
            number = words[1] if len(words) > 1 and words[0].startswith("HTTP/") else ""
            return number in map(
                str, wanted
            ), f"answered {line!r}" if line else "closed the connection without an answer"

        await self._until(f"http://localhost:{port}{path} with status {status}", answered, timeout)
        return await self.endpoint(port)

    async def wait_for_command(self, command: str | Sequence[str], *, timeout: float = DEFAULT_WAIT) -> None:
        """Return once a command succeeds; it is run again and again.

        Raises NotAnswering after `timeout` seconds, with the last run's result; CommandNotStarted at once;
        ServiceFailed; SandboxLost.
        """
        deadline = asyncio.get_running_loop().time() + timeout

        async def succeeded() -> tuple[bool, str]:
            left = max(deadline - asyncio.get_running_loop().time(), 0.001)
            try:
                result = await self.exec(command, timeout=left)
            except CommandTimeout as error:
                return False, str(error)
            written = (result.stderr or result.stdout).text.strip()[-500:]
            return result.ok, f"exit code {result.exit_code}" + (f", {written}" if written else "")

        await self._until(f"`{shown(command)}`", succeeded, timeout)

    async def close_ports(self) -> None:
        """End every endpoint and its connections. Idempotent."""
        forwardings, self._forwardings = self._forwardings, {}
        for forwarding in forwardings.values():
            if forwarding.server is not None:
                forwarding.server.close()
        connections = [task for forwarding in forwardings.values() for task in forwarding.connections]
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)

    @cached_property
    def _endpoint_lock(self) -> asyncio.Lock:
        """Held while a port gets its endpoint: it is to have one."""
        return asyncio.Lock()

    @cached_property
    def _forwardings(self) -> dict[tuple[int, str], _Forwarding]:
        return {}

    async def _listen(self, port: int, host_port: int) -> _Forwarding:
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(port, reader, writer), name=f"connection to {self.name}:{port}")
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, LOOPBACK, host_port)
        return _Forwarding(Endpoint(LOOPBACK, server.sockets[0].getsockname()[1]), server, connections)

    async def _bind(self, port: int, host_port: int) -> _Forwarding:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.setblocking(False)
            sock.bind((LOOPBACK, host_port))
            undo.pop_all()
        relay = DatagramRelay(sock, lambda: self._joined("connect-udp", port), f"{self.name}:{port}")
        task = asyncio.create_task(relay.serve(), name=f"datagrams of {self.name}:{port}")
        return _Forwarding(Endpoint(LOOPBACK, sock.getsockname()[1], "udp"), None, {task})

    async def _joined(self, how: str, port: int) -> ProcessHandle:
        """Start the agent as a command that joins its standard streams to a port."""
        # What runs where the command is to begin is the agent. Not by the name it was started by, which another root
        # file system or a build for tests has elsewhere, nor by its pid, for into that process nobody may look.
        command = ["/proc/self/exe", how, str(port)]
        # As the agent's own user and with its rights, for its executable others may not look up.
        body = self._exec_body(
            command, flags=STDIN_PIPED | REPLACE_ENVIRONMENT, cwd="/", env=None, user="", cap=UNLIMITED, trusted=True
        )
        return await self._started(command, body)

    @asynccontextmanager
    async def _connected(self, port: int) -> AsyncIterator[tuple[bytes, ProcessHandle]]:
        """Connect to a port in the sandbox: what it has said at once, and the process that is the connection.

        Raises InvalidPort; OSError as connect(2) does.
        """
        _check_port(port)
        async with await self._joined("connect", port) as process:
            begun = await process.stdout.read_some()
            if not begun:
                number = (await process.wait()).exit_code
                raise OSError(number, os.strerror(number))
            yield begun[1:], process

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection. A program that refuses it, or breaks it off, does so to whoever has connected."""
        try:
            async with self._connected(port) as (first, process):
                sending = asyncio.create_task(_send(reader, process))
                ending = asyncio.create_task(process.wait())
                try:
                    writer.write(first)
                    while chunk := await process.stdout.read_some():
                        writer.write(chunk)
                        await writer.drain()
                    writer.write_eof()  # of this direction: the other one has an end of its own
                    await asyncio.wait((sending, ending), return_when=asyncio.FIRST_COMPLETED)
                    if (await ending).exit_code:
                        writer.transport.abort()
                finally:
                    sending.cancel()
                    ending.cancel()
                    await asyncio.wait((sending, ending))
        except (OSError, SandboxError) as error:
            logger.debug("port.connection.failed sandbox=%s port=%s reason=%s", self.name, port, error)
            writer.transport.abort()
        finally:
            writer.close()

    async def _until(self, what: str, attempt: Callable[[], Awaitable[tuple[bool, str]]], timeout: float) -> None:
        """Try until an attempt says yes; it also says what it saw. Raises NotAnswering, ServiceFailed."""
        attempts = _Attempts(attempt)
        try:
            async with asyncio.timeout(timeout):
                trying = asyncio.create_task(attempts.until_one_succeeds(), name=f"waiting for {what}")
                await self._unless_service_fails(trying, attempts.tried, f"{what} did not answer")
        except TimeoutError:
            raise NotAnswering(what, self.name, timeout, attempts.seen, await self._listening()) from None

    async def _listening(self) -> tuple[int, ...]:
        """The TCP ports that something in the sandbox listens on, as far as it shows them."""
        ports = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                rows = await self._read_system(table, TABLE_BYTES)
            except FileOperationError:
                continue  # a kernel without IPv6, or a sandbox that has hidden it
            ports |= {int(number, 16) for number in _LISTENING.findall(rows)}
        return tuple(sorted(ports))


class _Attempts:
    """Something tried again and again. seen: by the last one that is over. tried: one is."""

    def __init__(self, attempt: Callable[[], Awaitable[tuple[bool, str]]]) -> None:
        self.seen, self.tried = "no answer yet", asyncio.Event()
        self._attempt = attempt

    async def until_one_succeeds(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                answers, self.seen = await self._attempt()
            except CommandNotStarted:
                raise
            except OSError as error:
                answers, self.seen = False, (error.strerror or str(error)).lower()
            if answers:
                return
            self.tried.set()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


async def _send(reader: asyncio.StreamReader, process: ProcessHandle) -> None:
    """Pass on what comes, and its end; until the program reads no more."""
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        while chunk := await reader.read(CHUNK):
            await process.write(chunk)
        await process.close_stdin()


def _check_port(port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= HIGHEST_PORT:
        raise InvalidPort(port)
