"""Byte streams over real sockets, and the engine's multiplexing cut everywhere."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pytest_sandbox.engines.streams import (
    EVIDENCE_BYTES,
    MOST_EVIDENCE,
    PENDING_BYTES,
    STDERR,
    STDOUT,
    Demultiplexer,
    SocketStream,
)


def piece(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxxxL", kind, len(content)) + content


# --- demultiplexing ---------------------------------------------------------------------------------------------------

MIXED = piece(STDOUT, b"one") + piece(STDERR, b"oops") + piece(STDOUT, b"") + piece(STDOUT, b"two")


@pytest.mark.parametrize("cut", range(len(MIXED) + 1))
def test_a_multiplexed_stream_may_be_cut_anywhere(cut: int) -> None:
    demultiplexer = Demultiplexer()

    stdout = demultiplexer.feed(memoryview(MIXED)[:cut]) + demultiplexer.feed(memoryview(MIXED)[cut:])

    assert stdout == b"onetwo"
    assert demultiplexer.evidence == b"oops"


def test_a_multiplexed_stream_may_come_byte_by_byte() -> None:
    demultiplexer = Demultiplexer()

    stdout = b"".join(demultiplexer.feed(memoryview(MIXED)[at : at + 1]) for at in range(len(MIXED)))

    assert stdout == b"onetwo"


def test_only_the_end_of_what_came_beside_stdout_is_kept() -> None:
    demultiplexer = Demultiplexer()

    demultiplexer.feed(memoryview(piece(STDERR, b"a" * 100_000 + b"the end")))

    assert len(demultiplexer.evidence) == EVIDENCE_BYTES
    assert demultiplexer.evidence.endswith(b"the end")


def test_what_comes_beside_stdout_without_end_is_refused() -> None:
    demultiplexer = Demultiplexer()
    flood = memoryview(piece(STDERR, bytes(MOST_EVIDENCE // 16)))

    for _ in range(16):
        demultiplexer.feed(flood)
    with pytest.raises(ValueError, match="beside the agent's stream"):
        demultiplexer.feed(flood)


def test_an_enormous_size_is_counted_not_allocated() -> None:
    demultiplexer = Demultiplexer()

    assert demultiplexer.feed(memoryview(struct.pack(">BxxxL", STDOUT, 2**32 - 1) + b"begin")) == b"begin"


@pytest.mark.parametrize("header", [b"HTTP/1.1", b"\x09\0\0\0\0\0\0\x01", b"\x01\0\0\x01\0\0\0\x01"])
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match="no header"):
        Demultiplexer().feed(memoryview(header))


# --- streams ----------------------------------------------------------------------------------------------------------


class Rig:
    """A stream and the engine's end of it, as a blocking socket."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        self.far.settimeout(10)
        self.stream = SocketStream(near)


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    rig.stream.close()
    rig.far.close()


@pytest.mark.asyncio
async def test_bytes_cross_both_ways(rig: Rig) -> None:
    await rig.stream.write(b"question")
    rig.far.sendall(piece(STDOUT, b"answer"))

    assert rig.far.recv(100) == b"question"
    assert await rig.stream.read() == b"answer"


@pytest.mark.asyncio
async def test_more_than_any_buffer_crosses_both_ways_at_once(rig: Rig) -> None:
    content = os.urandom(3 * PENDING_BYTES)

    def echo() -> None:
        remaining = len(content)
        while remaining:
            chunk = rig.far.recv(1 << 20)
            remaining -= len(chunk)
            rig.far.sendall(piece(STDOUT, chunk))

    async def everything() -> bytes:
        received = bytearray()
        while len(received) < len(content):
            received += await rig.stream.read()
        return bytes(received)

    _, received, _ = await asyncio.gather(asyncio.to_thread(echo), everything(), rig.stream.write(content))

    assert received == content


@pytest.mark.asyncio
async def test_a_reader_that_is_slow_holds_the_sender_up_and_loses_nothing(rig: Rig) -> None:
    chunks = piece(STDOUT, bytes(1 << 20)) * 32
    sending = asyncio.create_task(asyncio.to_thread(rig.far.sendall, chunks))
    done, _ = await asyncio.wait({sending}, timeout=0.3)
    assert not done  # 32 MiB did not fit into what a stream keeps for its reader

    total = 0
    while total < 32 << 20:
        total += len(await rig.stream.read())

    await sending
    assert total == 32 << 20


@pytest.mark.asyncio
async def test_the_end_is_read_again_and_again_after_all_bytes(rig: Rig) -> None:
    rig.far.sendall(piece(STDOUT, b"last words"))
    rig.far.shutdown(socket.SHUT_WR)

    assert await rig.stream.read() == b"last words"
    assert await rig.stream.read() == b""
    assert await rig.stream.read() == b""


@pytest.mark.asyncio
async def test_what_came_beside_stdout_is_evidence(rig: Rig) -> None:
    rig.far.sendall(piece(STDERR, b"agent: out of memory\n"))
    rig.far.shutdown(socket.SHUT_WR)

    assert await rig.stream.read() == b""
    assert rig.stream.evidence() == "agent: out of memory"


@pytest.mark.asyncio
async def test_bytes_that_are_not_multiplexed_end_the_stream_with_evidence(rig: Rig) -> None:
    rig.far.sendall(b"Service Unavailable")

    assert await rig.stream.read() == b""
    assert "no header of a multiplexed stream" in rig.stream.evidence()


@pytest.mark.asyncio
async def test_close_ends_a_reader_that_waits(rig: Rig) -> None:
    reading = asyncio.create_task(rig.stream.read())
    await asyncio.sleep(0)

    rig.stream.close()
    rig.stream.close()

    assert await reading == b""
    assert rig.far.recv(1) == b""


@pytest.mark.asyncio
async def test_close_ends_a_writer_that_is_held_up(rig: Rig) -> None:
    writing = asyncio.create_task(rig.stream.write(bytes(64 << 20)))
    await asyncio.to_thread(rig.far.recv, 1)

    rig.stream.close()

    with pytest.raises(BrokenPipeError):
        await writing


@pytest.mark.asyncio
async def test_a_write_after_the_end_is_a_broken_pipe(rig: Rig) -> None:
    rig.far.close()
    assert await rig.stream.read() == b""

    with pytest.raises(BrokenPipeError):
        await rig.stream.write(b"anyone?")
