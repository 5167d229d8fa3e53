"""Datagrams between a UDP socket of the tests' machine and a port of a sandbox; what starts the relays is in ports.py.

Each address that sends something is a *flow*: a relay of its own in the sandbox, so that the program there sees
different senders, and its answers find the right one. As everywhere with UDP, what there is no room for is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct

from ..errors import SandboxError
from .processes import ProcessHandle

logger = logging.getLogger(__name__)

MOST_FLOWS = 64  # of a port, each a process in the sandbox; beyond it the one that was silent for longest ends
IDLE = 60.0  # seconds without a datagram in either direction, after which a flow ends
WAITING = 64  # datagrams of a flow that its relay has not taken yet
LARGEST = 0xFFFF
_LENGTH = Struct("<H")

Address = tuple[str, int]


@dataclass(eq=False)
class _Flow:
    """What one address sends. used: when something went by last, in the loop's time."""

    used: float
    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(WAITING))
    task: asyncio.Task[None] | None = None


class DatagramRelay:
    """A bound socket and its flows. start: begins a relay to the port in the sandbox. name: of that, for the log."""

    def __init__(self, sock: socket.socket, start: Callable[[], Awaitable[ProcessHandle]], name: str) -> None:
        self._socket = sock
        self._start = start
        self._name = name
        self._flows: dict[Address, _Flow] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # of flows, those included that end

    async def serve(self) -> None:
        """Relay until cancelled; then the socket is closed and every flow has ended."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    datagram, sender = await loop.sock_recvfrom(self._socket, LARGEST)
                except ConnectionError:
                    continue  # some systems say so when an answer found nobody
                self._take(datagram, sender, loop.time())
        finally:
            self._socket.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _take(self, datagram: bytes, sender: Address, now: float) -> None:
        flow = self._flows.get(sender)
        if flow is None:
            flow = self._flows[sender] = _Flow(now)
            flow.task = asyncio.create_task(self._carry(sender, flow), name=f"datagrams to {self._name}")
            self._tasks.add(flow.task)
            flow.task.add_done_callback(self._tasks.discard)
            if len(self._flows) > MOST_FLOWS:
                self._end(min(self._flows, key=lambda each: self._flows[each].used))
        flow.used = now
        try:
            flow.waiting.put_nowait(datagram)
        except asyncio.QueueFull:
            logger.debug("port.datagram.lost port=%s bytes=%s", self._name, len(datagram))

    def _end(self, sender: Address) -> None:
        task = self._flows.pop(sender).task
        if task is not None:
            task.cancel()

    async def _carry(self, sender: Address, flow: _Flow) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with await self._start() as process:
                sending = asyncio.create_task(_send(flow, process))
                try:
                    received = bytearray()
                    while chunk := await process.stdout.read_some():
                        received += chunk
                        flow.used = loop.time()
                        for datagram in taken(received):
                            self._answer(datagram, sender)
                    self._forget(sender, flow)  # before the relay's end is over: what comes from now on begins another
                    status = (await process.wait()).exit_code
                    logger.debug("port.flow.ended port=%s reason=%s", self._name, os.strerror(status) if status else "")
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
        except (OSError, SandboxError) as error:
            logger.debug("port.flow.failed port=%s reason=%s", self._name, error)
        finally:
            self._forget(sender, flow)

    def _forget(self, sender: Address, flow: _Flow) -> None:
        if self._flows.get(sender) is flow:
            del self._flows[sender]

    def _answer(self, datagram: bytes, sender: Address) -> None:
        try:
            self._socket.sendto(datagram, sender)
        except OSError as error:  # no room, or larger than this side can send: lost, as datagrams are
            logger.debug("port.datagram.lost port=%s bytes=%s reason=%s", self._name, len(datagram), error)


async def _send(flow: _Flow, process: ProcessHandle) -> None:
    """Pass on what comes, until nothing has gone by in either direction for long; that is the flow's end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout_at(flow.used + IDLE):
                datagram = await flow.waiting.get()
        except TimeoutError:
            if loop.time() < flow.used + IDLE:
                continue  # an answer has gone by meanwhile
            await process.close_stdin()
            return
        try:
            await process.write(_LENGTH.pack(len(datagram)) + datagram)
        except BrokenPipeError:
            return  # the relay's end says why
        flow.used = loop.time()


def taken(received: bytearray) -> Iterator[bytes]:
    """Take the datagrams that have come whole out of what a relay has written."""
    while len(received) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
        if len(received) < end:
            return
        datagram = bytes(received[_LENGTH.size : end])
        del received[:end]
        yield datagram
