"""The client against an agent scripted frame by frame: a peer on the other end of a real socket, often hostile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from pytest_sandbox.agent.client import (
    LOST_AFTER,
    STALL_AFTER,
    STALL_BEATS,
    AgentClient,
    AgentFailure,
    Channel,
    ConnectionLost,
)
from pytest_sandbox.agent.wire import (
    MAGIC,
    MAX_OPEN,
    VERSION,
    BodyReader,
    BodyWriter,
    Frame,
    FrameDecoder,
    FrameType,
    Kind,
    Request,
    encode_frame,
)
from pytest_sandbox.errors import OperationStalled

EXIT = BodyWriter().i32(0).u8(0).u64(0).u64(0).u64(1_500_000).u64(0).u64(0).u64(4096).u8(0).bytes()
SURVIVED = BodyWriter().i32(0).u8(1).u64(0).u64(0).u64(0).u64(0).u64(0).u64(0).u8(0).bytes()
OPENED = BodyWriter().u32(10).u32(42).bytes()
FAILURE = BodyWriter().u32(2).str(b"open").str(b"/missing").bytes()
BOUND = 5.0  # seconds; a test that hangs fails


class SocketStream:
    """A ByteStream over one end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    async def read(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._end, 65536)
        except OSError:
            return b""

    async def write(self, chunk: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._end, chunk)
        except OSError as error:
            raise BrokenPipeError(str(error)) from error

    def evidence(self) -> str:
        return ""

    def close(self) -> None:
        if self._end.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._end)
            asyncio.get_running_loop().remove_writer(self._end)
        self._end.close()


class Peer:
    """The agent's side: reads the host's frames one by one, writes what a test tells it to."""

    def __init__(self, end: socket.socket) -> None:
        self._stream = SocketStream(end)
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def expect(self, frame_type: FrameType) -> tuple[int, BodyReader]:
        while not self._frames:
            chunk = await self._stream.read()
            assert chunk, f"the host hung up instead of sending {frame_type.name}"
            self._frames += self._decoder.feed(chunk)
        frame = self._frames.pop(0)
        assert frame.type is frame_type
        return frame.channel, BodyReader(frame.payload)

    async def send(self, frame_type: FrameType, channel: int, *payload: bytes) -> None:
        await self.send_raw(encode_frame(frame_type, channel, *payload))

    async def send_raw(self, raw: bytes) -> None:
        await self._stream.write(raw)

    async def answer_hello(self) -> None:
        _, hello = await self.expect(FrameType.HELLO)
        assert hello.raw(8) == MAGIC
        version, nonce = hello.u16(), hello.raw(16)
        await self.send(FrameType.HELLO, 0, MAGIC, BodyWriter().u16(version).raw(nonce).str(b"b").u32(1).u32(0).bytes())

    async def open(self) -> int:
        number, _ = await self.expect(FrameType.OPEN)
        await self.send(FrameType.OPENED, number, OPENED)
        return number

    def hang_up(self) -> None:
        self._stream.close()


Scenario = Callable[[AgentClient, Peer], Awaitable[None]]


def play(scenario: Scenario, *, hello: bool = True) -> None:
    """Run a scenario with a client and its peer, which have greeted each other."""

    async def main() -> None:
        host_end, agent_end = socket.socketpair()
        client, peer = AgentClient(SocketStream(host_end)), Peer(agent_end)
        async with asyncio.timeout(BOUND):
            if hello:
                await asyncio.gather(client.start(), peer.answer_hello())
            try:
                await scenario(client, peer)
            finally:
                await client.close()
                peer.hang_up()

    asyncio.run(main())


async def opened(client: AgentClient, peer: Peer, kind: Kind = Kind.EXEC, window: int = 1024) -> tuple[Channel, int]:
    channel, number = await asyncio.gather(client.open(kind, b"", window=window), peer.open())
    return channel, number


# --- hello ---


