"""Files in the sandbox: read, written, listed and moved, one channel for each operation.

Paths that the agent names are only ever returned, never opened on this host; see archive.py for whole trees.
"""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from fnmatch import translate
from pathlib import Path, PurePosixPath
from re import Pattern
from re import compile as compile_regex
from struct import Struct
from typing import BinaryIO, TypeAlias, cast

from ..agent.wire import UNLIMITED, BodyReader, BodyWriter, Kind, from_wire, to_wire
from ..errors import (
    FileLinkLoop,
    FileMissing,
    FileNotDirectory,
    LimitExceeded,
    ProtocolError,
    UnsafeArchive,
    UsageError,
    WorkspaceRootProtected,
    file_error,
)
from ..models import MEBIBYTE, FileKind, FileStat
from .archive import Archive, local_tree
from .session import SessionBase
from .sources import chunks, in_thread
from .spool import Spool
from .tar import DEFAULT_LIMITS, ArchiveLimits, batched, canonical_stream
from .transfer import file_errors, hydrate_tree, in_chunks, persist_tree, send_all
from .unpacking import replacing

SandboxPath: TypeAlias = str | bytes | PurePosixPath
Content: TypeAlias = bytes | bytearray | memoryview | BinaryIO | Iterable[bytes]

MAKE_PARENTS, APPEND, EXCLUSIVE = 1, 2, 4  # flags of a WRITE body
KEEP_MODE = -1
MAX_WHOLE = 1024 * MEBIBYTE  # bytes that read_bytes() holds at most: /dev/zero has no end
MAX_ENTRY = 64 * 1024  # bytes of one entry: a path and a target of 4096 bytes each, and much to spare
MAX_LISTED = 1_000_000  # entries that list_dir() and glob() hold at most
MAX_LISTED_TEXT = 128 * MEBIBYTE  # characters of their paths, targets and owners: a million of 30 in each
LINUX_EINVAL = 22  # the agent's number, whatever this host's is
_NUMBERS = Struct("<BIIIIQQq")  # what an entry begins with; in one go, as a tree has ten thousand of them
_KINDS = {ord(kind.value): kind for kind in FileKind}


