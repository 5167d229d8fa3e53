"""Patches applied to the files of a sandbox: read, computed, and only then written.

What they say is in patch_formats.py, what comes of it in patch.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import PurePosixPath

from ..agent.wire import from_wire, to_wire
from ..changes import Changes
from ..errors import (
    FileMissing,
    FileNotDirectory,
    FileOperationError,
    PatchRejected,
    SandboxError,
    WorkspaceRootProtected,
    file_error,
)
from ..models import FileKind, FileStat
from .files import FileOperations, SandboxPath
from .patch import MAX_PATCH, File, patched, paths_of
from .patch_formats import read_patch
from .sources import in_thread

logger = logging.getLogger(__name__)

LINUX_ENOTDIR = 20
ROOT = ""  # the agent's own user: what was there comes back, whoever may write there


class PatchOperations(FileOperations):
    """apply_patch."""

    async def apply_patch(
        self,
        patch: str | bytes,
        *,
        strip: int | None = None,
        path: SandboxPath = ".",
        user: str | int | None = None,
    ) -> Changes:
        """Apply a patch to the files below a directory, all of it or nothing; return what it did, paths relative to it.

        patch: a unified diff, as `diff -u` and git write it (new, deleted, renamed, copied files, modes), or a V4A
        patch (`*** Begin Patch`). A hunk's lines must be in the file exactly, but may have moved: the nearest place is
        taken. strip: components to take off the names in a unified diff, as for `patch -p`; by default 1 where they
        begin with `a/` and `b/`, else 0. user: whom files are read and written as; a file keeps its owner, and
        directories that become empty go.
        A symbolic link at or on the way to a file is refused, as it is found before anything is written: no promise
        against a process that puts one there meanwhile. When a write fails, what was done is put back: content, modes
        and owners, but not times and hard links.
        Raises PatchRejected before anything is changed; FileOperationError and its kinds, with everything put back.
        """
        raw = to_wire(patch)
        base = PurePosixPath(from_wire(self.absolute(path)))
        if not (await self.stat(base, user=user)).is_dir:
            raise file_error(LINUX_ENOTDIR, "open", from_wire(to_wire(path)))
        patches = await in_thread(lambda: read_patch(raw, strip))
        paths = paths_of(patches)
        found = await self._survey(base, paths, user)
        files = await self._contents(base, paths, found, user)
        written, changes = await in_thread(lambda: patched(patches, files))
        async with AsyncExitStack() as undo:
            gone = {name: files[name] for name, file in written.items() if file is None and name in files}
            await self._remove_all(base, gone, found, undo, user)
            for name, file in written.items():
                if file is not None:
                    await self._write(base, name, file, files.get(name), undo, user)
            undo.pop_all()
        return changes

    async def _survey(self, base: PurePosixPath, paths: Iterable[str], user: str | int | None) -> dict[str, FileStat]:
        """What there is at the paths and on the way to them. Raises PatchRejected for what can't be patched through."""
        found: dict[str, FileStat] = {}
        missing: set[str] = set()
        for path in paths:
            for step in (*reversed(PurePosixPath(path).parents[:-1]), PurePosixPath(path)):
                name = str(step)
                if name in missing:
                    break
                if name not in found:
                    try:
                        found[name] = await self.lstat(base / step, user=user)
                    except (FileMissing, FileNotDirectory):
                        missing.add(name)
                        break
                if found[name].kind is FileKind.SYMLINK:
                    reason = f"{name!r} is a symbolic link, and a patch follows none"
                    raise PatchRejected(reason, path=path, advice="name the file that it leads to")
        return found

    async def _contents(
        self, base: PurePosixPath, paths: Iterable[str], found: Mapping[str, FileStat], user: str | int | None
    ) -> dict[str, File]:
        files: dict[str, File] = {}
        room = MAX_PATCH
        for path in paths:
            there = found.get(path)
            if there is None or (there.is_dir and any(other.startswith(f"{path}/") for other in paths)):
                continue  # a directory may be emptied by the patch, and make room for a file
            if not there.is_file:
                raise PatchRejected(f"what is there is no regular file but a {there.kind.name.lower()}", path=path)
            content = await self.read_bytes(base / path, length=room + 1, user=user)
            room -= len(content)
            if room < 0:
                raise PatchRejected(f"the files to be patched have more than {MAX_PATCH} bytes", path=path)
            files[path] = File(content, there.mode)
        return files

    async def _remove_all(
        self,
        base: PurePosixPath,
        gone: Mapping[str, File],
        found: Mapping[str, FileStat],
        undo: AsyncExitStack,
        user: str | int | None,
    ) -> None:
        """Remove files, and then the directories that have become empty by that."""
        for name, was in gone.items():
            path, owner = base / name, f"{found[name].uid}:{found[name].gid}"
            _undo(undo, self.write_bytes, path, was.content, mode=was.mode, owner=owner, user=ROOT)
            await self.remove(path, user=user)
        parents = {str(parent) for name in gone for parent in PurePosixPath(name).parents[:-1]}
        for name in sorted(parents, reverse=True):  # what is in a directory before itself
            path = base / name
            try:
                await self.remove(path, user=user)
            except (FileOperationError, WorkspaceRootProtected):
                continue  # it has something else in it, or can't be removed: no matter to the patch
            _undo(undo, self.chown, path, f"{found[name].uid}:{found[name].gid}", user=ROOT)
            _undo(undo, self.chmod, path, found[name].mode, user=ROOT)
            _undo(undo, self.mkdir, path, user=ROOT)

    async def _write(
        self,
        base: PurePosixPath,
        name: str,
        file: File,
        was: File | None,
        undo: AsyncExitStack,
        user: str | int | None,
    ) -> None:
        path = base / name
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            if not await self.exists(base / parent, user=user):
                _undo(undo, self.remove, base / parent, user=ROOT)
                await self.mkdir(base / parent, user=user)
        # Before the write, which may be cancelled when it is done.
        if was is None:
            _undo(undo, self.remove, path, user=ROOT)
        else:
            _undo(undo, self.write_bytes, path, was.content, mode=was.mode, user=ROOT)
        await self.write_bytes(path, file.content, mode=file.mode, user=user, exclusive=was is None, parents=False)


def _undo(
    stack: AsyncExitStack, operation: Callable[..., Coroutine[None, None, None]], *args: object, **named: object
) -> None:
    """Have an operation run if what follows fails. Its own failure must not hide that one."""

    async def undo() -> None:
        try:
            await operation(*args, **named)
        except FileMissing:
            pass  # it never came to be
        except SandboxError as error:
            logger.warning("patch.undo.failed operation=%s path=%s error=%s", operation.__name__, args[0], error)

    stack.push_async_callback(undo)
