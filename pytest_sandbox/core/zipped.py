"""Zip archives as members of ours. zipfile reads them, and believes what they say: each member is checked here."""

from __future__ import annotations

import calendar
import errno
import io
import lzma
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import BadZipFile, ZipFile, ZipInfo

from ..agent.wire import to_wire
from ..errors import DamagedArchive, UnsafeArchive
from ..models import MEBIBYTE
from .spool import Spool, SpoolReader
from .tar import CHUNK, ArchiveLimits, Item, Member, MemberKind, check_tree, member_order, normal_name

SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # of the first member, or of the end of an archive without any
_MAX_DIRECTORY = 128 * MEBIBYTE  # bytes of the list of members, which zipfile reads into memory as a whole
_UNIX = 3  # the system that made a member, if its mode is one
_ENCRYPTED, _UTF_8 = 1, 0x800  # flags of a member


def zip_items(spool: Spool, limits: ArchiveLimits) -> list[Item]:
    """Return the members of a zip archive in canonical order, checked, with directories that only names tell of.

    What zip does not know: owners are 0, times are taken as UTC, modes are 644 and 755 unless a Unix made it.
    Raises DamagedArchive, UnsafeArchive, also when a content is read.
    """
    with _errors():
        archive = ZipFile(_Guarded(spool))
    if len(archive.infolist()) > limits.members:
        raise UnsafeArchive("", f"lies beyond the limit of {limits.members} members")
    items: list[Item] = []
    name_bytes = 0
    for info in archive.infolist():
        member = _member(archive, info, limits)
        name_bytes += len(member.name)
        if len(member.name) > limits.name_bytes or name_bytes > limits.all_name_bytes:
            raise UnsafeArchive(info.filename[:100], "has a name, or is one of many, longer than is taken")
        items.append((member, _content(archive, info) if member.kind is MemberKind.FILE else ()))
    implied = check_tree([member for member, _ in items], limits, canonical=False)
    items += [(member, ()) for member in implied]
    return sorted(items, key=lambda item: member_order(item[0]))


def _member(archive: ZipFile, info: ZipInfo, limits: ArchiveLimits) -> Member:
    name = info.orig_filename  # whole; zipfile ends `filename` at a NUL
    if info.flag_bits & _ENCRYPTED:
        raise UnsafeArchive(name, "is encrypted")
    unix = info.external_attr >> 16 if info.create_system == _UNIX else 0
    kind = MemberKind.DIRECTORY if name.endswith("/") else MemberKind.FILE
    if stat.S_ISLNK(unix):
        kind = MemberKind.SYMLINK
    elif stat.S_IFMT(unix) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeArchive(name, "is neither a file, a directory nor a symbolic link")
    elif (kind is MemberKind.DIRECTORY) != stat.S_ISDIR(unix) and stat.S_IFMT(unix):
        raise UnsafeArchive(name, "is a directory by its name or by its mode, but not by both")
    mode = stat.S_IMODE(unix) if unix else 0o755 if kind is MemberKind.DIRECTORY else 0o644
    link = b""
    if kind is MemberKind.SYMLINK:
        if info.file_size > limits.name_bytes:
            raise UnsafeArchive(name, "is a symbolic link with a target longer than is taken")
        link, mode = b"".join(_content(archive, info)), 0o777
        if not link or b"\0" in link:
            raise UnsafeArchive(name, "is a symbolic link without a target, or with a NUL in it")
    size = info.file_size if kind is MemberKind.FILE else 0
    seconds = max(calendar.timegm((*info.date_time, 0, 0, 0)), 0) if 1 <= info.date_time[1] <= 12 else 0
    # zipfile takes a name without the flag for one of DOS; on a Unix it is bytes of whatever encoding, like any other.
    raw_name = name.encode("cp437") if info.create_system == _UNIX and not info.flag_bits & _UTF_8 else to_wire(name)
    return Member(
        normal_name(raw_name, lenient=True), kind, mode, mtime_ns=seconds * 1_000_000_000, size=size, link=link
    )


def _content(archive: ZipFile, info: ZipInfo) -> Iterator[bytes]:
    """Yield what a member says to have, and no more: zipfile stops there, and checks the sum."""
    left = info.file_size
    with _errors(), archive.open(info) as file:
        while chunk := file.read(CHUNK):
            left -= len(chunk)
            yield chunk
    if left:
        raise DamagedArchive(f"{info.filename!r} is {left} bytes shorter than it says")


@contextmanager
def _errors() -> Iterator[None]:
    """What zipfile and the decompressors below it raise for what is not as it should be."""
    try:
        yield
    except (
        BadZipFile, NotImplementedError, UnicodeError, EOFError, OverflowError, ValueError, struct.error, zlib.error,
        lzma.LZMAError,
    ) as error:  # fmt: skip
        raise DamagedArchive(f"it can't be read as a zip archive: {error}") from None
    except OSError as error:
        # bz2 has no error of its own, and none with a number; a position before the beginning is EINVAL.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedArchive(f"it can't be read as a zip archive: {error}") from None


class _Guarded(io.BufferedReader):
    """Refuses to read more into memory than any list of members that is taken."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(SpoolReader(spool), CHUNK)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise DamagedArchive(f"its list of members has {size} bytes")
        return super().read(size)
