"""Two archives of one workspace compared, member by member. No sandbox here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from ..agent.wire import from_wire
from ..changes import MAX_DIFFED, Change, ChangeKind, Changes
from ..models import MEBIBYTE, FileKind
from .archive import Archive
from .tar import Member, MemberKind

MAX_KEPT = 16 * MEBIBYTE  # bytes of all contents that a Changes carries for its diffs

T = TypeVar("T")

_KINDS = {
    MemberKind.FILE: FileKind.FILE,
    MemberKind.HARD_LINK: FileKind.FILE,
    MemberKind.SYMLINK: FileKind.SYMLINK,
    MemberKind.DIRECTORY: FileKind.DIRECTORY,
}


def compared(before: Archive, after: Archive, removed: Collection[bytes] | None = None) -> Changes:
    """Say what differs between two archives.

    removed: names that are gone; the archive after has only members that may differ, not all. Without it, it has all.
    Reads both, so not for the loop. Raises DamagedArchive, UnsafeArchive for either.
    """
    return _Comparison(_Tree(before), _Tree(after), removed).changes()


class _Tree:
    """An archive whose members are found by name; a file with several names is the same by each of them."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.members = {member.name: member for member in archive.members()}

    def get(self, name: bytes) -> Member | None:
        member = self.members.get(name)
        return self.members[member.link] if member is not None and member.kind is MemberKind.HARD_LINK else member

    def content(self, member: Member) -> bytes:
        return b"".join(self.archive.content(member))


class _Comparison:
    def __init__(self, before: _Tree, after: _Tree, removed: Collection[bytes] | None) -> None:
        self._before = before
        self._after = after
        self._removed = before.members.keys() - after.members.keys() if removed is None else removed
        self._room = MAX_KEPT

    def changes(self) -> Changes:
        changes: list[Change] = []
        for name in [*self._after.members, *self._removed]:
            old, new = self._before.get(name), None if name in self._removed else self._after.get(name)
            if (change := self._change(name, old, new)) is not None:
                changes.append(change)
        return Changes.of(changes, self._renamed())

    def _change(self, name: bytes, old: Member | None, new: Member | None) -> Change | None:
        path = from_wire(name or b".")
        differs = self._content_differs(old, new)
        facts = tuple(_facts(old, new, content=differs)) if old and new else ()
        if old and new and not facts:
            return None
        kind = ChangeKind.ADDED if old is None else ChangeKind.REMOVED if new is None else ChangeKind.MODIFIED
        return Change(
            path,
            kind,
            _KINDS[old.kind] if old else None,
            _KINDS[new.kind] if new else None,
            facts,
            differs,
            self._kept(self._before, old) if differs else None,
            self._kept(self._after, new) if differs else None,
        )

    def _content_differs(self, old: Member | None, new: Member | None) -> bool:
        if old is None or new is None or old.kind is not new.kind:
            return MemberKind.FILE in (old and old.kind, new and new.kind)
        if old.kind is not MemberKind.FILE:
            return False
        if _length(old) != _length(new):
            return True
        if old.real_size >= 0 or new.real_size >= 0:
            return self._before.archive.digest(old) != self._after.archive.digest(new)
        pieces = zip(self._before.archive.content(old), self._after.archive.content(new), strict=True)
        return any(one != other for one, other in pieces)

    def _kept(self, tree: _Tree, member: Member | None) -> bytes | None:
        """A content for the diff, unless it or all of them become too long."""
        if member is None or member.kind is not MemberKind.FILE or member.real_size >= 0:
            return None
        if member.size > min(MAX_DIFFED, self._room):
            return None
        self._room -= member.size
        return tree.content(member)

    def _renamed(self) -> dict[str, str]:
        """Pairs of a path that went and one that came with the same content; only what has equal length is read."""
        came = (name for name in self._after.members if name not in self._before.members)
        came_by_length = _grouped(came, lambda name: self._file_length(self._after, name))
        renamed: dict[str, str] = {}
        for length, gone in _grouped(self._removed, lambda name: self._file_length(self._before, name)).items():
            if length not in came_by_length:
                continue
            by_content = _grouped(came_by_length[length], lambda name: self._digest(self._after, name))
            for name in gone:
                if candidates := by_content.get(self._digest(self._before, name)):
                    renamed[from_wire(name)] = from_wire(candidates.pop(0))
        return renamed

    def _file_length(self, tree: _Tree, name: bytes) -> int | None:
        member = tree.get(name)
        return (_length(member) or None) if member and member.kind is MemberKind.FILE else None

    def _digest(self, tree: _Tree, name: bytes) -> bytes:
        member = tree.get(name)
        assert member is not None
        return tree.archive.digest(member)


def _grouped(names: Collection[bytes] | Iterator[bytes], key: Callable[[bytes], T | None]) -> dict[T, list[bytes]]:
    """The names by what the key says of them, in order; those it says None of are left out."""
    groups: dict[T, list[bytes]] = {}
    for name in sorted(names):
        if (value := key(name)) is not None:
            groups.setdefault(value, []).append(name)
    return groups


def _length(member: Member) -> int:
    return member.size if member.real_size < 0 else member.real_size


def _facts(old: Member, new: Member, *, content: bool) -> Iterator[str]:
    """What differs between two members that stand for one path, in words; nothing of their times."""
    if old.kind is not new.kind:
        yield f"{_KINDS[old.kind].name.lower()} → {_KINDS[new.kind].name.lower()}"
        return
    if content:
        yield "content"
    if old.mode != new.mode:
        yield f"mode {old.mode:o} → {new.mode:o}"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield f"owner {old.uid}:{old.gid} → {new.uid}:{new.gid}"
    if old.link != new.link:
        yield f"target {from_wire(old.link)!r} → {from_wire(new.link)!r}"
    if sorted(old.xattrs) != sorted(new.xattrs):
        yield "extended attributes"
