"""Channels over one byte stream to an agent: who may send what, when, and how much of it.

Every byte from the agent is hostile: what docs/protocol.md does not allow at a moment ends the connection.
What an operation means is not known here, nor are engines or containers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ..engines.base import ByteStream
from ..errors import OperationStalled, ProtocolError
from .wire import (
    MAGIC,
    MAX_DATA,
    MAX_OPEN,
    MAX_WINDOW,
    NONCE_BYTES,
    VERSION,
    BodyReader,
    BodyWriter,
    Frame,
    FrameDecoder,
    FrameType,
    Kind,
    Request,
    encode_frame,
    from_wire,
)

logger = logging.getLogger(__name__)

UNREAD_LIMIT = 16 * 1024 * 1024  # bytes kept of what a command writes while it is being ended and nobody reads
DEFAULT_WINDOW = 1024 * 1024  # bytes in flight for each stream: 250 MB/s at a round trip of 4 ms
OUTBOUND_BYTES = 256 * 1024  # waiting to be written; senders of DATA pause beyond it
OUTBOUND_FRAMES = 100_000  # the same, of all kinds: beyond it the agent reads nothing, but sends and is granted windows
OPEN_BOUND = 60.0  # seconds for OPENED. A fork under heavy load takes milliseconds; an agent that needs longer is hung
END_BOUND = 10.0  # seconds for CLOSED after SIGKILL
BEAT = 5.0  # seconds between two looks at who waits for what
ASK_AFTER = 2  # beats without a byte from an agent that somebody waits for, until it is asked whether it is there
LOST_AFTER = 14  # the same, until it is given up: 70 s, which no load that lets tests pass makes of some milliseconds
STALL_AFTER = {Kind.SWEEP: 12}  # beats without a frame of an operation, until that is given up: it ends in milliseconds
STALL_BEATS = 60  # of the others: 300 s. The removal of a million files is silent for half a minute
COMMANDS = (Kind.EXEC, Kind.TERMINAL)
# The streams that each kind has, and no others. What is sent on them the host has allowed byte by byte, and every other
# frame comes once: so no agent can go on for ever with what nobody asked it for.
TAKING = (*COMMANDS, Kind.WRITE, Kind.HYDRATE, Kind.RESTORE)
GIVING = (*COMMANDS, Kind.READ, Kind.LIST, Kind.PERSIST, Kind.RESTORE, Kind.CHANGES)
HIT_MEMORY, HIT_PIDS = 1, 2  # in the hits of an EXIT
INPUT_REFUSED = 2  # the stream number by which an agent's EOF means our input


class AgentFailure(Exception):
    """The agent's FAILURE frame: Linux's errno, the step that failed, and what it concerned."""

    def __init__(self, errno: int, operation: str, subject: str) -> None:
        self.errno, self.operation, self.subject = errno, operation, subject
        super().__init__(errno, operation, subject)


class ConnectionLost(Exception):
    """The stream has ended, or was given up because the agent broke the protocol."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class AgentHello:
    """Who answered. build: the hash of what it was made from; pid, uid: as the agent sees itself."""

    version: int
    build: str
    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a command ended, as the agent saw it; nothing in it is more than a claim.

    status: exit code, or minus the signal. stdout, stderr: bytes written. Times in seconds, peak in bytes.
    hits: bits of HIT_…, limits that were hit in the sandbox while the command ran, if it failed.
    """

    status: int
    survivors: bool
    stdout: int
    stderr: int
    duration: float
    user: float
    system: float
    peak: int
    hits: int


class Bell:
    """Wakes all that wait for a change; they look for themselves what it was.

    A future for each waiter: a future that two coroutines awaited would be cancelled with either of them.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def awaited(self) -> bool:
        return bool(self._waiters)

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def ring(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(slots=True)
class _Inbound:
    """One stream from the agent. One bytearray, not a list of chunks: frames of one byte must not cost more memory."""

    credit: int  # bytes that the agent may still send
    buffer: bytearray = field(default_factory=bytearray)
    consumed: int = 0  # since the last WINDOW
    total: int | None = None  # from its EOF


class Channel:
    """One operation of the agent. Made by AgentClient.channel() and open(); used from the loop that made it."""

    def __init__(self, client: AgentClient, number: int, kind: Kind, window: int) -> None:
        self.pid = 0
        self.kind = kind
        self.opened = False
        self.closed = False
        self.exit_report: ExitReport | None = None
        self._client = client
        self._number = number
        self._window = window
        self._inbound = (_Inbound(window), _Inbound(window))
        self._discarded = False
        self._bell = Bell()
        self._stirred = False  # a frame has come since the last beat
        self._still_beats = 0
        self._stalled = False
        self._result: bytes | None = None
        self._failure: AgentFailure | None = None
        self._send_window = 0  # the most that it ever lets us send ahead
        self._send_credit = 0
        self._sent = 0
        self._input_refused = False
        self._input_ended = False

    # --- what the host does ---

    async def send(self, chunk: bytes | memoryview) -> bool:
        """Send all of the chunk as fast as the agent takes it; False as soon as it takes no more."""
        view = memoryview(chunk)
        while view:
            await self._until_sendable()
            if self._takes_no_input:
                return False
            size = min(len(view), self._send_credit, MAX_DATA)
            self._client.post(FrameType.DATA, self._number, b"\0", view[:size])
            self._send_credit -= size
            self._sent += size
            view = view[size:]
        return not self._takes_no_input

    def send_if_room(self, chunk: bytes) -> bool:
        """Send all of a small chunk now, or nothing: for what must not wait."""
        if self._takes_no_input or len(chunk) > min(self._send_credit, MAX_DATA):
            return False
        if chunk:
            self._client.post(FrameType.DATA, self._number, b"\0", chunk)
            self._send_credit -= len(chunk)
            self._sent += len(chunk)
        return True

    async def send_eof(self) -> None:
        """End the input; a second time is the first."""
        if not self._input_ended and not self.closed:
            self._input_ended = True
            self._client.post(FrameType.EOF, self._number, BodyWriter().u8(0).u64(self._sent).bytes())

    async def receive(self, stream: int = 0) -> bytes:
        """Return what has come, at least one byte, or b"" when the stream or the channel has ended."""
        inbound = self._inbound[stream]
        while not inbound.buffer:
            if inbound.total is not None or self.closed or self._operation_ended:
                return b""
            await self._change()
        chunk = self.take(stream)
        inbound.consumed += len(chunk)
        # Half a window at a time: a WINDOW frame for each chunk would cost as much as the chunks.
        if inbound.consumed * 2 >= self._window and inbound.total is None and not self.closed:
            self._client.post(FrameType.WINDOW, self._number, BodyWriter().u8(stream).u32(inbound.consumed).bytes())
            inbound.credit += inbound.consumed
            inbound.consumed = 0
        return chunk

    def take(self, stream: int) -> bytes:
        """Return what has come so far, without waiting and without granting window for it."""
        buffer = self._inbound[stream].buffer
        chunk = bytes(buffer)
        buffer.clear()
        return chunk

    def waiting(self, stream: int) -> bool:
        """Whether something has come that nobody has taken."""
        return bool(self._inbound[stream].buffer)

    def total(self, stream: int) -> int | None:
        """How many bytes the command wrote in all, capped or not; None before the stream's EOF."""
        return self._inbound[stream].total

    async def request(self, request: Request, body: bytes = b"") -> None:
        """Post a request; nothing answers it."""
        self._post_request(request, body)

    async def result(self) -> bytes:
        """Wait for the end of an operation. Raises AgentFailure, ConnectionLost, OperationStalled."""
        while self._result is None:
            if self._failure is not None:
                raise self._failure
            await self._change()
        return self._result

    async def exit(self) -> ExitReport:
        """Wait for the end of a command; its children may live on. Raises AgentFailure, ConnectionLost."""
        while self.exit_report is None:
            if self._failure is not None:
                raise self._failure
            await self._change()
        return self.exit_report

    async def wait_closed(self) -> None:
        """Wait until the agent has nothing left of it: for a command, until the last process of its tree is gone."""
        while not self.closed:
            await self._change()

    async def wait_readable(self) -> None:
        """Wait until something of a command's main stream has come, or the command is over."""
        while not self.waiting(0) and self.exit_report is None and not self._operation_ended and not self.closed:
            await self._change()

    async def wait_opened(self) -> None:
        """Wait for OPENED. Raises AgentFailure when the operation could not begin."""
        while not self.opened and not self.closed:
            await self._change()
        if not self.opened and self._failure is not None:
            raise self._failure

    def discard(self) -> None:
        """Leave a command's survivors to themselves.

        The agent throws their output away, so they never block on it; the client forgets the channel at CLOSED.
        """
        if not self.closed:
            self._discarded = True
            self._post_request(Request.DISCARD)

    async def terminate(self, grace: float) -> None:
        """End a command's tree: SIGTERM, SIGKILL to what is left after the grace (seconds); wait until it is gone.

        The request is on its way before the first await. An agent that can't do it in time has failed: the
        connection is given up.
        """
        self._post_request(Request.TERMINATE, BodyWriter().u32(round(grace * 1000)).bytes())
        try:
            async with asyncio.timeout(grace + END_BOUND):
                while not self.closed:
                    self._make_room_for_the_rest()
                    await self._change()
        except TimeoutError:
            self._client.lose(f"the agent did not end a channel ({self.kind.name}) within {grace + END_BOUND:g} s")
            self._client.raise_if_lost()

    def _make_room_for_the_rest(self) -> None:
        """Let what is still in the pipes come, though nobody reads: behind a shut window CLOSED would never come."""
        for stream, inbound in enumerate(self._inbound):
            if inbound.credit > 0 or inbound.total is not None or self._discarded:
                continue
            if len(inbound.buffer) > UNREAD_LIMIT:
                self.discard()
                return
            self._client.post(FrameType.WINDOW, self._number, BodyWriter().u8(stream).u32(self._window).bytes())
            inbound.credit += self._window

    async def end(self) -> None:
        """Kill what still runs, and wait until it is gone; a caller cancelled meanwhile only loses the waiting."""
        if self.closed or self._discarded or self._nothing_left:
            return
        self.discard()
        try:
            await self.terminate(grace=0)
        except ConnectionLost:
            pass  # nothing of it is left, and whoever needs the connection is told by the next call

    def _post_request(self, request: Request, body: bytes = b"") -> None:
        if not self.closed:
            self._client.post(FrameType.REQUEST, self._number, bytes((request,)), body)

    async def _change(self) -> None:
        self._client.raise_if_lost()
        if self._stalled:
            self._stalled = False  # what follows is its end
            raise OperationStalled(self.kind.name.lower(), self._still_beats * BEAT)
        await self._bell.wait()

    async def _until_sendable(self) -> None:
        while not self._takes_no_input:
            self._client.raise_if_lost()
            if self._send_credit == 0:
                await self._change()
            elif self._client.congested:
                await self._client.written()
            else:
                return

    @property
    def finished(self) -> bool:
        """Whether the command or operation itself is over, one way or the other; of a command something may be left."""
        return self.exit_report is not None or self._operation_ended or self._client.lost is not None

    @property
    def _operation_ended(self) -> bool:
        return self._result is not None or self._failure is not None

    @property
    def _nothing_left(self) -> bool:
        """CLOSED follows without our doing."""
        return self._operation_ended or (self.exit_report is not None and not self.exit_report.survivors)

    @property
    def _takes_no_input(self) -> bool:
        return self._input_refused or self._input_ended or self.closed or self._operation_ended

    # --- what the agent does; called by the reader, must not wait ---

    def accept(self, frame_type: FrameType, payload: memoryview) -> None:
        """Take one frame of the agent. Raises ProtocolError if this is not its moment."""
        self._stirred = True
        if frame_type is FrameType.DATA:
            self._accept_data(payload)
        else:
            body = BodyReader(payload)
            self._accept_control(frame_type, body)
            body.done()
        self._bell.ring()

    def wake(self) -> None:
        """Let those who wait see that the connection is lost."""
        self._bell.ring()

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for a frame of it."""
        return self._bell.awaited

    def beat(self) -> None:
        """Give up an operation that is waited for and does not stir: its worker was stopped, or its disk hangs.

        A command may be silent for as long as its own timeout allows.
        """
        self._still_beats = 0 if self._stirred or not self.awaited else self._still_beats + 1
        self._stirred = False
        if self.kind not in COMMANDS and self._still_beats >= STALL_AFTER.get(self.kind, STALL_BEATS):
            self._stalled = True
            self._bell.ring()

    def _accept_data(self, payload: memoryview) -> None:
        size = len(payload) - 1
        self._require(size > 0 and size <= MAX_DATA and payload[0] in self._output_streams, FrameType.DATA)
        inbound = self._inbound[payload[0]]
        self._require(self.opened and inbound.total is None and not self._operation_ended, FrameType.DATA)
        if size > inbound.credit:
            raise ProtocolError(f"{size} bytes on channel {self._number}, whose window has {inbound.credit}")
        inbound.credit -= size
        if not self._discarded:
            inbound.buffer += payload[1:]

    def _accept_control(self, frame_type: FrameType, body: BodyReader) -> None:
        if frame_type is FrameType.OPENED:
            self._require(not self.opened and self._failure is None, frame_type)
            self._send_window = self._send_credit = body.u32()
            self.pid = body.u32()
            self.opened = True
        elif frame_type is FrameType.WINDOW:
            self._require(self.opened and body.u8() == 0, frame_type)
            credit = body.u32()
            self._require(0 < credit <= self._send_window - self._send_credit, frame_type)
            self._send_credit += credit
        elif frame_type is FrameType.EOF:
            self._accept_eof(body.u8(), body.u64())
        elif frame_type is FrameType.RESULT:
            self._require(self.opened and self.kind not in COMMANDS and not self._operation_ended, frame_type)
            self._result = body.rest()
        elif frame_type is FrameType.FAILURE:
            self._require(not self._operation_ended and self.exit_report is None, frame_type)
            self._failure = AgentFailure(body.u32(), from_wire(body.str()), from_wire(body.str()))
        elif frame_type is FrameType.EXIT:
            self._require(self.opened and self.kind in COMMANDS, frame_type)
            self._require(not self._operation_ended and self.exit_report is None, frame_type)
            self.exit_report = _read_exit(body)
        elif frame_type is FrameType.CLOSED:
            self._require(self._operation_ended or self.exit_report is not None, frame_type)
            self.closed = True
        else:
            raise ProtocolError(f"a {frame_type.name} frame, which only a host sends")

    @property
    def _output_streams(self) -> range:
        return range(2 if self.kind is Kind.EXEC else 1 if self.kind in GIVING else 0)

    def _accept_eof(self, stream: int, total: int) -> None:
        self._require(self.opened and stream <= INPUT_REFUSED, FrameType.EOF)
        if stream == INPUT_REFUSED:
            self._require(self.kind in TAKING and not self._input_refused, FrameType.EOF)
            self._input_refused = True
            return
        self._require(self._inbound[stream].total is None, FrameType.EOF)
        self._inbound[stream].total = total

    def _require(self, allowed: bool, frame_type: FrameType) -> None:
        if not allowed:
            raise ProtocolError(f"a {frame_type.name} frame on channel {self._number} ({self.kind.name}) out of turn")


def _read_exit(body: BodyReader) -> ExitReport:
    return ExitReport(
        status=body.i32(),
        survivors=bool(body.u8()),
        stdout=body.u64(),
        stderr=body.u64(),
        duration=body.u64() / 1e6,
        user=body.u64() / 1e6,
        system=body.u64() / 1e6,
        peak=body.u64(),
        hits=body.u8(),
    )


class AgentClient:
    """The host's end of an agent's stream: one task reads frames, one writes them, channels share both.

    One writer *task*, not a lock around the stream: a caller that is cancelled must not leave half a frame behind.
    """

    def __init__(self, stream: ByteStream) -> None:
        self.lost: str | None = None  # why, once it is
        self.other_version: int | None = None  # that the agent speaks, if it is not ours
        self._stream = stream
        self._channels: dict[int, Channel] = {}
        self._last_number = 0
        self._outbound: list[bytes] = []
        self._outbound_bytes = 0
        self._pausing = 0  # senders that wait for room
        self._outbound_bell = Bell()  # rung for the writer when there is work, for senders when there is room
        self._nonce = os.urandom(NONCE_BYTES)
        self._hello: AgentHello | None = None
        self._hello_bell = Bell()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._next_beat: asyncio.TimerHandle | None = None  # while channels are open
        self._heard = False  # a byte since the last beat
        self._silent_beats = 0
        self._asked: Channel | None = None  # whether it is there
        _clients.add(self)

    @property
    def hello(self) -> AgentHello | None:
        """What start() returned, None before it did."""
        return self._hello

    async def start(self) -> AgentHello:
        """Exchange hellos. Raises ConnectionLost with the reason when the other end is no agent of our version."""
        self.post(FrameType.HELLO, 0, MAGIC, BodyWriter().u16(VERSION).bytes(), self._nonce)
        self._tasks = (
            asyncio.create_task(self._read_frames(), name="agent reader"),
            asyncio.create_task(self._write_frames(), name="agent writer"),
        )
        while self._hello is None:
            self.raise_if_lost()
            await self._hello_bell.wait()
        return self._hello

    @asynccontextmanager
    async def channel(self, kind: Kind, body: bytes, *, window: int = DEFAULT_WINDOW) -> AsyncIterator[Channel]:
        """Run one operation; what of it is not over at the end of the block is killed, and gone."""
        channel = self._begin(kind, body, window)
        try:
            await self._opening(channel)
            yield channel
        finally:
            await channel.end()

    async def open(self, kind: Kind, body: bytes, *, window: int = DEFAULT_WINDOW) -> Channel:
        """Begin an operation that the caller will end."""
        channel = self._begin(kind, body, window)
        try:
            await self._opening(channel)
        except BaseException:  # cancelled or lost: nobody would ever end it
            await channel.end()
            raise
        return channel

    async def close(self) -> None:
        """End the stream; whoever waits on a channel gets ConnectionLost. Idempotent."""
        self.lose("closed")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()  # a defect of ours shows itself here

    # --- for channels ---

    def post(self, frame_type: FrameType, channel: int, *payload: bytes | memoryview) -> None:
        """Queue a frame; never waits. After a loss it goes nowhere: those who wait for an answer are told."""
        if self.lost is None:
            frame = encode_frame(frame_type, channel, *payload)
            self._outbound.append(frame)
            self._outbound_bytes += len(frame)
            self._outbound_bell.ring()
            if len(self._outbound) > OUTBOUND_FRAMES:
                self.lose(f"its agent does not read, with {OUTBOUND_FRAMES} frames waiting for it")

    @property
    def congested(self) -> bool:
        """So much waits to be written that DATA should not add to it."""
        return self._outbound_bytes >= OUTBOUND_BYTES

    async def written(self) -> None:
        """Wait until something was written, or the connection is lost."""
        self._pausing += 1
        try:
            await self._outbound_bell.wait()
        finally:
            self._pausing -= 1

    def raise_if_lost(self) -> None:
        if self.lost is not None:
            raise ConnectionLost(self.lost)

    def lose(self, reason: str) -> None:
        """Give the connection up; the first reason is the one that counts."""
        if self.lost is not None:
            return
        self.lost = reason
        if self._next_beat is not None:
            self._next_beat.cancel()
        self._outbound.clear()
        self._outbound_bytes = 0
        self._stream.close()
        self._hello_bell.ring()
        self._outbound_bell.ring()
        for channel in self._channels.values():
            channel.wake()
        self._channels.clear()

    # --- inside ---

    def _begin(self, kind: Kind, body: bytes, window: int) -> Channel:
        self.raise_if_lost()
        payload = BodyWriter().u8(kind).u32(window).raw(body).bytes()
        if len(payload) > MAX_OPEN:
            raise ValueError(f"{kind.name} with {len(body)} bytes of arguments; the most are {MAX_OPEN - 5}")
        self._last_number = self._free_number()
        channel = self._channels[self._last_number] = Channel(self, self._last_number, kind, window)
        self.post(FrameType.OPEN, self._last_number, payload)
        if self._next_beat is None:
            self._next_beat = asyncio.get_running_loop().call_later(BEAT, self._beat)
        return channel

    def _free_number(self) -> int:
        number = self._last_number % MAX_WINDOW + 1
        while number in self._channels:
            number = number % MAX_WINDOW + 1
        return number

    async def _opening(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(OPEN_BOUND):
                await channel.wait_opened()
        except TimeoutError:
            self.lose(f"the agent did not answer within {OPEN_BOUND:g} s")
            raise ConnectionLost(f"the agent did not answer within {OPEN_BOUND:g} s") from None

    def _beat(self) -> None:
        """See to it that nobody waits for ever for an agent that is stopped, traced or frozen.

        Counted in beats of this loop and not by a clock: for one that was stopped itself, or whose machine has slept,
        the agent was silent for hours, and nothing is wrong. A byte of any channel is a sign of life.
        """
        self._next_beat = None
        awaited = self._pausing > 0 or any(channel.awaited for channel in self._channels.values())
        self._silent_beats = 0 if self._heard or not awaited else self._silent_beats + 1
        self._heard = False
        if self._silent_beats >= LOST_AFTER:
            self.lose(f"its agent does not answer, for {self._silent_beats * BEAT:g} s by now")
            return
        for channel in self._channels.values():
            channel.beat()
        if self._silent_beats == ASK_AFTER and (self._asked is None or self._asked.closed):
            nothing = BodyWriter().u32(0).bytes()
            self._asked = self._begin(Kind.FORGET, nothing, window=0)  # nothing is forgotten; nobody waits for it
        if self._channels and self._next_beat is None:
            self._next_beat = asyncio.get_running_loop().call_later(BEAT, self._beat)

    async def _read_frames(self) -> None:
        reason = "the agent's stream ended"
        decoder = FrameDecoder()
        try:
            while chunk := await self._stream.read():
                self._heard = True
                for frame in decoder.feed(chunk):
                    self._accept(frame)
        except ProtocolError as error:
            reason = str(error)
        finally:
            # However this task ends: nobody may be left waiting for frames that nobody reads.
            self.lose(reason)

    def _accept(self, frame: Frame) -> None:
        if frame.type is FrameType.HELLO:
            self._accept_hello(BodyReader(frame.payload))
            return
        channel = self._channels.get(frame.channel)
        if channel is None:
            raise ProtocolError(f"a {frame.type.name} frame for channel {frame.channel}, which is not open")
        channel.accept(frame.type, frame.payload)
        if channel.closed:
            del self._channels[frame.channel]

    def _accept_hello(self, body: BodyReader) -> None:
        if self._hello is not None:
            raise ProtocolError("a second HELLO")
        if body.raw(len(MAGIC)) != MAGIC:
            raise ProtocolError("a HELLO that is not an agent's")
        version = body.u16()
        if version != VERSION:
            self.other_version = version
            raise ProtocolError(f"it speaks version {version}, this host version {VERSION}")
        if body.raw(NONCE_BYTES) != self._nonce:
            raise ProtocolError("a HELLO that answers someone else's")
        self._hello = AgentHello(version, from_wire(body.str()), body.u32(), body.u32())
        body.done()
        self._hello_bell.ring()

    async def _write_frames(self) -> None:
        try:
            while self.lost is None:
                if not self._outbound:
                    await self._outbound_bell.wait()
                    continue
                chunk = b"".join(self._outbound)
                self._outbound.clear()
                self._outbound_bytes = 0
                await self._stream.write(chunk)
                self._outbound_bell.ring()
        except BrokenPipeError:
            self.lose("the agent's stream ended")


_clients: weakref.WeakSet[AgentClient] = weakref.WeakSet()


def _lose_in_child() -> None:
    """In a forked child nobody reads the streams: they are the parent's, and so is the loop with the tasks."""
    for client in list(_clients):
        client.lost = client.lost or "this process is a fork of the one that it belongs to"
        client._tasks = ()


os.register_at_fork(after_in_child=_lose_in_child)
