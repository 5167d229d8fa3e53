"""Workspaces as a whole: taken out, put in, remembered, and brought back at the cost of what changed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from struct import Struct
from typing import BinaryIO
from weakref import WeakKeyDictionary, finalize

from ..agent.client import AgentFailure, Channel
from ..agent.wire import BodyReader, BodyWriter, Kind, to_wire
from ..changes import Changes
from ..engines.base import SCRATCH
from ..errors import NothingToCompareWith, ProtocolError
from ..mounts import Tmpfs
from .archive import Archive, Entry
from .comparison import compared
from .session import SessionBase
from .sources import in_thread
from .tar import BLOCK, CHUNK
from .transfer import archive_chunks, changed_tree, file_errors, hydrate_tree, persist_tree, read_ranges

_RANGE = Struct("<QQ")
_PARANOID, _QUIET = 1, 2  # flags of RESTORE


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state of a workspace, in memory or in an unnamed file of this host: any sandbox can be brought to it."""

    name: str
    archive: Archive = field(repr=False)

    def fingerprint(self, *, times: bool = False) -> str:
        """Return a hash, equal for equal workspaces: names, contents, modes, owners, links, xattrs, times if asked."""
        return self.archive.fingerprint(times=times)


class _Indexes:
    """Which of its indexes the agent keeps for which snapshot."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._of: WeakKeyDictionary[Snapshot, int] = WeakKeyDictionary()
        self._unused: list[int] = []  # filled from whatever thread drops a snapshot

    def new(self) -> int:
        return next(self._numbers)

    def remember(self, snapshot: Snapshot, index: int) -> None:
        self._of[snapshot] = index
        finalize(snapshot, self._unused.append, index)

    def of(self, snapshot: Snapshot) -> int | None:
        return self._of.get(snapshot)

    def unused(self) -> Iterator[int]:
        while self._unused:
            yield self._unused.pop()


class SnapshotOperations(SessionBase):
    """persist, hydrate, snapshot, restore, changes and reset.

    In all of them mounts below the workspace stay as they are, and so does what the settings call ephemeral when a
    workspace is taken out.
    """

    _beginning: Snapshot | None = None  # what changes() compares with

    async def persist(self) -> Archive:
        """Return the workspace as an archive, byte for byte the same for the same workspace.

        Without sockets, FIFOs, devices, mounts, and the settings' ephemeral paths. The archive comes from the sandbox:
        its members are checked when it is used.
        """
        return await persist_tree(self, self._root, left_out=self._ephemeral)

    async def hydrate(self, source: Archive | Path | bytes | BinaryIO) -> None:
        """Make the workspace equal to an archive: what the archive lacks is gone.

        source: what persist() gave, or a tar archive from anywhere: ustar, pax or GNU; plain, gz, bz2, xz or zst.
        Raises DamagedArchive or UnsafeArchive before anything is touched; OSError when the source can't be read,
        NoSpaceInSandbox.
        """
        await self._hydrate(await _checked(source))

    async def snapshot(self, name: str | None = None) -> Snapshot:
        """Remember the workspace as it is now. The snapshot lives as long as someone holds it."""
        await self._forget_unused()
        index = self._indexes.new()
        archive = await persist_tree(self, self._root, index=index, left_out=self._ephemeral)
        snapshot = Snapshot(name or f"snapshot-{index}", archive)
        self._indexes.remember(snapshot, index)
        return snapshot

    async def restore(self, snapshot: Snapshot, *, paranoid: bool | None = None) -> None:
        """Bring the workspace back to a snapshot, of this sandbox or another one.

        In the sandbox that took it, or was brought to it before, only what changed is repaired. Change is seen by type,
        mode, owner, size, times and inode, as git does. paranoid, by default the setting, compares every content by its
        hash: where times can't be trusted, as on a tmpfs, which notes no writes to mapped files.
        Raises UnsafeArchive or DamagedArchive for a snapshot of another sandbox that tells lies; NoSpaceInSandbox.
        """
        await self._bring_to(snapshot, paranoid)

    async def changes(self, since: Snapshot | None = None, *, paranoid: bool | None = None) -> Changes:
        """Say what differs between a snapshot and the workspace as it is now.

        since: by default what the sandbox was last brought to by restore() or reset(); in a test that is its baseline.
        Changes is what snapshot() would tell: nothing of sockets, FIFOs, devices, mounts, and ephemeral paths. Times by
        themselves are no change. In a sandbox that has taken the snapshot or was brought to it, only what was touched
        is read; paranoid, by default the setting, reads all.
        Raises NothingToCompareWith without a snapshot, if none is known; DamagedArchive, UnsafeArchive for archives of
        a sandbox that tells lies.
        """
        since = since or self._beginning
        if since is None:
            raise NothingToCompareWith(self.name)
        before, index = since.archive, self._indexes.of(since)
        if index is not None and not (self.settings.paranoid if paranoid is None else paranoid):
            changed = await changed_tree(self, self._root, before, index=index, left_out=self._ephemeral)
            if changed is not None:
                part, gone = changed
                return await in_thread(lambda: compared(before, part, _names(before, gone)))
        whole = await self.persist()
        return await in_thread(lambda: compared(before, whole))

    def begin_at(self, snapshot: Snapshot) -> None:
        """Take the workspace, as it is, for the state that changes() compares with."""
        self._beginning = snapshot

    async def _bring_to(self, snapshot: Snapshot, paranoid: bool | None = None, *, quiet: bool = False) -> None:
        """quiet: no process is left that would see files change under it."""
        await self._forget_unused()
        paranoid = self.settings.paranoid if paranoid is None else paranoid
        index = self._indexes.of(snapshot)
        if index is None or not await self._repair(snapshot.archive, index, paranoid=paranoid, quiet=quiet):
            await self._make_equal_to(snapshot, quiet=quiet)
        self._beginning = snapshot

    async def _make_equal_to(self, snapshot: Snapshot, *, quiet: bool) -> None:
        archive = await _checked(snapshot.archive)
        if not _has_root(archive):  # of others; what the root should be like is unknown, so it can't be compared with
            await self._hydrate(archive, quiet=quiet)
            return
        index = self._indexes.new()
        await self._hydrate(archive, index=index, quiet=quiet)
        self._indexes.remember(snapshot, index)

    async def reset(self, snapshot: Snapshot | None = None) -> None:
        """Make the sandbox fit for the next test: kill every process, restore the workspace, empty /tmp and its like.

        Those are /tmp, /var/tmp, /dev/shm and the settings' Tmpfs mounts; of what other mounts have nothing is touched.
        Without a snapshot the workspace stays as it is.
        """
        await self._sweep()
        work = [] if snapshot is None else [self._bring_to(snapshot, quiet=True)]
        # An agent that is not the init of a container has the machine's own /tmp.
        if self.in_container:
            work += [self._empty(directory, 0o1777) for directory in (*SCRATCH, "/dev/shm")]
            own = [mount for mount in self.settings.mounts if isinstance(mount, Tmpfs)]
            work += [self._empty(str(mount.target), mount.mode) for mount in own]
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    @property
    def _root(self) -> bytes:
        return to_wire(self.settings.workspace)

    @property
    def _ephemeral(self) -> list[bytes]:
        return [to_wire(pattern) for pattern in self.settings.ephemeral]

    @cached_property
    def _indexes(self) -> _Indexes:
        return _Indexes()

    async def _hydrate(self, archive: Archive, *, index: int = 0, quiet: bool = False) -> None:
        await hydrate_tree(self, self._root, archive_chunks(archive), index=index, quiet=quiet, size=archive.size)

    async def _empty(self, directory: str, mode: int) -> None:
        await hydrate_tree(self, to_wire(directory), archive_chunks(_nothing(mode)))

    async def _repair(self, archive: Archive, index: int, *, paranoid: bool, quiet: bool) -> bool:
        """Let the agent repair what differs from its index; False if it has no such index any more."""
        body = BodyWriter().str(b"").str(self._root).u32(index).u8(_PARANOID * paranoid | _QUIET * quiet).bytes()
        with file_errors(self._root):
            try:
                async with self.channel(Kind.RESTORE, body) as channel:
                    if paranoid:
                        await _send_digests(channel, archive)
                    await _send_needed(channel, archive)
                    result = BodyReader(await channel.result())
            except AgentFailure as failure:
                if failure.operation != "index":
                    raise
                return False
        for _ in ("compared", "removed", "repaired", "fetched"):
            result.u64()
        result.done()
        return True

    async def _forget_unused(self) -> None:
        for index in self._indexes.unused():
            with file_errors(self._root):
                async with self.channel(Kind.FORGET, BodyWriter().u32(index).bytes()) as channel:
                    BodyReader(await channel.result()).done()


@cache
def _nothing(mode: int) -> Archive:
    """An empty directory."""
    return Archive.build([Entry(".", mode=mode)])


async def _send_digests(channel: Channel, archive: Archive) -> None:
    """Send what each content should hash to; the agent takes it all before it asks for anything."""
    digests = await in_thread(archive.content_digests)
    for start in range(0, len(digests), CHUNK):
        if not await channel.send(digests[start : start + CHUNK]):
            return


async def _send_needed(channel: Channel, archive: Archive) -> None:
    """Send what the agent asks for. It asks for all before it takes any of it, so neither side waits for the other."""
    for batch in _batches(await _ranges(channel, archive)):
        if not await channel.send(await read_ranges(archive, batch)):
            return  # its result says why
    await channel.send_eof()


def _batches(ranges: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The same ranges, CHUNK bytes at a time: a frame and maybe a thread for each small file cost more than it."""
    batch, room = list[tuple[int, int]](), CHUNK
    for offset, length in ranges:
        end = offset + length
        while offset < end:
            taken = min(room, end - offset)
            batch.append((offset, taken))
            offset, room = offset + taken, room - taken
            if not room:
                yield batch
                batch, room = [], CHUNK
    if batch:
        yield batch


