"""What a Baseline can put into a workspace, entry by entry: declared here, checked here, and known by content.

An entry that is ephemeral is not part of the workspace's state: snapshots, changes and the store leave it out, and it
is placed anew wherever a sandbox is brought to the baseline. For credentials, and what is too large to be kept twice.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .core.archive import local_tree
from .core.tar import canonical_stream
from .errors import InvalidEntry
from .repositories import commit_of, exported
from .secret import Secret

if TYPE_CHECKING:
    from .faces import Sandbox


_SPECIAL, _ESCAPED = re.compile(r"([\\*?\[])"), r"\\\1"  # what fnmatch(3) does not take as it is


@dataclass(frozen=True, slots=True)
class File:
    """A file. content: text as UTF-8, bytes, or a local file. mode: 0o644, or the local file's. owner: as for chown."""

    content: str | bytes | Path | Secret
    mode: int | None = None
    owner: str = ""
    ephemeral: bool = False

    def place(self, sandbox: Sandbox, path: str) -> None:
        local = self.content if isinstance(self.content, Path) else None
        mode = stat.S_IMODE(local.stat().st_mode) if local is not None and self.mode is None else self.mode
        sandbox.write_bytes(path, _bytes(self.content), mode=mode, owner=self.owner or None)

    @property
    def identity(self) -> list[object]:
        content = _local(self.content) if isinstance(self.content, Path) else _digest(_bytes(self.content))
        return ["file", content, self.mode, self.owner, self.ephemeral]


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory, which may be there already. mode: whatever the umask. owner: as for chown."""

    mode: int = 0o755
    owner: str = ""
    ephemeral: bool = False

    def place(self, sandbox: Sandbox, path: str) -> None:
        sandbox.mkdir(path, parents=True, exist_ok=True)
        if self.owner:
            sandbox.chown(path, self.owner)
        sandbox.chmod(path, self.mode, user="" if self.owner else None)  # last: chown(2) takes setgid away

    @property
    def identity(self) -> list[object]:
        return ["directory", self.mode, self.owner, self.ephemeral]


@dataclass(frozen=True, slots=True)
class Tree:
    """A local file or directory, with modes and links; these are not followed, but for the path itself if it is one.

    ignore: what to leave out of a directory, as lines of a .gitignore in it. owner: of all of it, as for chown.
    """

    path: Path
    ignore: Sequence[str] = ()
    owner: str = ""
    ephemeral: bool = False

    def place(self, sandbox: Sandbox, path: str) -> None:
        sandbox.upload(self.path, path, owner=self.owner or None, ignore=self.ignore)

    @property
    def identity(self) -> list[object]:
        return ["tree", _local(self.path, self.ignore), self.owner, self.ephemeral]


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository as it is at a commit, with its history, fetched by this host: the sandbox needs no network.

    url: whatever git takes. ref: a branch, tag or commit. subpath: only this directory, without the history.
    owner: of all of it, as for chown. A commit named in full is fetched once; what a branch names is asked for by each
    run, once by each of its processes.
    """

    url: str
    ref: str = "HEAD"
    subpath: str = ""
    owner: str = ""
    ephemeral: bool = False

    def place(self, sandbox: Sandbox, path: str) -> None:
        with exported(self.url, self.ref, self.subpath) as directory:
            sandbox.upload(directory, path, owner=self.owner or None)

    @property
    def identity(self) -> list[object]:
        commit = commit_of(self.url, self.ref)
        return ["repository", self.url, commit, self.subpath, self.owner, self.ephemeral]


Entry = File | Directory | Tree | Repository


def entries(
    trees: Mapping[str, Path | Entry],
    files: Mapping[str, str | bytes | Secret | tuple[str | bytes | Secret, int] | Entry],
) -> dict[str, Entry]:
    """Return what is to be placed, in order, after checking what can be checked. Raises InvalidEntry."""
    made: dict[str, Entry] = {path: Tree(tree) if isinstance(tree, Path) else tree for path, tree in trees.items()}
    for path, file in files.items():
        if path in made:
            raise InvalidEntry(path, "it is among the trees, too")
        if isinstance(file, tuple):
            made[path] = File(*file)
        else:
            made[path] = File(file) if isinstance(file, str | bytes | Secret) else file
    _check(made)
    return made