def test_start_tells_who_answered() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        hello, _ = await asyncio.gather(client.start(), peer.answer_hello())

        assert (hello.version, hello.build, hello.pid, hello.uid) == (VERSION, "b", 1, 0)

    play(scenario, hello=False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"NOTAGENT" + bytes(60), "not an agent's"),
        (MAGIC + b"\1\0", "version 1, this host version 2"),
        (MAGIC + b"\2\0" + bytes(16) + bytes(12), "someone else's"),
        (MAGIC, "2 bytes too early"),
    ],
)
def test_a_hello_of_another_is_refused_with_the_reason(answer: bytes, reason: str) -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        await peer.send(FrameType.HELLO, 0, answer)

        with pytest.raises(ConnectionLost, match=reason):
            await client.start()

    play(scenario, hello=False)


def test_an_end_before_the_hello_is_a_loss() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        peer.hang_up()

        with pytest.raises(ConnectionLost, match="ended"):
            await client.start()

    play(scenario, hello=False)


def test_a_frame_before_the_hello_is_refused() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        await peer.send(FrameType.CLOSED, 1)

        with pytest.raises(ConnectionLost, match="CLOSED frame for channel 1, which is not open"):
            await client.start()

    play(scenario, hello=False)


# --- a channel's life ---


def test_a_command_has_output_an_exit_and_an_end() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer)
        await peer.send(FrameType.DATA, number, b"\0", b"out")
        await peer.send(FrameType.DATA, number, b"\1", b"err")
        await peer.send(FrameType.EOF, number, BodyWriter().u8(0).u64(300).bytes())
        await peer.send(FrameType.EXIT, number, EXIT)
        await peer.send(FrameType.CLOSED, number)

        report = await channel.exit()
        await channel.wait_closed()

        assert (channel.pid, report.status, report.duration, report.peak) == (42, 0, 1.5, 4096)
        assert [await channel.receive(0), await channel.receive(0)] == [b"out", b""]
        assert [await channel.receive(1), await channel.receive(1)] == [b"err", b""]
        assert (channel.total(0), channel.total(1)) == (300, None)

    play(scenario)


def test_an_operation_has_a_result() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer, Kind.STAT)
        await peer.send(FrameType.RESULT, number, b"entry")
        await peer.send(FrameType.CLOSED, number)

        assert await channel.result() == b"entry"
        assert await channel.receive() == b""

    play(scenario)


def test_an_operation_that_can_not_begin_raises_the_agents_failure() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        opening = asyncio.create_task(client.open(Kind.READ, b""))
        number, _ = await peer.expect(FrameType.OPEN)
        await peer.send(FrameType.FAILURE, number, FAILURE)
        await peer.send(FrameType.CLOSED, number)

        with pytest.raises(AgentFailure) as caught:
            await opening

        assert (caught.value.errno, caught.value.operation, caught.value.subject) == (2, "open", "/missing")

    play(scenario)


def test_a_failure_in_the_middle_ends_output_and_result() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer, Kind.READ)
        await peer.send(FrameType.DATA, number, b"\0", b"some")
        await peer.send(FrameType.FAILURE, number, FAILURE)
        await peer.send(FrameType.CLOSED, number)

        assert [await channel.receive(), await channel.receive()] == [b"some", b""]
        with pytest.raises(AgentFailure):
            await channel.result()

    play(scenario)


def test_leaving_a_channel_kills_what_runs_and_waits_for_its_end() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        async def agent() -> None:
            number = await peer.open()
            _, discard = await peer.expect(FrameType.REQUEST)
            _, terminate = await peer.expect(FrameType.REQUEST)
            assert discard.u8() == Request.DISCARD  # output that nobody will read must not hold the end back
            assert (terminate.u8(), terminate.u32()) == (Request.TERMINATE, 0)
            await peer.send(FrameType.EXIT, number, EXIT)
            await peer.send(FrameType.CLOSED, number)

        async with asyncio.TaskGroup() as group:
            group.create_task(agent())
            async with client.channel(Kind.EXEC, b"") as channel:
                pass

        assert channel.closed

    play(scenario)


