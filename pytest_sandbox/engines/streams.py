"""ByteStreams over the sockets that engine clients hand out; the clients themselves stay unknown here.

Engines that multiplex put an 8-byte header before each piece: kind (1 stdout, 2 stderr, 3 the engine's own words),
three zeros, and a big-endian u32 size: https://docs.docker.com/reference/api/engine/version/v1.41/, ContainerAttach.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import weakref
from collections.abc import Callable

HEADER_BYTES = 8
STDOUT, STDERR, ENGINE = 1, 2, 3
EVIDENCE_BYTES = 8 * 1024
MOST_EVIDENCE = 16 * 1024 * 1024  # in all: an agent says a line at its end, and nobody else is to write there

# One recv(2) takes what a Unix socket holds by default (208 KiB), about seven of the engine's 32 KiB pieces.
RECEIVE_BYTES = 256 * 1024
SEND_BUFFER_BYTES = 1024 * 1024

# What may wait for the reader: beyond it the socket is left alone. The agent's windows keep an honest one far below.
PENDING_BYTES = 4 * 1024 * 1024


class Demultiplexer:
    """Take multiplexed bytes apart, cut anywhere. Sizes in headers are counted down, never allocated."""

    def __init__(self) -> None:
        self.evidence = bytearray()  # the end of what came beside stdout
        self._header = bytearray()
        self._kind = STDOUT
        self._remaining = 0
        self._beside = 0  # bytes that were not of stdout

    def feed(self, chunk: memoryview) -> bytes:
        """Return what `chunk` holds of stdout. Raises ValueError when it can't be an agent's."""
        stdout: list[memoryview] = []
        while chunk:
            if not self._remaining:
                missing = HEADER_BYTES - len(self._header)
                self._header += chunk[:missing]
                chunk = chunk[missing:]
                if len(self._header) < HEADER_BYTES:
                    break
                self._kind, self._remaining = self._header[0], int.from_bytes(self._header[4:], "big")
                if self._kind not in (STDOUT, STDERR, ENGINE) or any(self._header[1:4]):
                    raise ValueError(f"no header of a multiplexed stream: {self._header.hex()}")
                self._header.clear()
                continue
            piece, chunk = chunk[: self._remaining], chunk[self._remaining :]
            self._remaining -= len(piece)
            if self._kind == STDOUT:
                stdout.append(piece)
            else:
                self.evidence += piece
                del self.evidence[:-EVIDENCE_BYTES]
                self._beside += len(piece)
                if self._beside > MOST_EVIDENCE:
                    raise ValueError(f"more than {MOST_EVIDENCE} bytes beside the agent's stream")
        return b"".join(stdout)


class Incoming:
    """What has arrived and waits for its one reader; belongs to one event loop."""

    def __init__(self) -> None:
        self.demultiplexer = Demultiplexer()
        self.ended = False
        self._failure = ""
        self._chunks: list[bytes] = []
        self._pending = 0
        self._wake: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        return self._pending >= PENDING_BYTES

    def put(self, chunk: memoryview) -> None:
        """Take bytes as they came from the engine."""
        if self.ended:
            return
        try:
            stdout = self.demultiplexer.feed(chunk)
        except ValueError as error:
            self.end(str(error))
            return
        if stdout:
            self._chunks.append(stdout)
            self._pending += len(stdout)
            self._notify()

    def end(self, failure: str = "") -> None:
        """Nothing more will come. The first reason is the one that counts."""
        if not self.ended:
            self.ended, self._failure = True, failure
            self._notify()

    async def get(self) -> bytes:
        """Return all that has arrived, at least one byte, or b"" at the end."""
        while not self._chunks:
            if self.ended:
                return b""
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        everything = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._pending = 0
        return everything

    def evidence(self) -> str:
        words = self.demultiplexer.evidence.decode("utf-8", "replace").strip()
        return "\n".join(part for part in (words, self._failure) if part)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def end_socket(sock: socket.socket) -> None:
    """End the connection for everyone, at once. Idempotent."""
    if sock.fileno() < 0:
        return
    try:
        # Unlike close(2) it counts whoever else has the socket open, such as a child in mid-fork.
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was first
    release_socket(sock)


def release_socket(sock: socket.socket) -> None:
    """Close this process's descriptor, though the client's response still holds the object."""
    descriptor = sock.detach()
    if descriptor >= 0:
        os.close(descriptor)


class SocketStream:
    """A ByteStream over a connected plain or TLS socket, which it owns. Made and used in one event loop.

    release: called after the socket's end, for what the client keeps around it.
    """

    def __init__(self, sock: socket.socket, release: Callable[[], object] = lambda: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._release = release
        self._incoming = Incoming()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._reading = False
        self._progress: asyncio.Future[None] | None = None  # of a write that waits for the socket
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        _streams.add(self)
        self._resume()

    async def read(self) -> bytes:
        chunk = await self._incoming.get()
        if not self._reading and not self._incoming.ended:
            self._resume()
        return chunk

    async def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            if self._incoming.ended:
                raise BrokenPipeError("the stream to the agent has ended")
            try:
                rest = rest[self._sock.send(rest) :]
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                await self._writable()
            except ssl.SSLWantReadError:
                # TLS has to hear from the other side first; _receive wakes us when it did.
                await self._made_progress()
            except OSError as error:
                self._incoming.end(f"write to the engine: {error}")
                raise BrokenPipeError("the stream to the agent has ended") from error

    def evidence(self) -> str:
        return self._incoming.evidence()

    def close(self) -> None:
        descriptor = self._sock.fileno()
        if descriptor < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
        self._reading = False
        end_socket(self._sock)
        self._release()
        self._incoming.end()
        self._wake_writer()

    def let_go(self) -> None:
        """Close this process's descriptor and nothing more: in a forked child the connection is still the parent's."""
        release_socket(self._sock)

    def _resume(self) -> None:
        self._reading = True
        self._loop.add_reader(self._sock.fileno(), self._receive)

    def _receive(self) -> None:
        try:
            count = self._sock.recv_into(self._buffer)
            while count:
                self._incoming.put(self._buffer[:count])
                # TLS gives one record of at most 16 KiB at a time: go on until it has none, and raises.
                if self._incoming.full or not isinstance(self._sock, ssl.SSLSocket):
                    break
                count = self._sock.recv_into(self._buffer)
            if not count:
                self._incoming.end()
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # all read; or half a TLS record, whose rest makes the socket readable again
        except ConnectionResetError:
            self._incoming.end()  # an engine that is killed hangs up so, or not: by what it had not read yet
        except OSError as error:
            self._incoming.end(f"read from the engine: {error}")
        if self._incoming.full or self._incoming.ended:
            self._loop.remove_reader(self._sock.fileno())
            self._reading = False
        self._wake_writer()

    async def _writable(self) -> None:
        descriptor = self._sock.fileno()
        self._loop.add_writer(descriptor, self._wake_writer)
        try:
            await self._made_progress()
        finally:
            if self._sock.fileno() == descriptor:
                self._loop.remove_writer(descriptor)

    async def _made_progress(self) -> None:
        self._progress = self._loop.create_future()
        await self._progress

    def _wake_writer(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)


_streams: weakref.WeakSet[SocketStream] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child that kept the descriptor would keep the sandbox alive after its parent was killed."""
    for stream in list(_streams):
        stream.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
