"""The frames of docs/protocol.md and the fields in them: bytes in, values out, no I/O.

What a frame means for a channel is decided in client.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

from ..errors import ProtocolError

VERSION = 2
MAGIC = b"PSANDBOX"
NONCE_BYTES = 16

MAX_OPEN = 4 * 1024 * 1024  # bytes of an OPEN's payload
MAX_PAYLOAD = 65_664  # of any other: DATA, and 128 bytes to spare
MAX_DATA = 65_536  # bytes that one DATA frame carries
MAX_WINDOW = 2**32 - 1
UNLIMITED = 2**64 - 1  # length of a READ, cap of a command's output

_HEADER = struct.Struct("<IBI")
_LENGTH_BYTES = 4
_TYPE_AND_CHANNEL_BYTES = 5


class FrameType(IntEnum):
    HELLO = 1
    OPEN = 2
    OPENED = 3
    DATA = 4
    WINDOW = 5
    EOF = 6
    REQUEST = 7
    RESULT = 8
    FAILURE = 9
    EXIT = 10
    CLOSED = 11


class Kind(IntEnum):
    """What a channel is for."""

    EXEC = 1
    TERMINAL = 2
    READ = 16
    WRITE = 17
    STAT = 18
    LIST = 19
    MKDIR = 20
    REMOVE = 21
    RENAME = 22
    COPY = 23
    CHMOD = 24
    CHOWN = 25
    SYMLINK = 26
    LINK = 27
    PERSIST = 48
    HYDRATE = 49
    RESTORE = 50
    FORGET = 51
    CHANGES = 52
    SWEEP = 64
    WATCH = 65
    CHANGED = 66
    KEEP = 67


class Request(IntEnum):
    SIGNAL = 1
    TERMINATE = 2
    DISCARD = 3
    RESIZE = 4


class Frame(NamedTuple):
    """One frame; the payload is a view of bytes that nobody changes."""

    type: FrameType
    channel: int
    payload: memoryview


_TYPES = {int(frame_type): frame_type for frame_type in FrameType}

# BodyWriter and BodyReader have methods `str` and `bytes`, named as in docs/protocol.md; so there the types need
# other names.
_Bytes: TypeAlias = bytes
_Buffer: TypeAlias = bytes | bytearray | memoryview


def to_wire(text: str | bytes | PurePosixPath) -> bytes:
    """Encode a path or an argument as the kernel takes it; the inverse of from_wire, for any bytes."""
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def from_wire(raw: bytes) -> str:
    """Decode a path or a name; bytes that are not UTF-8 become lone surrogates, as os.fsdecode does it on Linux."""
    return raw.decode("utf-8", "surrogateescape")


def encode_frame(frame_type: FrameType, channel: int, *payload: _Buffer) -> bytes:
    """Return the frame as it goes onto the stream, its payload joined from parts. Bounds are the caller's business."""
    length = _TYPE_AND_CHANNEL_BYTES + sum(map(len, payload))
    return b"".join((_HEADER.pack(length, frame_type, channel), *payload))


class FrameDecoder:
    """Cuts a stream into frames, however it was cut into chunks; holds less than one frame between two calls."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now. Exhaust the iterator before feeding the next chunk.

        Raises ProtocolError for a type or a length that the protocol does not have, as soon as it is seen.
        """
        if self._pending:
            self._pending += chunk
            if len(self._pending) < self._needed():
                return
            chunk = bytes(self._pending)
            self._pending.clear()
        view = memoryview(chunk)
        start, end = 0, len(chunk)
        while end - start >= _HEADER.size:
            length, number, channel = _HEADER.unpack_from(chunk, start)
            frame_type = _checked_type(length, number)
            stop = start + _LENGTH_BYTES + length
            if stop > end:
                break
            yield Frame(frame_type, channel, view[start + _HEADER.size : stop])
            start = stop
        self._pending += view[start:]

    def _needed(self) -> int:
        """How many pending bytes complete a header, or the frame if the header is there."""
        if len(self._pending) < _HEADER.size:
            return _HEADER.size
        length, number, _ = _HEADER.unpack_from(self._pending)
        _checked_type(length, number)
        return _LENGTH_BYTES + int(length)


def _checked_type(length: int, number: int) -> FrameType:
    frame_type = _TYPES.get(number)
    if frame_type is None:
        raise ProtocolError(f"a frame of unknown type {number}")
    bound = MAX_OPEN if frame_type is FrameType.OPEN else MAX_PAYLOAD
    if not _TYPE_AND_CHANNEL_BYTES <= length <= _TYPE_AND_CHANNEL_BYTES + bound:
        raise ProtocolError(f"a {frame_type.name} frame of {length} bytes")
    return frame_type


class BodyWriter:
    """Puts the fields of a payload one after the other; each method returns the writer itself."""

    def __init__(self) -> None:
        self._parts: list[_Bytes] = []

    def u8(self, value: int) -> BodyWriter:
        return self._pack("<B", value)

    def u16(self, value: int) -> BodyWriter:
        return self._pack("<H", value)

    def u32(self, value: int) -> BodyWriter:
        return self._pack("<I", value)

    def u64(self, value: int) -> BodyWriter:
        return self._pack("<Q", value)

    def i32(self, value: int) -> BodyWriter:
        return self._pack("<i", value)

    def i64(self, value: int) -> BodyWriter:
        return self._pack("<q", value)

    def str(self, value: _Bytes) -> BodyWriter:
        self._parts += struct.pack("<I", len(value)), value
        return self

    def raw(self, value: _Bytes) -> BodyWriter:
        """Append bytes of a length that both sides know."""
        self._parts.append(value)
        return self

    def bytes(self) -> _Bytes:
        return b"".join(self._parts)

    def _pack(self, layout: _TextLayout, value: int) -> BodyWriter:
        self._parts.append(struct.pack(layout, value))
        return self


_TextLayout: TypeAlias = str


class BodyReader:
    """Takes the fields of a payload one after the other. Raises ProtocolError when it is shorter than they need."""

    def __init__(self, body: _Buffer) -> None:
        self._body = memoryview(body)
        self._offset = 0

    def u8(self) -> int:
        return self._unpack("<B", 1)

    def u16(self) -> int:
        return self._unpack("<H", 2)

    def u32(self) -> int:
        return self._unpack("<I", 4)

    def u64(self) -> int:
        return self._unpack("<Q", 8)

    def i32(self) -> int:
        return self._unpack("<i", 4)

    def i64(self) -> int:
        return self._unpack("<q", 8)

    def str(self) -> _Bytes:
        return self.raw(self.u32())

    def raw(self, count: int) -> _Bytes:
        return bytes(self._take(count))

    def rest(self) -> _Bytes:
        return self.raw(len(self._body) - self._offset)

    def done(self) -> None:
        """Raise ProtocolError if anything is left."""
        left = len(self._body) - self._offset
        if left:
            raise ProtocolError(f"{left} bytes too many in a frame")

    def _take(self, count: int) -> memoryview:
        start, stop = self._offset, self._offset + count
        if stop > len(self._body):
            raise ProtocolError(f"a frame ends {stop - len(self._body)} bytes too early")
        self._offset = stop
        return self._body[start:stop]

    def _unpack(self, layout: _TextLayout, size: int) -> int:
        value: int = struct.unpack(layout, self._take(size))[0]
        return value