def test_cancelling_kills_what_runs_and_waits_for_its_end() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channels: list[Channel] = []

        async def run() -> None:
            async with client.channel(Kind.EXEC, b"") as channel:
                channels.append(channel)
                await channel.exit()

        running = asyncio.create_task(run())
        number = await peer.open()
        await peer.send(FrameType.DATA, number, b"\0", b"x")
        running.cancel()
        await peer.expect(FrameType.REQUEST)
        _, terminate = await peer.expect(FrameType.REQUEST)
        assert not running.done()
        await peer.send(FrameType.EXIT, number, EXIT)
        await peer.send(FrameType.CLOSED, number)

        with pytest.raises(asyncio.CancelledError):
            await running
        assert terminate.u8() == Request.TERMINATE

    play(scenario)


def test_cancelling_before_opened_kills_too() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        opening = asyncio.create_task(client.open(Kind.EXEC, b""))
        number, _ = await peer.expect(FrameType.OPEN)
        opening.cancel()
        await peer.expect(FrameType.REQUEST)
        await peer.send(FrameType.FAILURE, number, FAILURE)
        await peer.send(FrameType.CLOSED, number)

        with pytest.raises(asyncio.CancelledError):
            await opening

    play(scenario)


def test_survivors_are_left_to_themselves_after_discard() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(peer.open())
            async with client.channel(Kind.EXEC, b"") as channel:
                number = await opening
                await peer.send(FrameType.EXIT, number, SURVIVED)
                await channel.exit()
                channel.discard()

        _, request = await peer.expect(FrameType.REQUEST)
        assert request.u8() == Request.DISCARD
        await peer.send(FrameType.DATA, number, b"\0", b"crossed the request on its way")
        await peer.send(FrameType.CLOSED, number)
        await channel.wait_closed()
        assert channel.take(0) == b""

    play(scenario)


def test_a_number_is_not_used_while_its_channel_lives() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        client._last_number = 2**32 - 3
        numbers = [(await opened(client, peer))[1] for _ in range(3)]
        client._last_number = 2**32 - 3
        numbers += [(await opened(client, peer))[1]]

        assert numbers == [2**32 - 2, 2**32 - 1, 1, 2]

    play(scenario)


def test_arguments_beyond_the_protocols_bound_never_reach_the_agent() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        with pytest.raises(ValueError, match="EXEC with"):
            await client.open(Kind.EXEC, bytes(MAX_OPEN))

    play(scenario)


# --- windows ---


def test_input_waits_for_the_agents_window() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer)
        sending = asyncio.create_task(channel.send(b"0123456789abcde"))
        _, first = await peer.expect(FrameType.DATA)

        assert (first.u8(), first.rest()) == (0, b"0123456789")
        assert not sending.done()
        await peer.send(FrameType.WINDOW, number, BodyWriter().u8(0).u32(10).bytes())
        _, second = await peer.expect(FrameType.DATA)
        assert second.rest() == b"\0abcde"
        assert await sending

    play(scenario)


def test_input_that_is_refused_is_dropped() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer)
        sending = asyncio.create_task(channel.send(bytes(1000)))
        await peer.expect(FrameType.DATA)
        await peer.send(FrameType.EOF, number, BodyWriter().u8(2).u64(10).bytes())

        assert await sending is False
        assert await channel.send(b"more") is False

    play(scenario)


def test_the_window_is_given_back_by_halves() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer, window=100)
        await peer.send(FrameType.DATA, number, b"\0", bytes(49))
        await channel.receive()
        await peer.send(FrameType.DATA, number, b"\0", bytes(51))
        await channel.receive()
        await channel.send_eof()

        _, window = await peer.expect(FrameType.WINDOW)
        assert (window.u8(), window.u32()) == (0, 100)
        await peer.expect(FrameType.EOF)

    play(scenario)


