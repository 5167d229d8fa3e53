"""Write the seeds of the fuzzers: archives in the form that PERSIST writes, and scripts of frames and children,
and paths among links.

python fuzz/seeds.py DIRECTORY      makes DIRECTORY/archives, DIRECTORY/frames and DIRECTORY/paths
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pytest_sandbox.agent.wire import MAGIC, UNLIMITED, VERSION, BodyWriter, FrameType, Kind, Request, encode_frame
from pytest_sandbox.core.tar import BLOCK, Item, Member, MemberKind, canonical_stream

FILE, HARD_LINK, SYMLINK, DIRECTORY = MemberKind
ROOT: Item = (Member(b"", DIRECTORY, 0o755), [])
MAP = b"2\n512\n5\n1048576\n0\n".ljust(BLOCK, b"\0")
LINK, OUTPUT, STDERR, READS, REFUSES, ENDS = 1, 2, 3, 4, 5, 7  # what a child does, in a script


def archives() -> Iterable[list[Item]]:
    """Each kind of member, and those that stand where the fuzzer's hostile root has links."""
    yield [ROOT]
    yield [ROOT, (Member(b"b", FILE, 0o644, size=5), [b"hello"]), (Member(b"d", DIRECTORY, 0o1777), [])]
    yield [
        ROOT,
        (Member(b"d", DIRECTORY, 0o755, mtime_ns=-1_500_000_000), []),
        (Member(b"d/sub", DIRECTORY, 0o700), []),
        (Member(b"d/sub/file", FILE, 0o4755, 1, 2, 1, size=513), [b"x" * 513]),
        (Member(b"link", SYMLINK, 0o777, link=b"../outside"), []),
        (Member(b"twin", HARD_LINK, 0o4755, link=b"d/sub/file"), []),
    ]
    yield [
        ROOT,
        (Member(b"hard", FILE, 0o644, 3_000_000, 3_000_000, 8**11 * 10**9, xattrs=((b"user.a", b"1\0"),)), []),
        (Member(b"sparse", FILE, 0o600, size=BLOCK + 5, real_size=1 << 20), [MAP + b"piece"]),
    ]
    yield [
        ROOT,
        (Member(b"l" * 101, SYMLINK, 0o777, link=b"t" * 101), []),
        (Member(b"n" * 90 + b"/" + b"m" * 90, FILE, 0), []),
    ]


def hello(version: int = VERSION) -> bytes:
    return encode_frame(FrameType.HELLO, 0, BodyWriter().raw(MAGIC).u16(version).raw(bytes(16)).bytes())


def opening(channel: int, kind: Kind, body: BodyWriter, window: int = 1000) -> bytes:
    return encode_frame(FrameType.OPEN, channel, BodyWriter().u8(kind).u32(window).bytes(), body.bytes())


def exec_body(flags: int = 1, cap: int = UNLIMITED) -> BodyWriter:
    body = BodyWriter().u32(flags).u32(1).str(b"true").u32(1).str(b"A=1").str(b"/").str(b"")
    return body.u64(UNLIMITED).u64(64).u64(cap).u64(cap)


def data(channel: int, content: bytes) -> bytes:
    return encode_frame(FrameType.DATA, channel, b"\0", content)


def window(channel: int, stream: int, credit: int) -> bytes:
    return encode_frame(FrameType.WINDOW, channel, BodyWriter().u8(stream).u32(credit).bytes())


def eof(channel: int) -> bytes:
    return encode_frame(FrameType.EOF, channel, BodyWriter().u8(0).u64(0).bytes())


def request(channel: int, number: Request, body: bytes = b"") -> bytes:
    return encode_frame(FrameType.REQUEST, channel, bytes([number]), body)


def host(*frames: bytes) -> bytes:
    stream = b"".join(frames)
    return b"".join(_line(0, stream[at : at + 65535]) for at in range(0, len(stream), 65535))


def child(number: int, what: int, content: bytes = b"") -> bytes:
    return _line(number << 3 | what, content)


def _line(actor: int, content: bytes) -> bytes:
    return bytes([actor, len(content) & 0xFF, len(content) >> 8]) + content


OPENED = b"O" + BodyWriter().u32(7).bytes()
EXITED = b"X" + BodyWriter().i32(0).u8(1).u64(0).u64(0).u64(5).u64(1).u64(1).u64(4096).bytes()
DONE = b"R" + bytes(8)
FAILED = b"F" + BodyWriter().u32(errno.ENOENT).str(b"open").str(b"/x").bytes()


