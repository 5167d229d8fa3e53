"""File and archive operations against an agent that was taken over: what it answers is an error of ours, or true."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest

from pytest_sandbox.agent.client import AgentClient
from pytest_sandbox.agent.wire import BodyWriter, FrameType
from pytest_sandbox.core.archive import Archive, Entry
from pytest_sandbox.core.sandbox import SandboxCore
from pytest_sandbox.core.snapshot import Snapshot
from pytest_sandbox.core.tar import Member, MemberKind, encode_header
from pytest_sandbox.engines.base import Started
from pytest_sandbox.errors import DamagedArchive, LimitExceeded, ProtocolError, SandboxLost, UnsafeArchive
from pytest_sandbox.models import Container, SandboxSettings
from tests.support.subprocess_engine import SubprocessEngine
from tests.unit.agent.test_client import Peer, play

Operation = Callable[[SandboxCore], Awaitable[object]]
END = bytes(1024)  # of an archive
SNAPSHOT = Snapshot("one file", Archive.build([Entry("."), Entry("f", content=b"x")]))


def entry(path: bytes = b"name", kind: bytes = b"f", rest: bytes = b"") -> bytes:
    numbers = struct.pack("<cIIIIQQq", kind, 0o644, 0, 0, 1, 5, 9, 7)
    return numbers + BodyWriter().str(b"").str(b"").str(path).str(b"").bytes() + rest


def listed(*entries: bytes) -> bytes:
    return b"".join(BodyWriter().str(one).bytes() for one in entries)


def total(number: int) -> bytes:
    return BodyWriter().u64(number).bytes()


async def listing(core: SandboxCore) -> None:
    await core.list_dir()


async def reading(core: SandboxCore) -> None:
    await core.read_bytes("f", length=3)


async def writing(core: SandboxCore) -> None:
    await core.write_bytes("f", b"abc")


async def looking(core: SandboxCore) -> None:
    await core.stat("f")


async def restoring(core: SandboxCore) -> None:
    core._indexes.remember(SNAPSHOT, 1)
    await core.restore(SNAPSHOT)


async def comparing(core: SandboxCore) -> None:
    core._indexes.remember(SNAPSHOT, 1)
    await core.changes(SNAPSHOT)


async def persisting(core: SandboxCore) -> None:
    await core.hydrate(await core.persist())


def answered(operation: Operation, output: bytes, result: bytes, *first: bytes) -> None:
    """Run an operation whose agent gives this output and then this result; first: results of others before it."""

    async def scenario(client: AgentClient, peer: Peer) -> None:
        container = Container("0", "hostile", "none", "none", "")
        core = SandboxCore(SubprocessEngine(), SandboxSettings(), Started(container, client._stream), client)

        async def answer() -> None:
            for earlier in first:
                number = await peer.open()
                await peer.send(FrameType.RESULT, number, earlier)
                await peer.send(FrameType.CLOSED, number)
            number = await peer.open()
            if output:
                await peer.send(FrameType.DATA, number, b"\0", output)
            await peer.send(FrameType.EOF, number, BodyWriter().u8(0).u64(len(output)).bytes())
            await peer.send(FrameType.RESULT, number, result)
            await peer.send(FrameType.CLOSED, number)

        await asyncio.gather(operation(core), answer())

    play(scenario)


def ranges(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<QQ", *pair) for pair in pairs)


@pytest.mark.parametrize(
    ("operation", "output", "result"),
    [
        (reading, b"abcd", total(4)),
        (reading, b"abc", total(2)),
        (reading, b"abc", b""),
        (writing, b"", total(2)),
        (looking, b"", entry(kind=b"?")),
        (looking, b"", entry(rest=b"!")),
        (looking, b"", entry()[:-1]),
        (listing, listed(entry(b"../up")), total(1)),
        (listing, listed(entry(b"/etc")), total(1)),
        (listing, listed(entry(b"a//b")), total(1)),
        (listing, listed(entry(b"a/.")), total(1)),
        (listing, listed(entry(b"")), total(1)),
        (listing, listed(entry(b"a\0b")), total(1)),
        (listing, listed(entry(kind=b"\0")), total(1)),
        (listing, listed(entry(rest=b"!")), total(1)),
        (listing, listed(entry()), total(2)),
        (listing, listed(entry())[:-1], total(1)),
        (listing, b"\xff\xff\xff\xff", total(0)),
        (restoring, ranges((1, 512)), bytes(32)),
        (restoring, ranges((0, 100)), bytes(32)),
        (restoring, ranges((0, 1 << 20)), bytes(32)),
        (restoring, ranges((1 << 63, 1 << 63)), bytes(32)),
        (restoring, ranges((0, 1024), (0, 1024), (0, 1024), (0, 1024)), bytes(32)),
        (restoring, ranges(*[(0, 0)] * 100), bytes(32)),
        (restoring, ranges((0, 512))[:-1], bytes(32)),
        (restoring, b"", bytes(31)),
        (comparing, END + b"\1\0\0", total(1024) + total(0)),
        (comparing, END + b"\2\0\0\0", total(1024) + total(0)),
        (comparing, END, total(1024)),
    ],
)
def test_an_answer_that_can_not_be_is_a_protocol_error(operation: Operation, output: bytes, result: bytes) -> None:
    with pytest.raises(ProtocolError):
        answered(operation, output, result)


LINK_TO_NOTHING = encode_header(Member(b"h", MemberKind.HARD_LINK, 0o644, link=b"gone"))
TWICE = encode_header(Member(b"f", MemberKind.FILE, 0o644)) * 2


@pytest.mark.parametrize(
    ("output", "size"),
    [
        (END, 1025),
        (END + bytes(4 * 10), 1024),
        (b"", 0),
        (b"no tar" * 100, 600),
        (LINK_TO_NOTHING + END, 1536),
        (TWICE + END, 2048),
        (encode_header(Member(b"../f", MemberKind.FILE, 0o644)) + END, 1536),
        (END, 2**64 - 1),
    ],
)
def test_what_a_taken_over_agent_says_has_changed_is_checked(output: bytes, size: int) -> None:
    with pytest.raises((DamagedArchive, UnsafeArchive)):
        answered(comparing, output, total(size) + total(0))


@pytest.mark.parametrize("output", [b"", b"no tar" * 100, bytes(512)])
def test_an_archive_of_a_taken_over_agent_is_checked_before_it_goes_anywhere(output: bytes) -> None:
    with pytest.raises((DamagedArchive, UnsafeArchive)):
        answered(persisting, output, bytes(16))


async def matching(core: SandboxCore) -> None:
    await core.glob("*")


@pytest.mark.parametrize("limit", ["MAX_LISTED", "MAX_LISTED_TEXT"])
def test_a_listing_without_end_is_not_held(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"pytest_sandbox.core.files.{limit}", 3)
    endless = listed(*[entry(b"n")] * 4)

    with pytest.raises(LimitExceeded, match="more than"):
        answered(listing, endless, total(4))
    with pytest.raises(LimitExceeded, match="more than"):
        answered(matching, endless, total(4), entry(kind=b"d"))


@pytest.mark.parametrize("operation", [writing, looking])
def test_an_operation_without_output_takes_none(operation: Operation) -> None:
    with pytest.raises(SandboxLost, match="a DATA frame on channel 1"):
        answered(operation, b"x", total(3))


def test_entries_are_the_same_however_they_are_cut() -> None:
    output = listed(entry(b"a"), entry(b"a/b"), entry(b"\xff"))

    async def scenario(client: AgentClient, peer: Peer) -> None:
        container = Container("0", "slow", "none", "none", "")
        core = SandboxCore(SubprocessEngine(), SandboxSettings(), Started(container, client._stream), client)

        async def answer(cut: int) -> None:
            number = await peer.open()
            for part in (output[:cut], output[cut:]):
                if part:
                    await peer.send(FrameType.DATA, number, b"\0", part)
            await peer.send(FrameType.EOF, number, BodyWriter().u8(0).u64(len(output)).bytes())
            await peer.send(FrameType.RESULT, number, total(3))
            await peer.send(FrameType.CLOSED, number)

        for cut in range(len(output) + 1):
            found, _ = await asyncio.gather(core.list_dir(), answer(cut))
            assert [str(one.path) for one in found] == ["a", "a/b", "\udcff"]

    play(scenario)
