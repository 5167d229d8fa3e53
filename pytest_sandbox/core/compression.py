"""Compressed archives as the bytes that are in them: gz, bz2, xz and zst, told by their first bytes."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ..errors import DamagedArchive, UsageError
from ..models import MEBIBYTE

TAR_MAGIC = slice(257, 262)
CHUNK = 256 * 1024  # bytes that come out at once, however much a small input stands for


class _Decompressor(Protocol):
    """What bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """zlib's decompressor with the manners of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _unxz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 * MEBIBYTE)  # `xz -9` asks for 65 MiB


def _unzstd() -> tuple[Callable[[], _Decompressor], type[Exception]]:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found,import-untyped,no-redef,unused-ignore]
        except ImportError:
            raise UsageError(
                "reading zst takes Python 3.14, or `pip install backports.zstd`; or compress the archive with gz or xz"
            ) from None
    return zstd.ZstdDecompressor, zstd.ZstdError


def _streams(chunks: Iterable[bytes], new: Callable[[], _Decompressor], errors: type[Exception]) -> Iterator[bytes]:
    """Yield the content of one compressed stream after the other, never more than CHUNK bytes at once."""
    decompressor: _Decompressor | None = None
    for chunk in chunks:
        while chunk or (decompressor is not None and not decompressor.needs_input):
            decompressor = decompressor or new()
            try:
                content = decompressor.decompress(chunk, CHUNK)
            except (errors, EOFError) as error:
                raise DamagedArchive(f"it can't be decompressed: {error}") from None
            yield content
            chunk = b""
            if decompressor.eof:
                chunk, decompressor = decompressor.unused_data, None
    if decompressor is not None:
        raise DamagedArchive("its compressed data is cut off")


def decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Undo the compression that the first bytes tell of."""
    first = next(chunks, b"")
    while len(first) < TAR_MAGIC.stop and (more := next(chunks, b"")):  # a pipe may give a byte at a time
        first += more

    def whole() -> Iterator[bytes]:
        yield first
        yield from chunks

    if first[TAR_MAGIC] == b"ustar":  # a member's name comes first in a tar, and `BZh` is a legal name
        return whole()
    if first.startswith(b"\x1f\x8b"):
        return _streams(whole(), _Gunzip, zlib.error)
    if first.startswith(b"BZh"):
        return _streams(whole(), bz2.BZ2Decompressor, OSError)
    if first.startswith(b"\xfd7zXZ\0"):
        return _streams(whole(), _unxz, lzma.LZMAError)
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return _streams(whole(), *_unzstd())
    return whole()
