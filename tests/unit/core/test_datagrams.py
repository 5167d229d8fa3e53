"""Datagrams in what a relay writes."""

from __future__ import annotations

from pytest_sandbox.core.datagrams import taken


def test_datagrams_are_whole_wherever_the_stream_is_cut() -> None:
    stream = b"\x03\x00abc\x00\x00\x01\x01" + bytes(257) + b"\x01\x00x"

    for cut in range(len(stream) + 1):
        received = bytearray(stream[:cut])
        datagrams = list(taken(received))
        received += stream[cut:]
        datagrams += taken(received)

        assert datagrams == [b"abc", b"", bytes(257), b"x"]
        assert not received


def test_what_has_not_come_whole_stays() -> None:
    for part in (b"", b"\x05", b"\x05\x00", b"\x05\x00abcd"):
        received = bytearray(part)

        assert list(taken(received)) == []
        assert bytes(received) == part
