from __future__ import annotations

import struct
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox.agent.wire import (
    MAX_DATA,
    MAX_OPEN,
    MAX_PAYLOAD,
    BodyReader,
    BodyWriter,
    FrameDecoder,
    FrameType,
    encode_frame,
    from_wire,
    to_wire,
)
from pytest_sandbox.errors import ProtocolError

THREE_FRAMES = (
    encode_frame(FrameType.DATA, 7, b"\0", b"hello")
    + encode_frame(FrameType.CLOSED, 2**32 - 1)
    + encode_frame(FrameType.EOF, 7, b"\1", bytes(8))
)


def decoded(decoder: FrameDecoder, chunk: bytes) -> list[tuple[FrameType, int, bytes]]:
    return [(frame.type, frame.channel, bytes(frame.payload)) for frame in decoder.feed(chunk)]


def test_a_frame_is_length_type_channel_payload() -> None:
    assert encode_frame(FrameType.DATA, 7, b"\0", b"hello") == b"\x0b\0\0\0" + b"\x04" + b"\x07\0\0\0" + b"\0hello"


@pytest.mark.parametrize("cut", range(len(THREE_FRAMES) + 1))
def test_frames_are_the_same_wherever_the_stream_is_cut(cut: int) -> None:
    decoder = FrameDecoder()

    frames = decoded(decoder, THREE_FRAMES[:cut]) + decoded(decoder, THREE_FRAMES[cut:])

    assert frames == [
        (FrameType.DATA, 7, b"\0hello"),
        (FrameType.CLOSED, 2**32 - 1, b""),
        (FrameType.EOF, 7, b"\1" + bytes(8)),
    ]


def test_frames_are_the_same_byte_by_byte() -> None:
    decoder = FrameDecoder()

    frames = [frame for position in range(len(THREE_FRAMES)) for frame in decoded(decoder, THREE_FRAMES[position:][:1])]

    assert [frame[0] for frame in frames] == [FrameType.DATA, FrameType.CLOSED, FrameType.EOF]


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_any_payloads_survive_any_chunking(payloads: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(encode_frame(FrameType.RESULT, 1, payload) for payload in payloads)
    decoder, frames, position, turn = FrameDecoder(), [], 0, 0

    while position < len(stream):
        size = sizes[turn % len(sizes)]
        frames += decoded(decoder, stream[position : position + size])
        position, turn = position + size, turn + 1

    assert [payload for _, _, payload in frames] == payloads


def test_the_largest_frames_are_taken() -> None:
    largest = encode_frame(FrameType.OPEN, 1, bytes(MAX_OPEN)) + encode_frame(FrameType.RESULT, 1, bytes(MAX_PAYLOAD))

    frames = decoded(FrameDecoder(), largest)

    assert [len(payload) for _, _, payload in frames] == [MAX_OPEN, MAX_PAYLOAD]
    assert MAX_DATA < MAX_PAYLOAD


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (struct.pack("<IBI", 5, 0, 1), "unknown type 0"),
        (struct.pack("<IBI", 5, 12, 1), "unknown type 12"),
        (struct.pack("<IBI", 0, 4, 1), "DATA frame of 0 bytes"),
        (struct.pack("<IBI", 4, 4, 1), "DATA frame of 4 bytes"),
        (struct.pack("<IBI", 5 + MAX_PAYLOAD + 1, 4, 1), "DATA frame of 65670 bytes"),
        (struct.pack("<IBI", 5 + MAX_OPEN + 1, 2, 1), "OPEN frame of"),
        (struct.pack("<IBI", 2**32 - 1, 8, 1), "RESULT frame of 4294967295 bytes"),
    ],
)
@pytest.mark.parametrize("cut", range(9))
def test_a_frame_out_of_bounds_is_refused_at_its_header(header: bytes, reason: str, cut: int) -> None:
    decoder = FrameDecoder()

    assert decoded(decoder, header[:cut]) == []
    with pytest.raises(ProtocolError, match=reason):
        decoded(decoder, header[cut:])


def test_a_body_reads_as_it_was_written() -> None:
    body = BodyWriter().u8(255).u16(65535).u32(2**32 - 1).u64(2**64 - 1).i32(-9).i64(-(2**63)).str(b"a\0b").str(b"")

    reader = BodyReader(body.bytes())

    assert [reader.u8(), reader.u16(), reader.u32(), reader.u64()] == [255, 65535, 2**32 - 1, 2**64 - 1]
    assert [reader.i32(), reader.i64()] == [-9, -(2**63)]
    assert [reader.str(), reader.str()] == [b"a\0b", b""]
    reader.done()


@pytest.mark.parametrize("length", range(len(BodyWriter().u32(1).str(b"four").bytes())))
def test_a_body_that_is_cut_anywhere_is_refused(length: int) -> None:
    reader = BodyReader(BodyWriter().u32(1).str(b"four").bytes()[:length])

    with pytest.raises(ProtocolError, match="bytes too early"):
        (reader.u32(), reader.str())


def test_a_string_longer_than_its_body_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(ProtocolError, match="4294967295 bytes too early"):
        BodyReader(struct.pack("<I", 2**32 - 1)).str()


def test_bytes_left_over_in_a_body_are_refused() -> None:
    reader = BodyReader(b"\1\2\3")
    reader.u8()

    with pytest.raises(ProtocolError, match="2 bytes too many"):
        reader.done()


@given(st.binary())
def test_any_name_comes_back_as_it_was(raw: bytes) -> None:
    assert to_wire(from_wire(raw)) == raw


def test_paths_texts_and_bytes_are_encoded_alike() -> None:
    assert to_wire(PurePosixPath("/ä")) == to_wire("/ä") == to_wire("/ä".encode())
