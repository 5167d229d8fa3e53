"""Fuzz the host's end of the stream: any bytes from an agent that was taken over, cut anywhere, in any order.

An input is u8 size of the pieces that it comes in, then what an agent would send after its HELLO. Promises: it ends in
a reason why the connection is lost, and in no other error; no channel holds more than its window; how bytes were cut
makes no difference. Run by fuzz/run, or alone: python fuzz/host.py [libFuzzer's options] [CORPUS]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["pytest_sandbox.agent"]):
    from pytest_sandbox.agent.client import AgentClient, Channel
    from pytest_sandbox.agent.wire import MAGIC, NONCE_BYTES, VERSION, BodyWriter, FrameType, Kind, encode_frame

KINDS = (Kind.EXEC, Kind.READ, Kind.WRITE, Kind.TERMINAL, Kind.SWEEP)  # of channels 1 to 5
WINDOW = 4096
NONCE = bytes(NONCE_BYTES)
HELLO = encode_frame(
    FrameType.HELLO, 0, BodyWriter().raw(MAGIC).u16(VERSION).raw(NONCE).str(b"build").u32(1).u32(0).bytes()
)


class Script:
    """A ByteStream from which comes what was put in, and then its end."""

    def __init__(self, content: bytes, size: int) -> None:
        self._pieces = [HELLO, *(content[at : at + size] for at in range(0, len(content), size))]
        self._pieces.reverse()

    async def read(self) -> bytes:
        return self._pieces.pop() if self._pieces else b""

    async def write(self, chunk: bytes) -> None:
        """It goes nowhere."""

    def evidence(self) -> str:
        return ""

    def close(self) -> None:
        """There is nothing to close."""


async def play(content: bytes, size: int) -> tuple[str | None, list[object]]:
    """What a client makes of the bytes: why it was lost, and what each channel knows."""
    client = AgentClient(Script(content, size))
    client._nonce = NONCE
    channels = [client._begin(kind, b"", WINDOW) for kind in KINDS]
    try:
        await client.start()
        await client._tasks[0]  # the reader, which ends with the stream
    finally:
        await client.close()
    return client.lost, [known(channel) for channel in channels]


def known(channel: Channel) -> object:
    held = [channel.take(stream) for stream in (0, 1)]
    assert all(len(one) <= WINDOW for one in held), "a channel holds at most its window"
    return held, channel.opened, channel.closed, channel.exit_report, channel.total(0), channel.total(1)


def test_one_input(content: bytes) -> None:
    if content:
        stream = content[1:]
        cut = loop.run_until_complete(play(stream, 1 + content[0]))
        assert cut == loop.run_until_complete(play(stream, len(stream) or 1)), "how it is cut makes no difference"


loop = asyncio.new_event_loop()

if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