def scripts() -> Iterable[bytes]:
    run = host(hello(), opening(1, Kind.EXEC, exec_body()))
    yield run + child(0, LINK, OPENED) + child(0, OUTPUT, b"out") + child(0, LINK, EXITED) + child(0, ENDS)
    yield (
        run
        + child(0, LINK, OPENED)
        + host(data(1, b"in" * 100), eof(1))
        + child(0, READS)
        + child(0, STDERR, b"e" * 1500)
        + host(window(1, 1, 1000))
        + child(0, LINK, EXITED)
        + child(0, ENDS)
    )
    yield (
        run
        + child(0, OUTPUT, b"early")
        + child(0, REFUSES)
        + child(0, LINK, OPENED)
        + host(request(1, Request.DISCARD))
    )
    yield run + child(0, OUTPUT, b"never opened") + child(0, ENDS)
    yield (
        host(hello(), opening(1, Kind.EXEC, exec_body(cap=2)))
        + child(0, LINK, OPENED)
        + child(0, OUTPUT, b"beyond")
        + host(request(1, Request.TERMINATE, bytes(4)), request(1, Request.SIGNAL, bytes(5)))
        + child(0, ENDS)
    )
    terminal = exec_body().u16(24).u16(80)
    yield (
        host(hello(), opening(1, Kind.TERMINAL, terminal), data(1, b"keys\r" * 2000))
        + child(0, LINK, OPENED)
        + child(0, OUTPUT, b"shown\n" * 100)
        + child(0, READS)
        + host(request(1, Request.RESIZE, bytes((50, 0, 100, 0))))
        + child(0, LINK, EXITED)
        + child(0, OUTPUT, b"by a survivor")
        + child(0, ENDS)
    )
    read = BodyWriter().str(b"").str(b"/w").str(b"x").u64(0).u64(UNLIMITED)
    yield (
        host(hello(), opening(2, Kind.READ, read))
        + child(0, OUTPUT, b"content")
        + child(0, LINK, DONE)
        + child(0, ENDS)
    )
    write = BodyWriter().str(b"").str(b"").str(b"/x").u32(0).i32(-1).str(b"")
    yield host(hello(), opening(2, Kind.WRITE, write), data(2, b"x" * 65536)) + child(0, LINK, FAILED) + child(0, ENDS)
    taken = BodyWriter().str(b"").str(b"/w").u32(5).u8(0)
    yield (
        host(hello(), opening(3, Kind.HYDRATE, taken), eof(3))
        + child(0, LINK, DONE)
        + child(0, ENDS)
        + host(opening(4, Kind.RESTORE, taken))
        + child(1, OUTPUT, bytes(16))
        + child(1, LINK, DONE)
        + child(1, ENDS)
        + host(opening(6, Kind.CHANGES, BodyWriter().str(b"").str(b"/w").u32(5).u32(0)))
        + child(2, OUTPUT, bytes(1024))
        + child(2, LINK, DONE)
        + child(2, ENDS)
        + host(opening(5, Kind.FORGET, BodyWriter().u32(5)))
    )
    yield run + host(opening(9, Kind.SWEEP, BodyWriter()), opening(10, Kind.SWEEP, BodyWriter())) + child(0, ENDS)
    yield host(hello(), opening(1, Kind.KEEP, BodyWriter()), opening(2, Kind.KEEP, BodyWriter().u8(1)))
    yield host(hello(version=VERSION + 1))


def paths() -> Iterable[bytes]:
    """Flags, targets of links and a path, as paths.c spells them: 0 is /, 1 .., 3 d, 5 file, 6 self, 7 out, 10 l0."""
    root, end = 0xFE, 0xFF
    yield bytes([1, 3, 0, 9, 0, 1, 0, 4])
    yield bytes([1, root, 0, 3, 0, 2, 0, 1, 0, 5])
    yield bytes([1, 7, end, 10, 0, 3])
    yield bytes([1, root, 0, 3, end, 10, 0, 4, 0, 1, end, 11, 0, 1, 0, 5])
    yield bytes([3, 6, 0, 14, end, 10, 0, 3, 0, 14])
    yield bytes([2, 6, 0, 3, 0, 14, 0, 14])
    yield bytes([1, 8, 0, 3])


def answers() -> Iterable[bytes]:
    """What an agent sends on the channels that host.py has opened: 1 a command, 2 a READ, 3 a WRITE."""
    opened = BodyWriter().u32(1000).u32(7).bytes()
    ended = BodyWriter().i32(0).u8(0).u64(5).u64(0).u64(1).u64(1).u64(1).u64(1).u8(0).bytes()
    whole = BodyWriter().u8(0).u64(5).bytes()
    yield b"\x06" + b"".join(
        (
            encode_frame(FrameType.OPENED, 1, opened),
            data(1, b"shown"),
            encode_frame(FrameType.EOF, 1, whole),
            encode_frame(FrameType.EXIT, 1, ended),
            encode_frame(FrameType.CLOSED, 1),
        )
    )
    yield b"\xff" + b"".join(
        (
            encode_frame(FrameType.OPENED, 2, opened),
            data(2, b"content"),
            encode_frame(FrameType.RESULT, 2, bytes(8)),
            encode_frame(FrameType.CLOSED, 2),
            encode_frame(FrameType.OPENED, 3, opened),
            window(3, 0, 500),
            encode_frame(FrameType.FAILURE, 3, BodyWriter().u32(28).str(b"write").str(b"/x").bytes()),
            encode_frame(FrameType.CLOSED, 3),
        )
    )


def main() -> None:
    place = Path(sys.argv[1])
    for name, seeds in {
        "archives": [b"\0" + b"".join(canonical_stream(items)) for items in archives()],
        "frames": list(scripts()),
        "paths": list(paths()),
        "host": list(answers()),
    }.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (place / name / f"seed-{number}").write_bytes(seed)


if __name__ == "__main__":
    main()