async def _ranges(channel: Channel, archive: Archive) -> list[tuple[int, int]]:
    """What the agent asks for, up to its EOF: whole blocks of the archive, at most all of it."""
    asked = bytearray()
    most = _RANGE.size * (archive.size // BLOCK)
    while chunk := await channel.receive():
        asked += chunk
        if len(asked) > most:
            raise ProtocolError("RESTORE asks for more ranges than the archive has blocks")
    if len(asked) % _RANGE.size:
        raise ProtocolError("RESTORE ended in the middle of a range")
    ranges = [(offset, length) for offset, length in _RANGE.iter_unpack(bytes(asked))]
    if any(offset % BLOCK or length % BLOCK or offset + length > archive.size for offset, length in ranges):
        raise ProtocolError("RESTORE asks for what is not in the archive")
    if sum(length for _, length in ranges) > archive.size:
        raise ProtocolError("RESTORE asks for more than the archive")
    return ranges


async def _checked(source: Archive | Path | bytes | BinaryIO) -> Archive:
    """The source as an archive of which every member has been checked."""
    if not isinstance(source, Archive):
        return await in_thread(lambda: Archive.read(source))
    await in_thread(source.members)
    return source


def _names(archive: Archive, numbers: Sequence[int]) -> frozenset[bytes]:
    """The names of members by their numbers, which the agent gives."""
    members = archive.members()
    if any(number >= len(members) for number in numbers):
        raise ProtocolError("CHANGES names a member that the archive does not have")
    return frozenset(members[number].name for number in numbers)


def _has_root(archive: Archive) -> bool:
    return any(member.name == b"" for member in archive.members()[:1])
