"""What a test did to a workspace, as values to compare and to show. It imports nothing of ours but the models.

Everything here may come from a sandbox: names and contents are made safe to print where they become text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from .models import FileKind

MAX_DIFFED = 256 * 1024  # bytes of one content that a diff is made of
MAX_DIFFED_LINES = 1000  # that differ, on either side: difflib's time grows with their square and worse
_CONTEXT = 3
_LOOKED_AT = 8000  # bytes that a NUL is looked for in, which makes a file binary; as git does
_HUNK = re.compile(r"@@ -(\d+)(.*) \+(\d+)(.*) @@")


def shown_path(path: str) -> str:
    """A path as it can be printed: as it is, or quoted with escapes if it has anything that is not printable."""
    return path if path.isprintable() and path else repr(path)


class PathSet(frozenset[str]):
    """Paths relative to the workspace, `.` for itself; equal to any set of the same ones, iterated in order.

    details: what is known of them, for a comparison to be explained by.
    """

    details: Mapping[str, Change]

    def __new__(cls, paths: Iterable[str] = (), details: Iterable[Change] = ()) -> Self:
        self = super().__new__(cls, paths)
        self.details = {change.path: change for change in details if change.path in self}
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), key=_path_order))

    def __repr__(self) -> str:
        return "{" + ", ".join(repr(path) for path in self) + "}" if self else "set()"


def _path_order(path: str) -> tuple[bytes, ...]:
    """Byte order of the components, as archives have it; the workspace itself is first."""
    return () if path == "." else tuple(path.encode("utf-8", "surrogateescape").split(b"/"))


class ChangeKind(Enum):
    ADDED = "added"
    MODIFIED = "modified"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that is not as it was.

    before, after: what was and is there; None for nothing. facts: what differs, in words: `content`, `mode 644 → 755`.
    old, new: contents that differ; None of what is no file, is sparse, or is too long for a diff.
    """

    path: str
    kind: ChangeKind
    before: FileKind | None = None
    after: FileKind | None = None
    facts: tuple[str, ...] = ()
    differs: bool = False  # in content
    old: bytes | None = field(default=None, repr=False)
    new: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        facts = f": {', '.join(self.facts)}" if self.facts else ""
        return f"{self.kind.value} {shown_path(self.path)}{facts}"

    @property
    def diff(self) -> str:
        """A unified diff of text, one line for what can't be shown so, empty if no content differs; safe to print."""
        if not self.differs:
            return ""
        sides = ((self.before, "a", self.old), (self.after, "b", self.new))
        old_name, new_name = (
            shown_path(f"{side}/{self.path}") if kind is FileKind.FILE else "/dev/null" for kind, side, _ in sides
        )
        if any(kind is FileKind.FILE and content is None for kind, _, content in sides):
            return f"Files {old_name} and {new_name} differ (too long to show, or sparse)\n"
        return unified_diff(self.old or b"", self.new or b"", old_name, new_name)


@dataclass(frozen=True)
class Changes:
    """What differs between a snapshot and a workspace; compares by the paths alone, and is false if nothing differs.

    A path is modified if its kind, content, mode, owner, link target or extended attributes differ; not by its times,
    and not by other names of the same file. Sockets, FIFOs and devices are not told of, as no snapshot has them.
    renamed: of files with a content, from the path that was removed to one that was added with the same content; both
    are in `removed` and `added` too.
    """

    added: Set[str] = PathSet()
    modified: Set[str] = PathSet()
    removed: Set[str] = PathSet()
    renamed: Mapping[str, str] = field(default_factory=dict, compare=False)
    details: tuple[Change, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("added", "modified", "removed"):
            object.__setattr__(self, name, PathSet(getattr(self, name), self.details))

    @classmethod
    def of(cls, changes: Iterable[Change], renamed: Mapping[str, str]) -> Self:
        """Make it from what differs, in any order."""
        details = tuple(sorted(changes, key=lambda change: _path_order(change.path)))
        added, modified, removed = ({each.path for each in details if each.kind is kind} for kind in ChangeKind)
        return cls(added, modified, removed, renamed, details)

    def __bool__(self) -> bool:
        return bool(self.added or self.modified or self.removed)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.details)

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "nothing changed"

    def __repr__(self) -> str:
        named = ("added", self.added), ("modified", self.modified), ("removed", self.removed)
        return f"Changes({', '.join(f'{name}={paths!r}' for name, paths in named if paths)})"

    def diff(self) -> str:
        """Return unified diffs of what changed in content, one after the other; safe to print."""
        return "".join(change.diff for change in self)


def unified_diff(old: bytes, new: bytes, old_name: str, new_name: str) -> str:
    """Compare two contents line by line, as git shows it; of what is no text, say only that it differs."""
    if b"\0" in old[:_LOOKED_AT] or b"\0" in new[:_LOOKED_AT]:
        return f"Binary files {old_name} and {new_name} differ ({len(old)} and {len(new)} bytes)\n"
    before, after = _lines(old), _lines(new)
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    skipped = max(0, start - _CONTEXT)  # what difflib need not look at: a long file with one line changed takes no time
    left, right = (lines[skipped : len(lines) - max(0, end - _CONTEXT)] for lines in (before, after))
    if max(len(left), len(right)) > MAX_DIFFED_LINES + 2 * _CONTEXT:
        return f"Files {old_name} and {new_name} differ in more lines than are shown ({len(left)} and {len(right)})\n"
    hunks = list(difflib.unified_diff(left, right, n=_CONTEXT, lineterm=""))[2:]
    shown = [
        _HUNK.sub(lambda match: _moved(match, skipped), line, count=1) if line[0] == "@" else line for line in hunks
    ]
    return "".join(f"{line}\n" for line in (f"--- {old_name}", f"+++ {new_name}", *shown)) if shown else ""


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8", "backslashreplace").split("\n")
    # The mark is part of the line, so that lines with and without their end differ.
    *whole, rest = map(_printable, lines)
    return [*whole, f"{rest}\n\\ No newline at end of file"] if rest else whole


def _printable(line: str) -> str:
    """The line with what could move a cursor, end a line or turn the direction of writing made visible."""
    if line.isprintable():
        return line
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode() for char in line
    )


def _common(before: list[str], after: list[str]) -> int:
    """How many lines both begin with."""
    return next(
        (count for count, (one, other) in enumerate(zip(before, after, strict=False)) if one != other),
        min(len(before), len(after)),
    )


def _moved(hunk: re.Match[str], lines: int) -> str:
    return f"@@ -{int(hunk[1]) + lines}{hunk[2]} +{int(hunk[3]) + lines}{hunk[4]} @@"