def test_each_stream_has_a_window_of_its_own() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer, window=3)
        await peer.send(FrameType.DATA, number, b"\0", b"abc")
        await peer.send(FrameType.DATA, number, b"\1", b"def")

        assert (await channel.receive(0), await channel.receive(1)) == (b"abc", b"def")

    play(scenario)


# --- loss ---


def test_a_loss_wakes_everyone() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, _ = await opened(client, peer)
        waiting = [
            asyncio.create_task(call)
            for call in (channel.receive(0), channel.receive(1), channel.exit(), channel.wait_closed())
        ] + [asyncio.create_task(channel.send(bytes(100)))]
        await peer.expect(FrameType.DATA)
        peer.hang_up()

        outcomes = await asyncio.gather(*waiting, return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [ConnectionLost] * 5
        with pytest.raises(ConnectionLost):
            await client.open(Kind.EXEC, b"")

    play(scenario)


def test_sending_after_a_loss_is_a_loss() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, _ = await opened(client, peer)
        peer.hang_up()
        with pytest.raises(ConnectionLost):
            await channel.exit()

        with pytest.raises(ConnectionLost):
            await channel.send(b"x")

    play(scenario)


def test_what_came_before_a_loss_can_be_read() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer)
        await peer.send(FrameType.DATA, number, b"\0", b"last words")
        peer.hang_up()
        with pytest.raises(ConnectionLost):
            await channel.exit()

        assert await channel.receive() == b"last words"
        with pytest.raises(ConnectionLost):
            await channel.receive()

    play(scenario)


def test_closing_twice_and_at_once_is_closing() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        await asyncio.gather(client.close(), client.close())
        await client.close()

        with pytest.raises(ConnectionLost, match="closed"):
            await client.open(Kind.EXEC, b"")

    play(scenario)


EOF_OF_STDOUT = BodyWriter().u8(0).u64(0).bytes()


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        (Kind.EXEC, [(FrameType.OPENED, OPENED)]),
        (Kind.EXEC, [(FrameType.DATA, b"\0")]),
        (Kind.EXEC, [(FrameType.DATA, b"")]),
        (Kind.EXEC, [(FrameType.DATA, b"\2x")]),
        (Kind.EXEC, [(FrameType.DATA, b"\0" + bytes(1025))]),
        (Kind.EXEC, [(FrameType.DATA, b"\0" + bytes(1024)), (FrameType.DATA, b"\0x")]),
        (Kind.EXEC, [(FrameType.EOF, EOF_OF_STDOUT), (FrameType.DATA, b"\0x")]),
        (Kind.EXEC, [(FrameType.EOF, EOF_OF_STDOUT), (FrameType.EOF, EOF_OF_STDOUT)]),
        (Kind.EXEC, [(FrameType.EOF, BodyWriter().u8(3).u64(0).bytes())]),
        (Kind.EXEC, [(FrameType.EOF, EOF_OF_STDOUT + b"x")]),
        (Kind.EXEC, [(FrameType.WINDOW, BodyWriter().u8(1).u32(1).bytes())]),
        (Kind.EXEC, [(FrameType.WINDOW, BodyWriter().u8(0).u32(0).bytes())]),
        (Kind.EXEC, [(FrameType.WINDOW, BodyWriter().u8(0).u32(1).bytes())]),  # of nothing that was sent
        (Kind.EXEC, [(FrameType.EOF, BodyWriter().u8(2).u64(0).bytes())] * 2),
        (Kind.READ, [(FrameType.EOF, BodyWriter().u8(2).u64(0).bytes())]),
        (Kind.STAT, [(FrameType.DATA, b"\0x")]),
        (Kind.LIST, [(FrameType.DATA, b"\1x")]),
        (Kind.TERMINAL, [(FrameType.DATA, b"\1x")]),
        (Kind.EXEC, [(FrameType.RESULT, b"")]),
        (Kind.EXEC, [(FrameType.EXIT, EXIT[:-1])]),
        (Kind.EXEC, [(FrameType.EXIT, EXIT), (FrameType.EXIT, EXIT)]),
        (Kind.EXEC, [(FrameType.EXIT, EXIT), (FrameType.FAILURE, FAILURE)]),
        (Kind.EXEC, [(FrameType.CLOSED, b"")]),
        (Kind.EXEC, [(FrameType.EXIT, EXIT), (FrameType.CLOSED, b"x")]),
        (Kind.EXEC, [(FrameType.EXIT, EXIT), (FrameType.CLOSED, b""), (FrameType.DATA, b"\0x")]),
        (Kind.STAT, [(FrameType.EXIT, EXIT)]),
        (Kind.STAT, [(FrameType.RESULT, b""), (FrameType.RESULT, b"")]),
        (Kind.READ, [(FrameType.RESULT, b""), (FrameType.DATA, b"\0x")]),
        (Kind.EXEC, [(FrameType.OPEN, b"")]),
        (Kind.EXEC, [(FrameType.REQUEST, b"")]),
        (Kind.EXEC, [(FrameType.HELLO, MAGIC)]),
    ],
)
def test_a_frame_out_of_turn_ends_the_connection(kind: Kind, frames: list[tuple[FrameType, bytes]]) -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        _, number = await opened(client, peer, kind)
        still_open = await client_opened_second(client, peer)
        await peer.send_raw(b"".join(encode_frame(frame_type, number, payload) for frame_type, payload in frames))

        with pytest.raises(ConnectionLost, match=r"broke the protocol"):
            await still_open.wait_closed()

    async def client_opened_second(client: AgentClient, peer: Peer) -> Channel:
        return (await opened(client, peer))[0]

    play(scenario)