class FileOperations(SessionBase):
    """The file API. In all of it:

    A relative path is below the workspace root. With the setting `confine` every path has to lead to something beneath
    it, by whatever links: FileOutsideWorkspace if it does not. `user` is whom the operation runs as, with that user's
    rights: name, uid, `name:group` or `uid:gid`; by default the session's user. Any byte string without NUL is a path;
    what is not UTF-8 comes back as os.fsdecode would give it. Errors of the sandbox's kernel are FileOperationError and
    the built-in class: FileMissing is a FileNotFoundError, and so on. Each raises UsageError for a user who does not
    exist, ValueError for a NUL in a path.
    """

    # --- content ---

    async def read_chunks(
        self, path: SandboxPath, *, offset: int = 0, length: int | None = None, user: str | int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a file's content as it comes, in pieces of any size; memory stays bounded however long it is.

        Raises FileMissing, FileForbidden, FileIsDirectory; FileOperationError (EINVAL) for a FIFO or a socket.
        """
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"offset and length can't be negative: {offset}, {length}")
        wanted = UNLIMITED if length is None else length
        body = self._body(user, path).u64(offset).u64(wanted).bytes()
        async with aclosing(self._content(path, body, wanted, length)) as content:
            async for chunk in content:
                yield chunk

    async def read_bytes(
        self, path: SandboxPath, *, offset: int = 0, length: int | None = None, user: str | int | None = None
    ) -> bytes:
        """Return a file's content, at most 1 GiB: LimitExceeded beyond it.

        Raises FileMissing, FileForbidden, FileIsDirectory; FileOperationError (EINVAL) for a FIFO or a socket.
        """
        pieces: list[bytes] = []
        size = 0
        async with aclosing(self.read_chunks(path, offset=offset, length=length, user=user)) as content:
            async for chunk in content:
                pieces.append(chunk)
                size += len(chunk)
                if size > MAX_WHOLE:
                    raise LimitExceeded(
                        f"{path!r} in the sandbox has more than {MAX_WHOLE} bytes; use read_chunks() or length="
                    )
        return b"".join(pieces)

    async def read_text(
        self, path: SandboxPath, encoding: str = "utf-8", errors: str = "strict", *, user: str | int | None = None
    ) -> str:
        """Return a file's content as text, line ends as they are. Raises what read_bytes raises, and UnicodeError."""
        return (await self.read_bytes(path, user=user)).decode(encoding, errors)

    async def write_bytes(
        self,
        path: SandboxPath,
        content: Content,
        *,
        mode: int | None = None,
        owner: str | None = None,
        user: str | int | None = None,
        parents: bool = True,
        append: bool = False,
        exclusive: bool = False,
    ) -> None:
        """Write a file: a reader sees all of the old content or all of the new one, except with append.

        content: bytes, a binary file (read to its end), or an iterable of bytes; if it fails, the old content stays and
        its error passes through. mode, owner: by default an existing file's own. parents: make missing directories.
        exclusive: the file must not exist yet.
        Raises FileIsDirectory, FileForbidden, FileMissing (a directory, without parents), FileAlreadyExists,
        NoSpaceInSandbox.
        """
        source = _source(content)
        flags = MAKE_PARENTS * parents | APPEND * append | EXCLUSIVE * exclusive
        body = self._body(user, path).u32(flags).i32(KEEP_MODE if mode is None else mode).str(to_wire(owner or ""))
        with file_errors(path):
            async with self.channel(Kind.WRITE, body.bytes()) as channel:
                with self.transfer(f"writing {from_wire(to_wire(path))}", _size(content)) as transfer:
                    sent = await send_all(channel, source, transfer)
                result = BodyReader(await channel.result())
        _expect_total("WRITE", result, sent)

    async def write_text(
        self,
        path: SandboxPath,
        text: str,
        encoding: str = "utf-8",
        *,
        mode: int | None = None,
        owner: str | None = None,
        user: str | int | None = None,
        parents: bool = True,
        append: bool = False,
        exclusive: bool = False,
    ) -> None:
        """Write a file from text, exactly: line ends are not translated. The rest is as for write_bytes."""
        await self.write_bytes(
            path,
            text.encode(encoding),
            mode=mode,
            owner=owner,
            user=user,
            parents=parents,
            append=append,
            exclusive=exclusive,
        )

    # --- looking ---

    async def stat(self, path: SandboxPath, *, follow: bool = True, user: str | int | None = None) -> FileStat:
        """Say what is at a path, following symbolic links unless told otherwise. Raises FileMissing, FileForbidden."""
        result = BodyReader(await self._run(Kind.STAT, path, self._body(user, path).u8(follow)))
        found = _entry(result, PurePosixPath(from_wire(to_wire(path))))
        result.done()
        return found

    async def lstat(self, path: SandboxPath, *, user: str | int | None = None) -> FileStat:
        """Say what is at a path, a symbolic link itself. Raises FileMissing, FileForbidden."""
        return await self.stat(path, follow=False, user=user)

    async def exists(self, path: SandboxPath, *, user: str | int | None = None) -> bool:
        """Say whether there is something at a path; a symbolic link must lead to something. Raises FileForbidden."""
        return await self._kind(path, user) is not None

    async def is_file(self, path: SandboxPath, *, user: str | int | None = None) -> bool:
        """Say whether it is a regular file, or a link to one. Raises FileForbidden."""
        return await self._kind(path, user) is FileKind.FILE

    async def is_dir(self, path: SandboxPath, *, user: str | int | None = None) -> bool:
        """Say whether it is a directory, or a link to one. Raises FileForbidden."""
        return await self._kind(path, user) is FileKind.DIRECTORY

    async def list_dir(self, path: SandboxPath = ".", *, user: str | int | None = None) -> list[FileStat]:
        """Return what is in a directory, in byte order; paths are relative to it.

        Raises FileMissing, FileNotDirectory, FileForbidden; LimitExceeded beyond a million entries.
        """
        held = _Held(path)
        listed: list[FileStat] = []
        async with aclosing(self._entries(path, user, recursive=False)) as entries:
            async for entry in entries:
                held.count(str(entry.path), entry.owner, entry.group, entry.target or "")
                listed.append(entry)
        return listed

    async def walk(self, path: SandboxPath = ".", *, user: str | int | None = None) -> AsyncGenerator[FileStat, None]:
        """Yield all that is below a directory, each directory before what is in it; paths are relative to the first.

        Symbolic links are not followed. Raises FileMissing, FileNotDirectory, FileForbidden.
        """
        async with aclosing(self._entries(path, user, recursive=True)) as entries:
            async for entry in entries:
                yield entry

    async def glob(
        self, pattern: str, path: SandboxPath = ".", *, user: str | int | None = None
    ) -> list[PurePosixPath]:
        """Return the paths below a directory that match, sorted; the directory's own path stands before each, as in
        pathlib.

        `**` is any number of directories, at the end also the files in them; a slash at the end asks for directories.
        Names with a leading dot match like any other; directories behind symbolic links are not searched. A missing
        directory has no matches. LimitExceeded beyond a million matches.
        """
        held = _Held(path)
        found: list[PurePosixPath] = []
        async with aclosing(self._matches(pattern, path, user)) as matches:
            async for match in matches:
                held.count(str(match))
                found.append(match)
        return found

    async def read_link(self, path: SandboxPath, *, user: str | int | None = None) -> PurePosixPath:
        """Return where a symbolic link points. Raises FileMissing; FileOperationError (EINVAL) if it is none."""
        found = await self.lstat(path, user=user)
        if found.target is None:
            raise file_error(LINUX_EINVAL, "readlink", from_wire(to_wire(path)))
        return PurePosixPath(found.target)

    # --- changing ---

    async def mkdir(
        self,
        path: SandboxPath,
        *,
        mode: int = 0o777,
        parents: bool = False,
        exist_ok: bool = False,
        user: str | int | None = None,
    ) -> None:
        """Make a directory, its mode less the umask 022. Raises FileAlreadyExists, FileMissing, FileForbidden."""
        await self._do(Kind.MKDIR, path, self._body(user, path).u32(mode).u8(parents).u8(exist_ok))

    async def remove(self, path: SandboxPath, *, recursive: bool = False, user: str | int | None = None) -> None:
        """Remove a file, a symbolic link itself, an empty directory, or with recursive a whole tree.

        Raises FileMissing, FileForbidden; FileOperationError (ENOTEMPTY); WorkspaceRootProtected.
        """
        self._refuse_root("remove", path)
        await self._do(Kind.REMOVE, path, self._body(user, path).u8(recursive).str(to_wire(self.workspace)))

    async def rename(self, source: SandboxPath, target: SandboxPath, *, user: str | int | None = None) -> None:
        """Give a file or directory another name, as rename(2): what had it before is replaced.

        Raises FileMissing, FileIsDirectory, FileNotDirectory, FileForbidden; FileOperationError (ENOTEMPTY, EXDEV);
        WorkspaceRootProtected.
        """
        self._refuse_root("rename", source)
        self._refuse_root("rename", target)
        body = self._body(user, source).str(self.absolute(target)).str(to_wire(self.workspace))
        await self._do(Kind.RENAME, source, body)

    async def copy(
        self, source: SandboxPath, target: SandboxPath, *, recursive: bool = False, user: str | int | None = None
    ) -> None:
        """Copy a file, or with recursive a tree, inside the sandbox: modes, times, links as links, and owners where
        allowed.

        Raises FileMissing, FileForbidden; FileIsDirectory for a tree without recursive.
        """
        body = self._body(user, source).str(self.absolute(target)).u8(recursive)
        await self._do(Kind.COPY, source, body)

    async def chmod(self, path: SandboxPath, mode: int, *, user: str | int | None = None) -> None:
        """Set the 12 permission bits, following symbolic links. Raises FileMissing, FileForbidden."""
        await self._do(Kind.CHMOD, path, self._body(user, path).u32(mode))

    async def chown(self, path: SandboxPath, owner: str, *, follow: bool = True, user: str | int | None = "") -> None:
        """Set the owner: `name`, `uid`, `:group`, `name:group`. It takes the rights of root, which is the default here.

        Raises FileMissing, FileForbidden; UsageError for an owner who does not exist.
        """
        await self._do(Kind.CHOWN, path, self._body(user, path).str(to_wire(owner)).u8(follow))

    async def symlink(self, path: SandboxPath, target: SandboxPath, *, user: str | int | None = None) -> None:
        """Make a symbolic link at path; the target is stored as it is given, wherever it leads.

        Raises FileAlreadyExists, FileMissing.
        """
        await self._do(Kind.SYMLINK, path, self._body(user, path).str(to_wire(target)))

    # --- to and from this host ---

    async def upload(
        self, local: Path, path: SandboxPath, *, owner: str | None = None, ignore: Sequence[str] = ()
    ) -> None:
        """Copy a file or a directory of this host to a path in the sandbox, which will name the copy itself.

        Permission bits are kept; of a tree also times and symbolic links, which are not followed. A file replaces a
        file; a tree is merged into a directory that is there. owner: by default the session's user, with whose rights a
        file and the directory itself are made; what is in a tree is made with those of root.
        ignore: what to leave out of a directory, as lines of a .gitignore in it.
        Raises OSError for the local side, FileOperationError for the other.
        """
        status = await in_thread(local.stat)
        if stat_module.S_ISDIR(status.st_mode):
            await self._upload_tree(local, path, owner, ignore)
        elif stat_module.S_ISREG(status.st_mode):
            with local.open("rb") as file:
                await self.write_bytes(path, file, mode=status.st_mode & 0o777, owner=owner)
        else:
            raise ValueError(f"{local} is neither a file nor a directory")

    async def download(self, path: SandboxPath, local: Path) -> None:
        """Copy a file or a directory of the sandbox to a path on this host, which will name the copy itself.

        A file replaces a file, whole or not at all; a tree is merged into a directory that is there: see
        Archive.extract for what is kept, and why nothing is ever written outside it. A file that grows meanwhile is
        taken as long as it was; of what has no length, such as a device, at most 1 GiB: LimitExceeded.
        Raises FileOperationError for the sandbox's side, OSError for this one, UnsafeArchive.
        """
        found = await self.stat(path, user="")
        if found.is_dir:
            archive = await persist_tree(self, self.absolute(path), beneath=self.beneath)
            await in_thread(lambda: archive.extract(local))
            return
        if await in_thread(local.is_dir):
            raise IsADirectoryError(f"{local} is a directory; name the file that {path!r} is to become")
        with replacing(local) as file:
            async with aclosing(self.read_chunks(path, length=found.size or None, user="")) as content:
                async for chunk in content:
                    file.write(chunk)
                    if not found.size and file.tell() > MAX_WHOLE:
                        raise LimitExceeded(f"{path!r} in the sandbox has no length and more than {MAX_WHOLE} bytes")
            os.fchmod(file.fileno(), found.mode & 0o777)

    async def unpack(
        self,
        source: str | PurePosixPath | Path | bytes | BinaryIO | Archive,
        path: SandboxPath = ".",
        *,
        owner: str | None = None,
        limits: ArchiveLimits = DEFAULT_LIMITS,
    ) -> None:
        """Unpack an archive into a directory of the sandbox, made if it is missing; what else is in there stays.

        source: a tar archive (ustar, pax or GNU; plain, gz, bz2, xz or zst) or a zip archive: a str or a PurePosixPath
        names a file of the sandbox, a Path one of this host; else bytes, a binary file or an Archive. No program in the
        image is needed. Permission bits, times, links and, of a tar, xattrs are kept. owner: of all in it, by default
        the session's user, who must be able to read and make what is named; members are made with the rights of root.
        A file takes the place of a file or a link, and no link is followed.
        limits: members and bytes that are taken at most.
        Raises DamagedArchive, UnsafeArchive before anything is touched; OSError for a file of this host,
        FileOperationError for what the sandbox can't read or make.
        """
        archive = await self._archive(source, limits)
        await self._merge(path, owner, archive.owned_by, f"unpacking into {from_wire(to_wire(path))}", archive.size)

    async def _archive(
        self, source: str | PurePosixPath | Path | bytes | BinaryIO | Archive, limits: ArchiveLimits
    ) -> Archive:
        if isinstance(source, Archive):
            await in_thread(source.members)
            return source
        if isinstance(source, Path) or not isinstance(source, str | PurePosixPath):
            return await in_thread(lambda: Archive.read(source, limits))
        found = await self.stat(source)
        if found.size > limits.total_bytes:
            raise UnsafeArchive("", f"is in a file of {found.size} bytes, more than the {limits.total_bytes} allowed")
        packed = Spool()
        async with aclosing(self.read_chunks(source, length=found.size)) as content:
            async for chunk in content:
                packed.append(chunk)
        return await in_thread(lambda: Archive.read(packed.open(), limits))

    async def _upload_tree(self, local: Path, path: SandboxPath, owner: str | None, ignore: Sequence[str]) -> None:
        def stream(uid: int, gid: int) -> Iterator[bytes]:
            return canonical_stream(local_tree(local, uid=uid, gid=gid, ignore=ignore))

        await self._merge(path, owner, stream, f"uploading {local.name}")

    async def _merge(
        self,
        path: SandboxPath,
        owner: str | None,
        stream: Callable[[int, int], Iterator[bytes]],
        what: str,
        size: int | None = None,
    ) -> None:
        """Put what an archive has, made for the owner's uid and gid, into a directory."""
        root = self.absolute(path)
        existed = await self.exists(path)
        await self.mkdir(path, parents=True, exist_ok=True)
        uid, gid = await self._numeric(self.default_user if owner is None else owner)
        if owner is not None and not existed:
            await self.chown(path, f"{uid}:{gid}")
        # Members are found and read in a thread while the last piece is on its way.
        await hydrate_tree(
            self, root, in_chunks(stream(uid, gid)), beneath=self.beneath, merge=True, what=what, size=size
        )

    async def _numeric(self, owner: str) -> tuple[int, int]:
        """The uid and gid that the agent would resolve an owner to; 0 for the group of a uid without an entry."""
        hello = self._client.hello
        name, colon, group = (owner or str(hello.uid if hello is not None else 0)).partition(":")
        user = await self._database_entry("/etc/passwd", name)
        uid = int(user[2]) if user else _id(name, owner)
        if not colon:
            return uid, _id(user[3], owner) if user else 0
        found = await self._database_entry("/etc/group", group)
        return uid, int(found[2]) if found else _id(group, owner)

    async def _database_entry(self, path: str, key: str) -> list[str] | None:
        """The fields of the line with this name, or else with this number in its third field."""
        try:
            text = (await self._read_system(path, 4 * MEBIBYTE)).decode("utf-8", "replace")
        except FileMissing:
            return None
        lines = (line.split(":") for line in text.splitlines())
        entries = [fields for fields in lines if len(fields) > 3 and fields[2].isdecimal()]
        by_name = (fields for fields in entries if fields[0] == key)
        by_number = (fields for fields in entries if key.isdecimal() and int(fields[2]) == int(key))
        return next(by_name, None) or next(by_number, None)

    # --- inside ---

    def _body(self, user: str | int | None, path: SandboxPath) -> BodyWriter:
        """The three fields that every file operation's body begins with."""
        whom = self.default_user if user is None else str(user)
        return BodyWriter().str(to_wire(whom)).str(self.beneath).str(self.absolute(path))

    async def _content(
        self, path: SandboxPath, body: bytes, wanted: int, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """What a READ gives, at most as much as was wanted. length: what there is, for whoever watches, if known."""
        received = 0
        reading = self.transfer(f"reading {from_wire(to_wire(path))}", length)
        with file_errors(path), reading as transfer:
            async with self.channel(Kind.READ, body) as channel:
                while chunk := await channel.receive():
                    received += len(chunk)
                    transfer.count(len(chunk))
                    if received > wanted:
                        raise ProtocolError(f"READ gave more than the {wanted} bytes it was asked for")
                    yield chunk
                result = BodyReader(await channel.result())
        _expect_total("READ", result, received)

    async def _read_system(self, path: str, most: int) -> bytes:
        """The beginning of a file that we have to know, not the test: as root, and not confined."""
        body = BodyWriter().str(b"").str(b"").str(to_wire(path)).u64(0).u64(most).bytes()
        async with aclosing(self._content(path, body, most)) as content:
            return b"".join([chunk async for chunk in content])

    async def _run(self, kind: Kind, path: SandboxPath, body: BodyWriter) -> bytes:
        with file_errors(path):
            async with self.channel(kind, body.bytes()) as channel:
                return await channel.result()

    async def _do(self, kind: Kind, path: SandboxPath, body: BodyWriter) -> None:
        BodyReader(await self._run(kind, path, body)).done()

    async def _kind(self, path: SandboxPath, user: str | int | None) -> FileKind | None:
        try:
            return (await self.stat(path, user=user)).kind
        except (FileMissing, FileNotDirectory, FileLinkLoop):  # as pathlib has it
            return None

    def _refuse_root(self, operation: str, path: SandboxPath) -> None:
        """Decide by the text alone, for a clear message; the agent decides again by what the path leads to."""
        root = os.path.normpath(to_wire(self.workspace))
        asked = os.path.normpath(self.absolute(path))
        if root == asked or root.startswith(asked.rstrip(b"/") + b"/"):
            raise WorkspaceRootProtected(operation, from_wire(to_wire(path)))

    async def _entries(
        self, path: SandboxPath, user: str | int | None, *, recursive: bool
    ) -> AsyncGenerator[FileStat, None]:
        pending = bytearray()
        count = 0
        with file_errors(path):
            async with self.channel(Kind.LIST, self._body(user, path).u8(recursive).bytes()) as channel:
                while chunk := await channel.receive():
                    pending += chunk
                    for entry in _complete_entries(pending):
                        count += 1
                        yield entry
                result = BodyReader(await channel.result())
        if pending:
            raise ProtocolError("LIST ended in the middle of an entry")
        _expect_total("LIST", result, count)

    async def _matches(
        self, pattern: str, path: SandboxPath, user: str | int | None
    ) -> AsyncGenerator[PurePosixPath, None]:
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if pattern.startswith("/") or not parts or ".." in parts:
            raise ValueError(f"{pattern!r} is not a pattern for paths below a directory")
        base = PurePosixPath(from_wire(to_wire(path)))
        while parts and not any(character in parts[0] for character in "*?["):
            base /= parts.pop(0)
        only_directories = pattern.endswith("/")
        if not parts:
            if await (self.is_dir if only_directories else self.exists)(base, user=user):
                yield base
            return
        if not await self.is_dir(base, user=user):
            return
        wanted = _Glob(parts)
        if wanted.matches(()):
            yield base
        async with aclosing(self._entries(base, user, recursive=wanted.deep)) as entries:
            async for entry in entries:
                if wanted.matches(entry.path.parts) and (entry.is_dir or not only_directories):
                    yield base / entry.path


class _Held:
    """Counts what is held of a listing that may have no end. path: what is listed."""

    def __init__(self, path: SandboxPath) -> None:
        self._path = path
        self._entries = self._text = 0

    def count(self, *texts: str) -> None:
        """Raises LimitExceeded."""
        self._entries += 1
        self._text += sum(map(len, texts))
        if self._entries > MAX_LISTED or self._text > MAX_LISTED_TEXT:
            raise LimitExceeded(
                f"{self._path!r} in the sandbox has more than {MAX_LISTED} entries, or {MAX_LISTED_TEXT} characters of "
                "them; use walk()"
            )


class _Glob:
    """A pattern, component by component."""

    def __init__(self, parts: list[str]) -> None:
        self._patterns: list[Pattern[str] | None] = []  # None for `**`
        for part in parts:
            if part != "**":
                self._patterns.append(compile_regex(translate(part)))
            elif self._patterns[-1:] != [None]:  # two of them are as good as one
                self._patterns.append(None)
        self.deep = len(self._patterns) > 1 or self._patterns[0] is None

    def matches(self, parts: tuple[str, ...]) -> bool:
        # reached[i]: the first i patterns match what came so far. Not recursive: `**/a/**/b/**` must not take for ever.
        reached = self._skipping([True] + [False] * len(self._patterns))
        for part in parts:
            step = [False] * len(reached)
            for index, pattern in enumerate(self._patterns):
                if reached[index] and pattern is None:
                    step[index] = True
                elif reached[index] and pattern is not None and pattern.match(part):
                    step[index + 1] = True
            reached = self._skipping(step)
        return reached[-1]

    def _skipping(self, reached: list[bool]) -> list[bool]:
        """`**` may also be no directory at all."""
        for index, pattern in enumerate(self._patterns):
            if reached[index] and pattern is None:
                reached[index + 1] = True
        return reached


def _source(content: Content) -> AsyncGenerator[bytes, None]:
    """The content as chunks; what blocks, and that may be any file or generator of the user's, runs in threads."""
    if isinstance(content, str):
        raise TypeError("write_bytes() takes bytes, a binary file or an iterable of bytes; for a str use write_text()")
    if isinstance(content, bytes | bytearray | memoryview):
        return chunks(bytes(content))
    if hasattr(content, "read"):
        return chunks(cast(BinaryIO, content))
    return in_chunks(batched(_only_bytes(content)))


def _size(content: Content) -> int | None:
    """How many bytes there will be, if that can be told beforehand."""
    if isinstance(content, bytes | bytearray | memoryview):
        return len(content)
    try:
        status = os.fstat(cast(BinaryIO, content).fileno())
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return None
    return status.st_size if stat_module.S_ISREG(status.st_mode) else None


def _only_bytes(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise TypeError(f"content must give bytes, not {type(piece).__name__}")
        yield bytes(piece)


def _expect_total(operation: str, result: BodyReader, counted: int) -> None:
    claimed = result.u64()
    result.done()
    if claimed != counted:
        raise ProtocolError(f"{operation} says {claimed} where {counted} came across")


def _complete_entries(pending: bytearray) -> Iterator[FileStat]:
    """Take the entries that are there as a whole from the front of what has come."""
    start = 0
    while len(pending) - start >= 4:
        size = int.from_bytes(pending[start : start + 4], "little")
        if size > MAX_ENTRY:
            raise ProtocolError(f"LIST gave an entry of {size} bytes")
        if len(pending) - start < 4 + size:
            break
        body = BodyReader(bytes(pending[start + 4 : start + 4 + size]))
        start += 4 + size
        entry = _entry(body, None)
        body.done()
        yield entry
    del pending[:start]


def _entry(body: BodyReader, path: PurePosixPath | None) -> FileStat:
    """Decode an entry; path: what to call it, else the relative path that it names."""
    number, mode, uid, gid, links, size, inode, mtime_ns = _NUMBERS.unpack(body.raw(_NUMBERS.size))
    kind = _KINDS.get(number)
    if kind is None:
        raise ProtocolError(f"an entry of the unknown type {number}")
    owner, group, name, target = (from_wire(body.str()) for _ in range(4))
    if path is None:
        if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\0" in name:
            raise ProtocolError(f"an entry with the path {name[:200]!r}")
        path = PurePosixPath(name)
    return FileStat(
        path=path,
        kind=kind,
        size=size,
        mode=mode,
        uid=uid,
        gid=gid,
        owner=owner,
        group=group,
        mtime_ns=mtime_ns,
        inode=inode,
        links=links,
        target=target if kind is FileKind.SYMLINK else None,
    )


def _id(number: str, owner: str) -> int:
    if not number.isdecimal():
        raise UsageError(f"no owner {owner!r} in the sandbox's /etc/passwd and /etc/group")
    return int(number)