def ephemeral(made: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries that are ephemeral, or below one that is."""
    flagged = {_normal(path) for path, entry in made.items() if entry.ephemeral}
    return {
        path: entry
        for path, entry in made.items()
        if flagged and not flagged.isdisjoint(_normal(path)[:length] for length in range(1, len(_normal(path)) + 1))
    }


def patterns(paths: Iterable[str]) -> tuple[str, ...]:
    """Return what names just these paths in the setting `ephemeral`."""
    return tuple(f"/{_SPECIAL.sub(_ESCAPED, '/'.join(_normal(path)))}" for path in paths)


def check_sources(made: Mapping[str, Entry]) -> None:
    """Raise InvalidEntry for an entry whose local file is missing or is none."""
    for path, entry in made.items():
        source = entry.path if isinstance(entry, Tree) else entry.content if isinstance(entry, File) else None
        if isinstance(source, Path) and not (source.is_file() or (isinstance(entry, Tree) and source.is_dir())):
            what = "a file or directory" if isinstance(entry, Tree) else "a file"
            raise InvalidEntry(path, f"{source} is not {what} of this host")


def _check(made: Mapping[str, Entry]) -> None:
    known: dict[tuple[str, ...], str] = {}
    for path, entry in made.items():
        if not isinstance(entry, Entry):
            raise InvalidEntry(path, f"{entry!r} is not a File, Directory, Tree or Repository")
        place = _normal(path)
        if place in known:
            raise InvalidEntry(path, f"it is the same path as {known[place]!r}")
        known[place] = path
        mode = getattr(entry, "mode", None)
        if mode is not None and not (isinstance(mode, int) and 0 <= mode <= 0o7777):
            raise InvalidEntry(path, f"its mode {mode!r} is not one of 0 to 0o7777")
        if entry.ephemeral and path.startswith("/"):
            raise InvalidEntry(
                path, "it is ephemeral, which only what is in the workspace can be: give a relative path"
            )
        if isinstance(entry, Repository) and ".." in PurePosixPath(entry.subpath).parts:
            raise InvalidEntry(path, f"its subpath {entry.subpath!r} leads out of the repository")
    for place, path in known.items():
        above = next((known[place[:length]] for length in range(1, len(place)) if place[:length] in known), None)
        if above is not None and isinstance(made[above], File):
            raise InvalidEntry(path, f"{above!r}, above it, is a file")


def _normal(path: str) -> tuple[str, ...]:
    """The names of a path in which `..` leads back, but not out: below the workspace, or below the root."""
    if not path or "\0" in path:
        raise InvalidEntry(path, "a path is not empty and has no NUL")
    names: list[str] = ["/"] if path.startswith("/") else []
    for name in path.split("/"):
        if name == "..":
            if not names or names == ["/"]:
                raise InvalidEntry(path, "it leads out of the workspace")
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return tuple(names)


def _local(path: Path, ignore: Iterable[str] = ()) -> str:
    """Return a hash of a local file or tree: names, contents, modes, links. No times: each checkout has its own."""
    digest = hashlib.sha256()
    if path.is_dir():
        timeless = ((member._replace(mtime_ns=0), content) for member, content in local_tree(path, ignore=ignore))
        for chunk in canonical_stream(timeless):
            digest.update(chunk)
        return f"tree {digest.hexdigest()}"
    with path.open("rb") as file:
        return f"file {stat.S_IMODE(path.stat().st_mode):o} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _bytes(content: str | bytes | Path | Secret) -> bytes:
    if isinstance(content, Path):
        return content.read_bytes()
    if isinstance(content, Secret):
        return content.reveal().encode()
    return content.encode() if isinstance(content, str) else content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
