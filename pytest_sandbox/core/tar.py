"""The tar format: a strict reader of what others write, and a writer of the one canonical form. No files, no sandbox.

The canonical form is what PERSIST writes (docs/protocol.md) and what HYDRATE takes:

- Members in byte order of their path's components, so that a directory precedes what is in it. Names are relative,
  a directory's ends with a slash, the root is `./`. Two zero blocks at the end and nothing after.
- ustar headers with the magic `ustar\\0` `00`; numbers in octal, zero-padded, with a NUL at the end; the checksum in
  six digits, NUL, space; device numbers `0000000`; uname, gname and prefix empty; raw bytes in the name and link
  fields.
- Before a header that can't hold it all, a pax header `PaxHeaders/x` (mode 0644, its other numbers zero), its records
  in byte order of their keywords:
  `path`, `linkpath` beyond 100 bytes (the header's field then has the first 100), `size` from 8 GiB, `uid` and
  `gid` beyond seven octal digits (the field then has 0),
  `mtime` unless it is a whole second from 0 to 8^11 - 1: seconds, a point, nine digits, `-` before it all if negative
  (the field then has the seconds rounded down, 0 if it can't hold them),
  `SCHILY.xattr.NAME`, and for a sparse file `GNU.sparse.major` 1, `minor` 0, `name`, `realsize`, no `path` (the
  field then has `GNUSparseFile.0/x`).
- A file with several names has content and xattrs under the first of them; the others are hard links to that one, with
  the same mode, owner and time, and size 0. A symbolic link's mode is 0777.

So equal trees make equal bytes. tarfile is not used: it is lenient by design, and a sandbox chooses what we read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from struct import Struct
from typing import NamedTuple

from ..agent.wire import from_wire
from ..errors import DamagedArchive, UnsafeArchive
from ..models import MEBIBYTE
from .spool import Spool

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
CHUNK = 256 * 1024  # bytes per read, and per piece that goes onto a channel
HEADER = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
USTAR, GNU = b"ustar\x0000", b"ustar  \0"
OCTAL_12, OCTAL_8 = 8**11, 8**7  # the first numbers that the fields of 12 and of 8 bytes can't hold
XATTR, SPARSE = b"SCHILY.xattr.", b"GNU.sparse."  # prefixes of pax keywords
MAX_ID = 2**32 - 2  # 2^32 - 1 means "leave it" to chown(2)
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What is taken at most, from an archive as from a sandbox. Beyond it: UnsafeArchive.

    total_bytes: of the tar stream, after decompression. extended_bytes: of one pax header or long name.
    name_bytes: of one name; all_name_bytes: of all of them, with extended attributes and the maps of sparse files, for
    they are what reading keeps in memory.
    """

    members: int = 250_000
    total_bytes: int = 16 * 1024 * MEBIBYTE
    extended_bytes: int = MEBIBYTE
    name_bytes: int = 16_384
    all_name_bytes: int = 64 * MEBIBYTE


DEFAULT_LIMITS = ArchiveLimits()


class MemberKind(Enum):
    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    DIRECTORY = b"5"


# Class attributes of an Enum cost a descriptor call each; these are read once per member.
_FILE, _HARD_LINK, _SYMLINK, _DIRECTORY = MemberKind
_KINDS = {b"0": _FILE, b"\0": _FILE, b"7": _FILE, b"1": _HARD_LINK, b"2": _SYMLINK, b"5": _DIRECTORY}
_REFUSED = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}


class Member(NamedTuple):
    """One member of an archive. A tuple, because an archive has ten thousand of them.

    name: relative, without `./` or a slash at the end; empty for the root. link: a symbolic link's target verbatim, or
    the name of the member that a hard link shares its file with. size: bytes stored; real_size: length of a sparse
    file, -1 for any other. offset: where in the archive the content stands.
    """

    name: bytes
    kind: MemberKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    real_size: int = -1
    offset: int = 0

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(from_wire(self.name))


Item = tuple[Member, Iterable[bytes]]  # a member to be written, and its content


