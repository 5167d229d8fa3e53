"""What files and snapshots share: errors as users know them, and whole trees over one channel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import PurePosixPath
from struct import Struct

from ..agent.client import AgentFailure, Channel
from ..agent.wire import BodyReader, BodyWriter, Kind, from_wire
from ..errors import FileOperationError, ProtocolError, UsageError, file_error
from .archive import Archive, ArchiveSink
from .progress import Transfer
from .session import SessionBase
from .sources import in_thread
from .tar import BLOCK, CHUNK

_NUMBER = Struct("<I")
_MERGE, _QUIET = 1, 2  # flags of HYDRATE


@contextmanager
def file_errors(path: str | bytes | PurePosixPath) -> Iterator[None]:
    """Turn the agent's failures into FileOperationError and its kinds; a user who does not exist into UsageError."""
    try:
        yield
    except AgentFailure as failure:
        if failure.operation == "user":
            raise UsageError(
                f"no user or group {failure.subject!r} in the sandbox's /etc/passwd and /etc/group; "
                "a numeric `uid` or `uid:gid` needs no entry there"
            ) from None
        shown = from_wire(path) if isinstance(path, bytes) else str(path)
        raise file_error(failure.errno, failure.operation, shown) from None


async def in_chunks(iterator: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what a blocking iterator gives, each piece fetched in a thread."""

    def fetch() -> bytes | None:
        return next(iterator, None)

    while (chunk := await in_thread(fetch)) is not None:
        yield chunk


async def archive_chunks(archive: Archive) -> AsyncGenerator[bytes, None]:
    """Yield all of an archive; a thread is worth its cost only where a disk may be slow."""
    for offset in range(0, archive.size, CHUNK):
        yield await read_ranges(archive, [(offset, CHUNK)])


async def read_ranges(archive: Archive, ranges: Sequence[tuple[int, int]]) -> bytes:
    """Read bytes of the archive, by offset and length, without blocking the loop."""

    def read() -> bytes:
        return b"".join(archive.read_at(offset, length) for offset, length in ranges)

    return read() if archive.in_memory else await in_thread(read)


async def send_all(channel: Channel, chunks: AsyncGenerator[bytes, None], transfer: Transfer) -> int:
    """Send the chunks and the end of input; return how many bytes there were.

    Stops early when the agent takes no more: its result then says why.
    """
    sent = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            if not await channel.send(chunk):
                break
            sent += len(chunk)
            transfer.count(len(chunk))
    await channel.send_eof()
    return sent


async def persist_tree(
    session: SessionBase, root: bytes, *, beneath: bytes = b"", index: int = 0, left_out: Sequence[bytes] = ()
) -> Archive:
    """Fetch a directory of the sandbox as an archive, not yet checked.

    beneath: what its path may not lead out of, if anything. The agent keeps an index unless that is 0.
    """
    sink = ArchiveSink()
    await _fetch(session, Kind.PERSIST, root, index, left_out, sink, beneath)
    return sink.finish()


async def changed_tree(
    session: SessionBase, root: bytes, before: Archive, *, index: int, left_out: Sequence[bytes] = ()
) -> tuple[Archive, list[int]] | None:
    """Fetch what may differ from an index, as an archive, and the numbers of those members of `before` that are gone.

    None: the agent has no such index any more.
    """
    sink = ArchiveSink()
    try:
        size = await _fetch(session, Kind.CHANGES, root, index, left_out, sink)
    except FileOperationError as error:
        if error.operation != "index":
            raise
        return None
    archive, gone = sink.finish_part(size, before.size // BLOCK * _NUMBER.size)
    if len(gone) % _NUMBER.size:
        raise ProtocolError("CHANGES ended in the middle of a number")
    return archive, [number for (number,) in _NUMBER.iter_unpack(gone)]


async def _fetch(
    session: SessionBase,
    kind: Kind,
    root: bytes,
    index: int,
    left_out: Sequence[bytes],
    sink: ArchiveSink,
    beneath: bytes = b"",
) -> int:
    """Let the sink have what a PERSIST or a CHANGES gives; return the first number of its result."""
    body = BodyWriter().str(beneath).str(root).u32(index).u32(len(left_out))
    for pattern in left_out:
        body.str(pattern)
    with file_errors(root):
        async with session.channel(kind, body.bytes()) as channel:
            with session.transfer(f"fetching {from_wire(root)}") as transfer:
                while chunk := await channel.receive():
                    sink.write(chunk)
                    transfer.count(len(chunk))
            result = BodyReader(await channel.result())
    first, _ = result.u64(), result.u64()  # the other is how many were skipped: nobody asks yet
    result.done()
    return first


async def hydrate_tree(
    session: SessionBase,
    root: bytes,
    chunks: AsyncGenerator[bytes, None],
    *,
    beneath: bytes = b"",
    index: int = 0,
    merge: bool = False,
    quiet: bool = False,
    what: str = "",
    size: int | None = None,
) -> None:
    """Make a directory of the sandbox equal to an archive in the canonical form.

    beneath: what its path may not lead out of, if anything. what, size: of the archive, for whoever watches.
    merge: keep what the archive lacks. quiet: no process is left that would see files change under it.
    """
    body = BodyWriter().str(beneath).str(root).u32(index).u8(_MERGE * merge | _QUIET * quiet)
    with file_errors(root):
        async with session.channel(Kind.HYDRATE, body.bytes()) as channel:
            with session.transfer(what or f"filling {from_wire(root)}", size) as transfer:
                await send_all(channel, chunks, transfer)
            result = BodyReader(await channel.result())
    result.u64(), result.u64()
    result.done()
