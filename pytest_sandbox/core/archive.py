"""Archives that the host holds: read, built, saved, unpacked. Their format is in tar.py; no sandbox here."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..agent.wire import to_wire
from ..errors import DamagedArchive, UnsafeArchive
from .compression import TAR_MAGIC, decompressed
from .spool import Spool
from .tar import (
    CHUNK,
    DEFAULT_LIMITS,
    ArchiveLimits,
    Item,
    Member,
    MemberKind,
    Window,
    canonical_stream,
    check_tree,
    member_order,
    normal_name,
    scan,
    sparse_extents,
)
from .unpacking import HostTree, replacing
from .zipped import SIGNATURES, zip_items

_DIGEST = 32  # bytes of a BLAKE2b
_HASHED = 4096  # bytes: what file systems make holes of


@dataclass(frozen=True, slots=True)
class Entry:
    """A member to be made: a file if it has a content, a symbolic link if it has a target, else a directory.

    path: relative, `.` for the root.
    """

    path: str | bytes | PurePosixPath
    content: bytes | None = None
    target: str | bytes | None = None
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0

    def item(self) -> Item:
        name = normal_name(to_wire(self.path), lenient=True)
        content, target = self.content or b"", to_wire(self.target or b"")
        if self.content is not None:
            kind, mode = MemberKind.FILE, 0o644
        elif self.target is not None:
            kind, mode = MemberKind.SYMLINK, 0o777
        else:
            kind, mode = MemberKind.DIRECTORY, 0o755
        mode = mode if self.mode is None else self.mode
        return Member(name, kind, mode, self.uid, self.gid, self.mtime_ns, len(content), target), (content,)


def local_tree(root: Path, *, uid: int = 0, gid: int = 0, ignore: Iterable[str] = ()) -> Iterator[Item]:
    """Yield what is in a local directory, in canonical order, without the directory itself.

    Permission bits, times and symbolic links are kept, owners are set. Hard links become separate files; sockets, FIFOs
    and devices are left out. A file is opened when its content is asked for.
    ignore: what else to leave out, as lines of a .gitignore in the directory.
    """
    ignored = _ignored(ignore)
    return _local_members(root, b"", uid, gid, ignored)


def _ignored(patterns: Iterable[str]) -> Callable[[bytes, bool], bool]:
    """Return what tells whether to leave out a path, given whether it is a directory."""
    if not (lines := list(patterns)):
        return lambda _path, _is_directory: False
    import pathspec

    spec = pathspec.GitIgnoreSpec.from_lines(lines)
    return lambda path, is_directory: spec.match_file(os.fsdecode(path) + "/" * is_directory)


def _local_members(
    directory: Path, prefix: bytes, uid: int, gid: int, ignored: Callable[[bytes, bool], bool]
) -> Iterator[Item]:
    with os.scandir(directory) as entries:
        found = sorted((os.fsencode(entry.name), entry) for entry in entries)
    for name, entry in found:
        status = entry.stat(follow_symlinks=False)
        if ignored(prefix + name, stat.S_ISDIR(status.st_mode)):
            continue
        member = Member(prefix + name, MemberKind.FILE, status.st_mode & 0o777, uid, gid, status.st_mtime_ns)
        if stat.S_ISDIR(status.st_mode):
            yield member._replace(kind=MemberKind.DIRECTORY), ()
            yield from _local_members(Path(entry.path), member.name + b"/", uid, gid, ignored)
        elif stat.S_ISLNK(status.st_mode):
            target = os.fsencode(os.readlink(entry.path))  # noqa: PTH115  # Path.readlink is not verbatim: `./x` is `x`
            yield member._replace(kind=MemberKind.SYMLINK, mode=0o777, link=target), ()
        elif stat.S_ISREG(status.st_mode):
            yield member._replace(size=status.st_size), _local_content(Path(entry.path), status.st_size)


def _local_content(path: Path, size: int) -> Iterator[bytes]:
    """Yield at most size bytes: a log that grows meanwhile is taken as it was when it was found."""
    with path.open("rb", buffering=0) as file:
        while size > 0 and (chunk := file.read(min(size, CHUNK))):
            size -= len(chunk)
            yield chunk


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


class ArchiveSink:
    """Takes an archive as it streams in, and hashes it on the way. Raises UnsafeArchive when it does not end."""

    def __init__(self, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._spool = Spool()
        self._sha256 = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        if self._spool.size + len(chunk) > self._limits.total_bytes:
            raise _too_long(self._limits)
        self._spool.append(chunk)
        self._sha256.update(chunk)

    def finish(self) -> Archive:
        return Archive(self._spool, self._sha256.hexdigest(), self._limits)

    def finish_part(self, size: int, rest_limit: int) -> tuple[Archive, bytes]:
        """Return the first bytes as an archive that may lack directories, and what came after them.

        Raises DamagedArchive when there are not as many, or more than rest_limit after them.
        """
        if not size <= self._spool.size <= size + rest_limit:
            raise DamagedArchive(f"there are {self._spool.size} bytes, of which {size} are said to be the archive")
        rest = self._spool.cut(size)
        return Archive(self._spool, self._sha256.hexdigest(), self._limits, whole=False), rest


def _too_long(limits: ArchiveLimits) -> UnsafeArchive:
    return UnsafeArchive("", f"lies beyond the limit of {limits.total_bytes} bytes for a whole archive")


class Archive:
    """A tar archive in the canonical form, held in memory or in a file without a name; gone with this object.

    It may come from a sandbox, and is not checked before members() or hydrate() look into it. Safe to use from several
    threads at once. sha256: of its bytes, in hex. whole: it has every directory that its members are in.
    """

    def __init__(
        self, spool: Spool, sha256: str, limits: ArchiveLimits = DEFAULT_LIMITS, *, whole: bool = True
    ) -> None:
        self._spool = spool
        self._limits = limits
        self._whole = whole
        self.sha256 = sha256

    def __repr__(self) -> str:
        return f"<Archive {self.sha256[:12]} of {self.size} bytes>"

    @property
    def size(self) -> int:
        return self._spool.size

    @property
    def in_memory(self) -> bool:
        """Reading it never waits for a disk."""
        return self._spool.in_memory

    @classmethod
    def read(cls, source: Path | bytes | BinaryIO, limits: ArchiveLimits = DEFAULT_LIMITS) -> Archive:
        """Take an archive from anywhere: tar (ustar, pax or GNU; plain, gz, bz2, xz or zst) or zip.

        It is checked as a whole, and brought into the canonical form. Raises DamagedArchive, UnsafeArchive; UsageError
        when this Python can't read zst; OSError when the source can't be read.
        """
        with ExitStack() as stack:
            if isinstance(source, Path):
                source = stack.enter_context(source.open("rb"))
            foreign = Spool()
            for chunk in decompressed(iter((source,)) if isinstance(source, bytes) else _chunks(source)):
                if foreign.size + len(chunk) > limits.total_bytes:
                    raise _too_long(limits)
                foreign.append(chunk)
        if foreign.read_at(0, 4) in SIGNATURES and foreign.read_at(TAR_MAGIC.start, 5) != b"ustar":
            return cls._collect(zip_items(foreign, limits), limits)
        members = scan(foreign, limits, canonical=False)
        return cls._collect(((member, _slice(foreign, member)) for member in members), limits)

    def owned_by(self, uid: int, gid: int) -> Iterator[bytes]:
        """Yield the archive as if all in it had this owner."""
        items = ((member._replace(uid=uid, gid=gid), self.content(member)) for member in self.members())
        return canonical_stream(items)

    @classmethod
    def build(cls, entries: Iterable[Entry]) -> Archive:
        """Make an archive from what is in memory. Raises UnsafeArchive for names that no archive may have."""
        items = [entry.item() for entry in entries]
        implied = check_tree([member for member, _ in items], DEFAULT_LIMITS, canonical=False)
        items += [(member, ()) for member in implied]
        return cls._collect(sorted(items, key=lambda item: member_order(item[0])))

    @classmethod
    def from_tree(cls, root: Path, *, uid: int = 0, gid: int = 0) -> Archive:
        """Make an archive of what is in a local directory: see local_tree()."""
        return cls._collect(local_tree(root, uid=uid, gid=gid))

    @classmethod
    def _collect(cls, items: Iterable[Item], limits: ArchiveLimits = DEFAULT_LIMITS) -> Archive:
        sink = ArchiveSink(limits)
        for chunk in canonical_stream(items):
            sink.write(chunk)
        return sink.finish()

    @cached_property
    def _members(self) -> tuple[Member, ...]:
        return tuple(scan(self._spool, self._limits, canonical=True, whole=self._whole))

    def members(self) -> tuple[Member, ...]:
        """Return the members in order, all of them checked: once. Raises DamagedArchive, UnsafeArchive."""
        return self._members

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the archive itself, fewer only at its end."""
        return self._spool.read_at(offset, length)

    def content(self, member: Member) -> Iterator[bytes]:
        """Yield a member's content as it is stored: of a sparse file its map and its pieces."""
        return _slice(self._spool, member)

    def content_digests(self) -> bytes:
        """Return 32 bytes for each member: the BLAKE2b of a file's content, zeros for what is sparse or no file."""
        return self._content_digests

    @cached_property
    def _content_digests(self) -> bytes:
        return b"".join(map(self._content_digest, self.members()))

    def _content_digest(self, member: Member) -> bytes:
        if member.kind is not MemberKind.FILE or member.real_size >= 0:
            return bytes(_DIGEST)  # a hole of a terabyte is not to be hashed, here or there
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for piece in self.content(member):
            digest.update(piece)
        return digest.digest()

    def digest(self, member: Member) -> bytes:
        """Return a hash of a file's content, the same whichever of its zeros are holes."""
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for start, piece in self._stored(member):
            for at in range(0, len(piece), _HASHED):
                block = piece[at : at + _HASHED]
                if block.strip(b"\0"):
                    digest.update(b"%d:" % (start + at))
                    digest.update(block)
        digest.update(b"%d" % (member.size if member.real_size < 0 else member.real_size))
        return digest.digest()

    def open(self) -> BinaryIO:
        """Return a new reader of the archive's bytes, at their beginning."""
        return self._spool.open()

    def save(self, path: Path) -> None:
        """Write the archive to a file that only this user may read; whole or not at all."""
        with replacing(path) as file:
            file.writelines(_chunks(self.open()))

    def fingerprint(self, *, times: bool = False) -> str:
        """Return a hash, equal for equal trees: names, contents, modes, owners, links, xattrs, and times if asked."""
        return self.sha256 if times else self._timeless

    @cached_property
    def _timeless(self) -> str:
        digest = hashlib.sha256()
        timeless = ((member._replace(mtime_ns=0), self.content(member)) for member in self.members())
        for chunk in canonical_stream(timeless):
            digest.update(chunk)
        return digest.hexdigest()

    def extract(self, destination: Path) -> None:
        """Unpack into a local directory, made if it is missing. What else is in there stays.

        Nothing is written outside it: every name was checked, and no symbolic link below destination is followed,
        neither the archive's nor one that was there before. Permission bits are kept without setuid, setgid and sticky,
        a directory stays usable for its owner; times are kept, owners and xattrs are not. Symbolic links are made
        verbatim, wherever they point. Raises UnsafeArchive when one would be written through, OSError.
        """
        members = self.members()
        destination.mkdir(parents=True, exist_ok=True)
        with HostTree(destination) as tree:
            for member in members:
                if member.kind is MemberKind.DIRECTORY:
                    tree.make_directory(member)
                elif member.kind is MemberKind.FILE:
                    tree.write_file(member, self._stored(member))
                elif member.kind is MemberKind.HARD_LINK:
                    tree.make_link(member)
            # Last, so that no member is written through a link of the same archive, even where a file system takes two
            # names for one (case, Unicode normalisation).
            for member in members:
                if member.kind is MemberKind.SYMLINK:
                    tree.make_symlink(member)
            # Children change their directory's time, and may need a permission that it is to lose: innermost first.
            for member in reversed(members):
                if member.kind is MemberKind.DIRECTORY:
                    tree.finish_directory(member)

    def _stored(self, member: Member) -> Iterator[tuple[int, bytes]]:
        """Yield (place in the file, bytes)."""
        extents, mapped = [(0, member.size)], 0
        if member.real_size >= 0:
            extents, mapped = sparse_extents(Window(self._spool), member)
        at = member.offset + mapped
        for start, length in extents:
            for piece in range(0, length, CHUNK):
                yield start + piece, self.read_at(at + piece, min(CHUNK, length - piece))
            at += length


def _slice(spool: Spool, member: Member) -> Iterator[bytes]:
    for piece in range(0, member.size, CHUNK):
        yield spool.read_at(member.offset + piece, min(CHUNK, member.size - piece))