def _order(name: bytes) -> bytes:
    """Sort key: compares component by component, as no name holds a NUL and nothing sorts before it."""
    return name.replace(b"/", b"\0")


def member_order(member: Member) -> bytes:
    return _order(member.name)


# --- writing ---------------------------------------------------------------------------------------------------------


def _record(keyword: bytes, value: bytes) -> bytes:
    """A pax record, whose length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)


def _header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    tail = kind + link.ljust(100, b"\0") + USTAR + bytes(64) + b"0000000\x000000000\0" + bytes(167)
    checksum = sum(name) + sum(numbers) + sum(tail) + 8 * 0x20
    return b"%s%s%06o\0 %s" % (name.ljust(100, b"\0"), numbers, checksum, tail)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _timestamp(mtime_ns: int) -> bytes:
    seconds, fraction = divmod(abs(mtime_ns), SECOND)
    return b"%s%d.%09d" % (b"-" if mtime_ns < 0 else b"", seconds, fraction)


def encode_header(member: Member) -> bytes:
    """Return the blocks that stand before the member's content, in the canonical form."""
    name = member.name or b"."
    if member.kind is _DIRECTORY:
        name += b"/"
    seconds, fraction = divmod(member.mtime_ns, SECOND)
    records: dict[bytes, bytes] = {XATTR + key: value for key, value in member.xattrs}
    if len(name) > 100 and member.real_size < 0:
        records[b"path"] = name
    if len(member.link) > 100:
        records[b"linkpath"] = member.link
    if member.size >= OCTAL_12:
        records[b"size"] = b"%d" % member.size
    if member.uid >= OCTAL_8:
        records[b"uid"] = b"%d" % member.uid
    if member.gid >= OCTAL_8:
        records[b"gid"] = b"%d" % member.gid
    if fraction or not 0 <= seconds < OCTAL_12:
        records[b"mtime"] = _timestamp(member.mtime_ns)
    if member.real_size >= 0:
        records |= {
            SPARSE + b"major": b"1",
            SPARSE + b"minor": b"0",
            SPARSE + b"name": name,
            SPARSE + b"realsize": b"%d" % member.real_size,
        }
        name = b"GNUSparseFile.0/x"  # whoever does not know the records unpacks a map, but not in the file's place
    extended = b""
    if records:
        body = b"".join([_record(keyword, records[keyword]) for keyword in sorted(records)])
        extended = _header(b"PaxHeaders/x", b"x", mode=0o644, size=len(body)) + body + _padding(len(body))
    return extended + _header(
        name[:100],
        member.kind.value,
        mode=member.mode,
        uid=member.uid if member.uid < OCTAL_8 else 0,
        gid=member.gid if member.gid < OCTAL_8 else 0,
        size=member.size if member.size < OCTAL_12 else 0,
        mtime=seconds if 0 <= seconds < OCTAL_12 else 0,
        link=member.link[:100],
    )