@pytest.mark.parametrize("frame_type", [FrameType.DATA, FrameType.EXIT, FrameType.RESULT, FrameType.WINDOW])
def test_nothing_comes_before_opened(frame_type: FrameType) -> None:
    payload = {FrameType.DATA: b"\0x", FrameType.EXIT: EXIT, FrameType.WINDOW: bytes(5)}.get(frame_type, b"")

    async def scenario(client: AgentClient, peer: Peer) -> None:
        opening = asyncio.create_task(client.open(Kind.EXEC, b""))
        number, _ = await peer.expect(FrameType.OPEN)
        await peer.send(frame_type, number, payload)

        with pytest.raises(ConnectionLost, match="broke the protocol"):
            await opening

    play(scenario)


def test_opened_after_a_failure_ends_the_connection() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        opening = asyncio.create_task(client.open(Kind.EXEC, b""))
        number, _ = await peer.expect(FrameType.OPEN)
        await peer.send(FrameType.FAILURE, number, FAILURE)
        await peer.send(FrameType.OPENED, number, OPENED)

        with pytest.raises(ConnectionLost, match="OPENED frame on channel 1"):
            await opening

    play(scenario)


def test_a_flood_of_bytes_that_is_no_protocol_ends_the_connection() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, _ = await opened(client, peer)
        await peer.send_raw(b"root@sandbox:/# " * 100)

        with pytest.raises(ConnectionLost, match="broke the protocol"):
            await channel.exit()

    play(scenario)


# --- an agent that falls silent ---


def test_an_agent_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_sandbox.agent.client.BEAT", 0.001)

    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, _ = await opened(client, peer)

        with pytest.raises(ConnectionLost, match="its agent does not answer"):
            await channel.exit()

    play(scenario)


def test_an_agent_that_reads_no_more_is_given_up_by_who_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_sandbox.agent.client.BEAT", 0.001)

    async def scenario(client: AgentClient, peer: Peer) -> None:
        opening = asyncio.create_task(client.open(Kind.EXEC, b""))
        number, _ = await peer.expect(FrameType.OPEN)
        await peer.send(FrameType.OPENED, number, BodyWriter().u32(2**31).u32(42).bytes())
        channel = await opening

        with pytest.raises(ConnectionLost, match="its agent does not answer"):
            await channel.send(bytes(2**24))

    play(scenario)


