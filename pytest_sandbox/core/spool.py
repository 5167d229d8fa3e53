"""Bytes that stream in once and are then read at any place; nothing of them outlives the process."""

from __future__ import annotations

import errno
import io
import os
import tempfile
import weakref
from typing import TYPE_CHECKING, BinaryIO

from ..errors import NoSpaceOnHost
from ..models import MEBIBYTE

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

IN_MEMORY = 4 * MEBIBYTE  # what is no larger never touches the disk


class Spool:
    """Bytes that are written once and then read at any place: in memory while they are few, else in an unlinked file.

    Reading is safe from several threads at once.
    """

    def __init__(self) -> None:
        self.size = 0
        self._memory: bytearray | None = bytearray()
        self._file: BinaryIO | None = None

    @classmethod
    def of_file(cls, file: BinaryIO) -> Spool:
        """Take what is in a file, which stays open for as long as the spool lives, and a lock on it held."""
        spool = cls()
        spool.size = file.seek(0, io.SEEK_END)
        file.seek(0)
        spool._memory = bytearray(file.read()) if spool.size <= IN_MEMORY else None
        spool._keep(file)
        return spool

    @property
    def in_memory(self) -> bool:
        return self._memory is not None

    def _keep(self, file: BinaryIO) -> None:
        self._file = file
        weakref.finalize(self, file.close)

    def append(self, chunk: bytes) -> None:
        """Raises NoSpaceOnHost, after which the spool is of no use."""
        self.size += len(chunk)
        if self._memory is not None:
            self._memory += chunk
            if self.size <= IN_MEMORY:
                return
            chunk, self._memory = bytes(self._memory), None
        try:
            if self._file is None:
                # Has no name, so nothing is left when this process is killed.
                self._keep(tempfile.TemporaryFile(prefix="pytest-sandbox-", buffering=0))  # noqa: SIM115 - finalized
            assert self._file is not None
            left = memoryview(chunk)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpaceOnHost(tempfile.gettempdir(), self.size - len(chunk)) from error

    def cut(self, size: int) -> bytes:
        """Take off what follows the first bytes, and return it."""
        rest = self.read_at(size, self.size - size)
        if self._memory is not None:
            del self._memory[size:]
        if self._file is not None:
            self._file.truncate(size)
        self.size = size
        return rest

    def open(self) -> BinaryIO:
        """Return a new reader, at the beginning."""
        return io.BufferedReader(SpoolReader(self), 256 * 1024)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return length bytes from offset on, fewer only at the end."""
        if self._memory is not None:
            return bytes(memoryview(self._memory)[offset : offset + length])
        assert self._file is not None
        return os.pread(self._file.fileno(), length, offset)


class SpoolReader(io.RawIOBase):
    """A spool as a file object with a position of its own."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        chunk = self._spool.read_at(self._position, len(view))
        view[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._spool.size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, f"negative position {position}")  # as of a file: zipfile relies on it
        self._position = position
        return position