def canonical_stream(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the archive of members that come in canonical order, in pieces of about CHUNK bytes.

    Raises OSError when a content is shorter or longer than its member says: a file that changed while it was read.
    """
    return batched(_pieces(items))


def _pieces(items: Iterable[Item]) -> Iterator[bytes]:
    for member, content in items:
        yield encode_header(member)
        written = 0
        for chunk in content:
            written += len(chunk)
            yield chunk
        if written != member.size:
            name = from_wire(member.name)
            raise OSError(f"{name!r} changed its size while it was read, from {member.size} to {written} bytes")
        yield _padding(written)
    yield bytes(2 * BLOCK)


def batched(pieces: Iterable[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(batch)
            batch.clear()
            size = 0
    if batch:
        yield b"".join(batch)


# --- reading ---------------------------------------------------------------------------------------------------------


class Window:
    """Reads small pieces that lie close together with few calls. Knows where the archive ends."""

    def __init__(self, spool: Spool) -> None:
        self.size = spool.size
        self._read_at = spool.read_at
        self._start = 0
        self._bytes = b""

    def take(self, offset: int, length: int) -> bytes:
        at = offset - self._start
        if at < 0 or at + length > len(self._bytes):
            if offset + length > self.size:
                raise DamagedArchive("it is cut off", self.size)
            self._bytes, self._start, at = self._read_at(offset, max(length, CHUNK)), offset, 0
        return self._bytes[at : at + length]


def _number(field: bytes) -> int:
    """The value of a numeric field: octal between spaces or NULs, or GNU's base 256 with the first bit set."""
    digits = field.strip(b" \0")
    if digits.isdigit():
        return int(digits, 8)
    if not digits:
        return 0
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    raise ValueError(f"{field!r} is not a number")


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise ValueError(f"{digits[:40]!r} is not a number")
    return int(digits)


def _nanoseconds(value: bytes) -> int:
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    nanoseconds = _decimal(seconds) * SECOND + _decimal((fraction + b"000000000")[:9])
    if fraction and not fraction.isdigit():
        raise ValueError(f"{value[:40]!r} is not a time")
    return -nanoseconds if value.startswith(b"-") else nanoseconds


def _checksum_holds(header: bytes, field: bytes) -> bool:
    # Adler-32's low half is 1 + the sum of the bytes modulo 65521, so exact for 256 bytes; ten times as fast as sum().
    total = (zlib.adler32(header[:256]) & 0xFFFF) + (zlib.adler32(header[256:]) & 0xFFFF) - 2
    return field.strip(b" \0").lstrip(b"0") == b"%o" % (total - sum(field) + 8 * 0x20)


def _records(body: bytes) -> dict[bytes, bytes]:
    """The records of a pax header. Raises ValueError."""
    records: dict[bytes, bytes] = {}
    at, size = 0, len(body)
    while at < size:
        space = body.find(b" ", at, at + 9)
        end = at + _decimal(body[at:space]) if space > at else 0
        keyword, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not space + 1 < end <= size or body[end - 1] != 0x0A or not keyword or not equals:
            raise ValueError("a pax record is malformed")
        if keyword in records:
            raise ValueError(f"pax record {from_wire(keyword[:80])!r} comes twice")
        records[keyword] = value
        at = end
    return records


def normal_name(name: bytes, *, lenient: bool) -> bytes:
    """Strip `./` and the slash at the end; lenient: also doubled slashes and dots between."""
    if name.startswith(b"/"):
        raise UnsafeArchive(from_wire(name), "has an absolute path")
    if b"\0" in name or not name:
        raise UnsafeArchive(from_wire(name), "has an empty name" if not name else "has a NUL in its name")
    if name in (b".", b"./"):
        return b""
    normal = name.removesuffix(b"/")
    if lenient:
        normal = normal.removeprefix(b"./")
    parts = normal.split(b"/")
    if b".." in parts:
        raise UnsafeArchive(from_wire(name), "has `..` in its path")
    if b"" in parts or b"." in parts:
        if not lenient:
            raise UnsafeArchive(from_wire(name), "has an empty name or `.` in its path")
        return b"/".join([part for part in parts if part not in (b"", b".")])
    return normal


def sparse_extents(window: Window, member: Member) -> tuple[list[tuple[int, int]], int]:
    """The map at the front of a sparse file's content: (offset, length) of its pieces, and the bytes the map takes.

    Format 1.0: decimal lines, how many and then the pairs, filled up to a block. Raises ValueError.
    """
    front = window.take(member.offset, min(member.size, 4 * MEBIBYTE))
    count = _decimal(front.partition(b"\n")[0])
    lines = front.split(b"\n", 2 * min(count, len(front)) + 1)
    if len(lines) != 2 * count + 2:
        raise ValueError("the map of a sparse file is cut off")
    mapped = len(front) - len(lines[-1])
    mapped += -mapped % BLOCK
    numbers = [_decimal(line) for line in lines[1:-1]]
    extents = list(zip(numbers[::2], numbers[1::2], strict=True))
    at = 0
    for start, length in extents:
        if start < at:
            raise ValueError("the pieces of a sparse file overlap")
        at = start + length
    if at > member.real_size or member.real_size >= 2**63 or mapped + sum(numbers[1::2]) != member.size:
        raise ValueError("the map of a sparse file does not fit its size")
    return extents, mapped


def scan(spool: Spool, limits: ArchiveLimits, *, canonical: bool, whole: bool = True) -> list[Member]:
    """Read and check every member, and return them in canonical order.

    canonical: the archive claims the form described at the top; else it is ustar, pax or GNU from anywhere, in any
    order, and gets the directories that it left out. whole: one in canonical form has none left out.
    Raises DamagedArchive and UnsafeArchive.
    """
    reading = _Scan(Window(spool), limits, canonical=canonical)
    try:
        members = list(reading.members())
    except ValueError as error:
        raise DamagedArchive(str(error), reading.offset) from None
    _check_end(reading.window, reading.offset, canonical=canonical)
    implied = check_tree(members, limits, canonical=canonical, whole=whole)
    return members if canonical else arranged([*members, *implied])


class _Scan:
    """One pass over an archive's headers. What it raises as ValueError is damage at `offset`."""

    def __init__(self, window: Window, limits: ArchiveLimits, *, canonical: bool) -> None:
        self.window = window
        self.offset = 0
        self._held = 0  # bytes
        self._limits = limits
        self._canonical = canonical

    def members(self) -> Iterator[Member]:
        """Yield what stands before the two zero blocks, each member checked by itself."""
        for count, (fields, records) in enumerate(self._headers()):
            member = self._member(fields, records)
            self._held += len(member.name) + len(member.link)
            if member.xattrs:
                self._held += sum(len(name) + len(value) for name, value in member.xattrs)
            if count >= self._limits.members or self._held > self._limits.all_name_bytes:
                raise UnsafeArchive(from_wire(member.name), f"is one too many, after {count} others")
            yield member
            self.offset += member.size + -member.size % BLOCK

    def _headers(self) -> Iterator[tuple[tuple[bytes, ...], dict[bytes, bytes]]]:
        """Yield the fields of each member's header and its pax records, `offset` being where its content stands."""
        take, limits = self.window.take, self._limits
        records: dict[bytes, bytes] = {}
        shared: dict[bytes, bytes] = {}  # records for all members that follow
        seen: set[bytes] = set()  # the kinds of extended headers before the next member
        while (header := take(self.offset, BLOCK)) != ZERO_BLOCK:
            fields: tuple[bytes, ...] = HEADER.unpack(header)
            kind, magic = fields[7], fields[9]
            if not _checksum_holds(header, fields[6]):
                raise ValueError("no tar header, its checksum is wrong")
            if magic != USTAR and (self._canonical or magic != GNU):
                raise ValueError("neither a ustar, a pax nor a GNU header")
            if kind not in b"xgLK":
                self.offset += BLOCK
                yield fields, {**shared, **records} if shared else records
                records = {}
                seen.clear()
                continue
            if kind in seen or (self._canonical and kind != b"x"):
                raise ValueError(f"an extended header of type {from_wire(kind)!r} out of place")
            size = _number(fields[4])
            if not 0 <= size <= limits.extended_bytes:
                raise UnsafeArchive(from_wire(fields[0].rstrip(b"\0")), f"is an extended header of {size} bytes")
            body = take(self.offset + BLOCK, size)
            if kind == b"g":
                shared |= _shared_records(body)
            else:
                seen.add(kind)
            if kind == b"x":
                records |= _records(body)
            elif kind != b"g":
                records.setdefault(b"path" if kind == b"L" else b"linkpath", body.rstrip(b"\0"))
            self.offset += BLOCK + size + -size % BLOCK
        if seen:
            raise ValueError("an extended header without its member")

    def _member(self, fields: tuple[bytes, ...], records: dict[bytes, bytes]) -> Member:
        name, mode, uid, gid, size, mtime, _, typeflag, link, magic, *_, prefix = fields
        name, link = name.partition(b"\0")[0], link.partition(b"\0")[0]
        if magic == USTAR and prefix[0]:
            name = prefix.partition(b"\0")[0] + b"/" + name
        kind = _KINDS.get(typeflag, _FILE)
        member = Member(
            name,
            kind,
            _number(mode) & 0o7777,
            _number(uid),
            _number(gid),
            _number(mtime) * SECOND,
            _number(size),
            link,
            offset=self.offset,
        )
        if records:
            member = _amended(member, records)
        if typeflag not in _KINDS:
            if typeflag == b"S":
                raise ValueError("a sparse file in the old GNU format, which can't be read")
            raise UnsafeArchive(
                from_wire(member.name), f"is {_REFUSED.get(typeflag, f'of the unknown type {typeflag!r}')}"
            )
        if self._canonical and (kind is _DIRECTORY) != member.name.endswith(b"/"):
            raise ValueError("a slash at the end is what tells a directory's name")
        if kind is _FILE and member.name.endswith(b"/"):  # how directories were told before ustar
            member = member._replace(kind=_DIRECTORY)
        self._check(member)
        if member.kind is _FILE:
            return member._replace(name=normal_name(member.name, lenient=not self._canonical), link=b"")
        if member.kind is _HARD_LINK:
            link = normal_name(member.link, lenient=not self._canonical)
        else:
            link = member.link if member.kind is _SYMLINK else b""
        return member._replace(name=normal_name(member.name, lenient=not self._canonical), link=link)

    def _check(self, member: Member) -> None:
        """Everything about a member that does not depend on the others."""
        name, kind = member.name, member.kind
        if len(name) > self._limits.name_bytes or len(member.link) > self._limits.name_bytes:
            raise UnsafeArchive(from_wire(name), f"has a name or target of more than {self._limits.name_bytes} bytes")
        if not (0 <= member.uid <= MAX_ID and 0 <= member.gid <= MAX_ID):
            raise UnsafeArchive(from_wire(name), f"has the impossible owner {member.uid}:{member.gid}")
        if not -(2**63) <= member.mtime_ns < 2**63:
            raise UnsafeArchive(from_wire(name), "has a time beyond the years 1677 to 2262")
        if kind is _SYMLINK and (not member.link or b"\0" in member.link):
            raise UnsafeArchive(from_wire(name), "is a symbolic link to nothing or to a name with a NUL")
        if kind is not _DIRECTORY and name in (b".", b"./"):
            raise UnsafeArchive(from_wire(name), "is the root, but no directory")
        if kind is not _FILE and (member.size or member.real_size >= 0):
            raise ValueError(f"{from_wire(name)!r} has a content but is no file")
        if not 0 <= member.size <= self.window.size - self.offset:
            raise ValueError(f"it is cut off, or the size of {from_wire(name)!r} is wrong")
        if member.real_size >= 0:
            self._held += sparse_extents(self.window, member)[1]


def _amended(member: Member, records: dict[bytes, bytes]) -> Member:
    """The member as its pax records have it. Raises ValueError."""
    if len(records) == 1 and b"mtime" in records:  # what PERSIST needs for nearly every file
        return member._replace(mtime_ns=_nanoseconds(records[b"mtime"]))
    changed: dict[str, object] = {}
    xattrs: list[tuple[bytes, bytes]] = []
    for keyword, value in records.items():
        if keyword.startswith(XATTR):
            xattrs.append((keyword[len(XATTR) :], value))
        elif not value:
            continue  # pax(1): as if the record were not there
        elif keyword == b"mtime":
            changed["mtime_ns"] = _nanoseconds(value)
        elif keyword == b"path":
            changed["name"] = value
        elif keyword == b"linkpath":
            changed["link"] = value
        elif keyword in (b"size", b"uid", b"gid"):
            changed[keyword.decode()] = _decimal(value)
        elif keyword.startswith(SPARSE):
            version = records.get(SPARSE + b"major"), records.get(SPARSE + b"minor")
            if version != (b"1", b"0"):
                raise ValueError("a sparse file in another format than GNU 1.0, which can't be read")
            changed["real_size"] = _decimal(records.get(SPARSE + b"realsize", b""))
    if "real_size" in changed and records.get(SPARSE + b"name"):
        changed["name"] = records[SPARSE + b"name"]
    return member._replace(**changed, xattrs=tuple(xattrs))  # type: ignore[arg-type]


def _shared_records(body: bytes) -> dict[bytes, bytes]:
    records = _records(body)
    for keyword in records:
        if keyword in (b"path", b"linkpath", b"size") or keyword.startswith((SPARSE, XATTR)):
            raise ValueError(f"pax record {from_wire(keyword[:80])!r} for all members")
    return {keyword: value for keyword, value in records.items() if keyword in (b"mtime", b"uid", b"gid")}


def _check_end(window: Window, offset: int, *, canonical: bool) -> None:
    """Two zero blocks are the end; what follows them may only be the zeros that fill up a tape's record."""
    if window.take(offset, 2 * BLOCK).count(0) != 2 * BLOCK:
        raise DamagedArchive("one zero block where the end has two", offset)
    offset += 2 * BLOCK
    if canonical and offset != window.size:
        raise DamagedArchive("there is something after the end", offset)
    while offset < window.size:
        rest = window.take(offset, min(CHUNK, window.size - offset))
        if rest.count(0) != len(rest):
            raise DamagedArchive("there is something after the end", offset)
        offset += len(rest)


def check_tree(
    members: Sequence[Member], limits: ArchiveLimits, *, canonical: bool, whole: bool = True
) -> list[Member]:
    """Check that every name is there once, parents are directories, and hard links name files that came before.

    Returns the directories that no member stands for; in an archive in the canonical form there is none.
    """
    kinds: dict[bytes, MemberKind] = {}
    previous = b""
    for member in members:
        name, kind = member.name, member.kind
        if name in kinds:
            raise UnsafeArchive(from_wire(name), "is there twice")
        if kind is _HARD_LINK and kinds.get(member.link) is not _FILE:
            target = from_wire(member.link)
            raise UnsafeArchive(from_wire(name), f"is a hard link to {target!r}, which is no file before it")
        if canonical:
            order = _order(name)
            if order < previous:
                raise DamagedArchive(f"member {from_wire(name)!r} is out of order")
            previous = order
            parent = name.rpartition(b"/")[0]
            if parent and kinds.get(parent, None if whole else _DIRECTORY) is not _DIRECTORY:
                raise UnsafeArchive(from_wire(name), "is not in a directory of the archive")
        kinds[name] = kind
    return [] if canonical else _implied(kinds, limits)


def _implied(kinds: dict[bytes, MemberKind], limits: ArchiveLimits) -> list[Member]:
    # Bounded, because one name of n bytes can imply n/2 directories whose names take n*n/4 bytes.
    implied: set[bytes] = set()
    name_bytes = 0
    for name in kinds:
        parent = name.rpartition(b"/")[0]
        while parent and parent not in implied:
            kind = kinds.get(parent)
            if kind is _DIRECTORY:
                break
            if kind is not None:
                shown = f"{from_wire(parent)!r}, which is a {kind.name.lower().replace('_', ' ')}"
                raise UnsafeArchive(from_wire(name), f"is below {shown}")
            implied.add(parent)
            name_bytes += len(parent)
            if len(kinds) + len(implied) > limits.members or name_bytes > limits.all_name_bytes:
                raise UnsafeArchive(from_wire(name), "needs more directories than are taken")
            parent = parent.rpartition(b"/")[0]
    return [Member(name, _DIRECTORY, 0o755) for name in implied]


def arranged(members: Sequence[Member]) -> list[Member]:
    """Bring checked members into canonical order; a file's content comes with the first of its names."""
    known = {member.name: member for member in members}
    first: dict[bytes, bytes] = {}  # the file that hard links name -> the first of all its names
    for member in members:
        if member.kind is _HARD_LINK:
            first[member.link] = min(first.get(member.link, member.link), member.name, key=_order)
    return sorted((_as_name_of_file(member, known, first) for member in members), key=member_order)


def _as_name_of_file(member: Member, known: dict[bytes, Member], first: dict[bytes, bytes]) -> Member:
    if member.kind is not _HARD_LINK and member.name not in first:
        return member
    file = known[member.link or member.name]
    leader = first[file.name]
    if member.name == leader:
        return file._replace(name=leader)
    return file._replace(name=member.name, kind=_HARD_LINK, link=leader, size=0, xattrs=(), real_size=-1)
