"""Members of an archive as files of this host. Names come from a sandbox: none may lead outside the directory."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..agent.wire import from_wire
from ..errors import UnsafeArchive
from .tar import Member


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the path's name when the block ends well, and is gone when not. Its mode is 0600."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


class HostTree:
    """Writes below one local directory by directory descriptors, following no link on the way (openat(2))."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._stack: list[tuple[bytes, int]] = []  # the directories from the root to the last one used

    def __enter__(self) -> HostTree:
        return self

    def __exit__(self, *exception: object) -> None:
        self._unwind(0)
        os.close(self._root)

    def _unwind(self, depth: int) -> None:
        while len(self._stack) > depth:
            os.close(self._stack.pop()[1])

    def _directory(self, name: bytes) -> int:
        """Return a descriptor of the directory, valid until the next call."""
        parts = name.split(b"/") if name else []
        common = 0
        while common < min(len(parts), len(self._stack)) and self._stack[common][0] == parts[common]:
            common += 1
        self._unwind(common)
        for part in parts[common:]:
            above = self._stack[-1][1] if self._stack else self._root
            try:
                descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            except OSError as error:
                if stat.S_ISLNK(os.lstat(part, dir_fd=above).st_mode):
                    raise UnsafeArchive(
                        from_wire(name), "would be written through a symbolic link on this host"
                    ) from None
                raise OSError(error.errno, error.strerror, from_wire(name)) from None
            self._stack.append((part, descriptor))
        return self._stack[-1][1] if self._stack else self._root

    def _vacant(self, name: bytes) -> tuple[int, bytes]:
        """Remove the file or link that has the name, and return the directory and the last component."""
        above, _, last = name.rpartition(b"/")
        directory = self._directory(above)
        try:
            os.unlink(last, dir_fd=directory)
        except FileNotFoundError:
            pass
        return directory, last

    def make_directory(self, member: Member) -> None:
        if not member.name:
            return
        above, _, last = member.name.rpartition(b"/")
        try:
            os.mkdir(last, 0o700, dir_fd=self._directory(above))
        except FileExistsError:
            os.fchmod(self._directory(member.name), 0o700)

    def finish_directory(self, member: Member) -> None:
        if not member.name:
            return
        descriptor = self._directory(member.name)
        os.fchmod(descriptor, member.mode & 0o777 | 0o700)
        os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))

    def write_file(self, member: Member, pieces: Iterator[tuple[int, bytes]]) -> None:
        directory, last = self._vacant(member.name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(last, flags, 0o600, dir_fd=directory), "wb") as file:
            for place, chunk in pieces:
                file.seek(place)
                file.write(chunk)
            file.truncate(member.size if member.real_size < 0 else member.real_size)
            os.fchmod(file.fileno(), member.mode & 0o777)
            os.utime(file.fileno(), ns=(member.mtime_ns, member.mtime_ns))

    def make_link(self, member: Member) -> None:
        above, _, existing = member.link.rpartition(b"/")
        source = os.dup(self._directory(above))
        try:
            directory, last = self._vacant(member.name)
            os.link(existing, last, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(source)

    def make_symlink(self, member: Member) -> None:
        directory, last = self._vacant(member.name)
        os.symlink(member.link, last, dir_fd=directory)