def test_a_silent_agent_is_asked_once_and_its_answer_is_enough() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, _ = await opened(client, peer)
        waiting = asyncio.create_task(channel.exit())
        await asyncio.sleep(0)

        for _ in range(3):
            for _ in range(LOST_AFTER - 1):
                client._beat()
            number, body = await peer.expect(FrameType.OPEN)
            assert (body.u8(), body.u32(), body.u32()) == (Kind.FORGET, 0, 0)
            await peer.send(FrameType.OPENED, number, OPENED)
            await peer.send(FrameType.RESULT, number)
            await peer.send(FrameType.CLOSED, number)
            await client._channels[number].wait_closed()
            client._beat()

        assert client.lost is None
        waiting.cancel()

    play(scenario)


def test_an_agent_that_speaks_and_does_not_answer_is_not_asked_again_and_again() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, _ = await opened(client, peer)
        waiting = asyncio.create_task(channel.exit())
        await asyncio.sleep(0)

        for _ in range(10 * LOST_AFTER):
            client._heard = client._silent_beats > LOST_AFTER // 2
            client._beat()

        assert len(client._channels) == 2
        waiting.cancel()

    play(scenario)


def test_what_waits_for_an_agent_that_never_reads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_sandbox.agent.client.OUTBOUND_FRAMES", 1000)

    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer, window=2)
        with suppress(BrokenPipeError, ConnectionLost):
            while True:  # each byte that is taken is a window given back
                await peer.send(FrameType.DATA, number, b"\0x")
                await channel.receive()

        with pytest.raises(ConnectionLost, match="its agent does not read"):
            await channel.exit()

    play(scenario)


def test_nobody_is_asked_for_whom_nobody_waits() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer)

        for _ in range(5 * LOST_AFTER):
            client._beat()

        assert client.lost is None
        await peer.send(FrameType.EXIT, number, EXIT)
        assert (await channel.exit()).status == 0
        channel.discard()
        await peer.expect(FrameType.REQUEST)  # and no OPEN before it

    play(scenario)


@pytest.mark.parametrize(("kind", "beats"), [(Kind.STAT, STALL_BEATS), (Kind.SWEEP, STALL_AFTER[Kind.SWEEP])])
def test_an_operation_that_does_not_stir_is_ended(kind: Kind, beats: int) -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        async def operate() -> None:
            async with client.channel(kind, b"") as channel:
                await channel.result()

        waiting = asyncio.create_task(operate())
        number = await peer.open()
        await client._channels[number].wait_opened()
        client._beat()

        for _ in range(beats):
            client._heard = True  # others are served
            client._beat()

        assert (await peer.expect(FrameType.REQUEST))[1].u8() == Request.DISCARD
        assert (await peer.expect(FrameType.REQUEST))[1].u8() == Request.TERMINATE
        await peer.send(FrameType.FAILURE, number, FAILURE)
        await peer.send(FrameType.CLOSED, number)
        with pytest.raises(OperationStalled, match=f"`{kind.name.lower()}` in the sandbox made no progress"):
            await waiting
        assert client.lost is None

    play(scenario)


def test_a_command_may_be_silent_for_as_long_as_it_likes() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer)
        waiting = asyncio.create_task(channel.exit())
        await asyncio.sleep(0)

        for _ in range(10 * STALL_BEATS):
            client._heard = True
            client._beat()
        await peer.send(FrameType.EXIT, number, EXIT)

        assert (await waiting).status == 0

    play(scenario)


def test_beats_end_with_the_last_channel() -> None:
    async def scenario(client: AgentClient, peer: Peer) -> None:
        channel, number = await opened(client, peer)
        assert client._next_beat is not None
        await peer.send(FrameType.EXIT, number, EXIT)
        await peer.send(FrameType.CLOSED, number)
        await channel.wait_closed()

        client._next_beat.cancel()
        client._beat()

        assert client._next_beat is None

    play(scenario)
