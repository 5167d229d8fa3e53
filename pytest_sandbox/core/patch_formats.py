"""Patches, read: unified diffs as diff and git write them, and V4A patches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..agent.wire import from_wire
from ..errors import PatchRejected
from .patch import MAX_PATCH, FilePatch, Hunk, paths_of, shown_line

MAX_PATHS = 10_000  # that one patch may name
NO_NEWLINE = b"\\"  # begins `\ No newline at end of file`, in whatever language

_RANGE = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_EPOCH = re.compile(rb"\t(1970-01-01|1969-12-31) ")  # how `diff -N` dates the side that has no such file
_V4A_BEGIN, _V4A_END = b"*** Begin Patch", b"*** End Patch"


def read_patch(patch: bytes, strip: int | None = None) -> list[FilePatch]:
    """Read a patch, whichever of the two kinds its first line tells of.

    strip: components to take off the names of a unified diff, as for `patch -p`; by default 1 where they begin with
    `a/` and `b/`, else 0. Raises PatchRejected.
    """
    if len(patch) > MAX_PATCH:
        raise PatchRejected(f"it has {len(patch)} bytes, more than the {MAX_PATCH} that are taken")
    lines = patch.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    first = next((line for line in lines if line.strip()), b"")
    patches = list(_V4A(lines).files() if first.strip() == _V4A_BEGIN else _Unified(lines, strip).files())
    if not patches:
        raise PatchRejected("there is no change in it; expected a unified diff, or `*** Begin Patch`")
    if len(paths_of(patches)) > MAX_PATHS:
        raise PatchRejected(f"it names more than {MAX_PATHS} files")
    return patches


# --- unified diffs ----------------------------------------------------------------------------------------------------


class _Reader:
    """A patch's lines, and which is next."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines
        self._at = 0

    @property
    def _next(self) -> bytes | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def _take(self) -> bytes:
        self._at += 1
        return self._lines[self._at - 1]

    def _error(self, reason: str, path: str = "") -> PatchRejected:
        return PatchRejected(reason, path=path, line=min(self._at + 1, max(len(self._lines), 1)))

    def _path(self, name: bytes, strip: int = 0) -> str:
        """The path that a name means, below the directory that the patch is for."""
        shown = from_wire(name)
        parts = name.split(b"/")
        if name.startswith(b"/"):
            raise self._error(f"the path {shown!r} is absolute")
        parts = [part for part in parts if part not in (b"", b".")][strip:]
        if b".." in parts or b"\0" in name:
            raise self._error(f"the path {shown!r} has {'a NUL' if b'..' not in parts else '`..`'} in it")
        if not parts:
            raise self._error(f"nothing is left of the path {shown!r} without its first {strip} components")
        return from_wire(b"/".join(parts))


@dataclass(slots=True)
class _Header:
    """What stands before the hunks of one file."""

    line: int
    old: bytes | None = None  # names as they are given; b"/dev/null" for none
    new: bytes | None = None
    moved: dict[bytes, bytes] = field(default_factory=dict)  # `rename from` and the like
    mode: bytes | None = None
    created: bool = False
    deleted: bool = False
    old_missing: bool = False  # by its date
    new_missing: bool = False


class _Unified(_Reader):
    def __init__(self, lines: list[bytes], strip: int | None) -> None:
        super().__init__(lines)
        self._strip = strip

    def files(self) -> Iterator[FilePatch]:
        while (line := self._next) is not None:
            if line.startswith(b"diff --git "):
                yield self._file(self._git_header())
            elif self._at_names():
                yield self._file(_Header(self._at + 1))
            elif _RANGE.match(line):
                raise self._error("a hunk without the names of a file before it; expected `--- ` and `+++ `")
            elif line.startswith((b"GIT binary patch", b"Binary files ")):
                raise self._error("it changes a binary file, which a diff of lines can't tell")
            else:
                self._at += 1  # what somebody wrote to go with it

    def _at_names(self) -> bool:
        after = self._lines[self._at + 1] if self._at + 1 < len(self._lines) else b""
        return self._lines[self._at].startswith(b"--- ") and after.startswith(b"+++ ")

    def _git_header(self) -> _Header:
        header = _Header(self._at + 1)
        header.old, header.new = self._git_names(self._take().rstrip(b"\r")[len(b"diff --git ") :])
        while (line := self._next) is not None:
            line = line.rstrip(b"\r")
            if line.startswith((b"old mode ", b"new mode ", b"new file mode ", b"deleted file mode ")):
                self._git_mode(header, line)
            elif match := re.match(rb"(?:rename|copy) (?:from|to) ", line):
                header.moved[match[0]] = _unquoted(line[match.end() :])
            elif line.startswith((b"GIT binary patch", b"Binary files ")):
                raise self._error("it changes a binary file, which a diff of lines can't tell; use write_bytes()")
            elif not line.startswith((b"index ", b"similarity index ", b"dissimilarity index ")):
                break
            self._at += 1
        return header

    def _git_mode(self, header: _Header, line: bytes) -> None:
        what, _, mode = line.rpartition(b" ")
        if not re.fullmatch(rb"100[0-7]{3}", mode):
            kind = {b"120000": "a symbolic link", b"160000": "a submodule"}.get(mode, f"of mode {from_wire(mode)[:20]}")
            raise self._error(f"what it changes is {kind}; only regular files can be patched")
        header.mode = mode if not what.startswith((b"old", b"deleted")) else header.mode
        header.created |= what.startswith(b"new file")
        header.deleted |= what.startswith(b"deleted")

    def _git_names(self, names: bytes) -> tuple[bytes | None, bytes | None]:
        """Both names, where nothing else may say them: they are the same but for what is stripped."""
        if match := _QUOTED.match(names):
            return _unquoted(match[0]), _unquoted(names[match.end() + 1 :])
        for match in re.finditer(rb" ", names):
            old, new = names[: match.start()], _unquoted(names[match.end() :])
            strip = self._stripped(old, new)
            if old.split(b"/")[strip:] == new.split(b"/")[strip:]:
                return old, new
        return None, None

    def _stripped(self, old: bytes, new: bytes) -> int:
        if self._strip is not None:
            return self._strip
        nothing = b"/dev/null"
        return int(old.startswith((b"a/", nothing)) and new.startswith((b"b/", nothing)))

    def _file(self, header: _Header) -> FilePatch:
        if self._next is not None and self._at_names():
            old, new = self._take().rstrip(b"\r")[4:], self._take().rstrip(b"\r")[4:]
            said = tuple(header.moved.values()) or (header.old, header.new)
            header.old, header.new = _name(old), _name(new)
            for name, known in zip((header.old, header.new), said, strict=False):
                if known is not None and name != b"/dev/null" and not name.endswith(known):
                    raise self._error(f"the name {shown_line(name)} is another than this file's header has")
            header.old_missing, header.new_missing = bool(_EPOCH.search(old)), bool(_EPOCH.search(new))
        patch = FilePatch(header.line)
        patch.source, patch.target = self._paths(header)
        patch.copied = any(kind.startswith(b"copy") for kind in header.moved)
        patch.mode = int(header.mode, 8) if header.mode is not None else None
        while self._next is not None and self._next.startswith(b"@@ "):
            patch.hunks.append(self._hunk(patch.path, len(patch.hunks) + 1))
        if not patch.hunks:
            self._expect_change(header, patch)
        elif len(patch.hunks) == 1:
            hunk = patch.hunks[0]
            if header.old_missing and not hunk.before:
                patch.source = None
            if header.new_missing and all(sign == b"-" for sign, _ in hunk.edits):
                patch.target = None
        return patch

    def _expect_change(self, header: _Header, patch: FilePatch) -> None:
        if not (header.mode or header.moved or header.created or header.deleted):
            raise self._error("there is no hunk for this file; is the patch cut off?", patch.path)

    def _paths(self, header: _Header) -> tuple[str | None, str | None]:
        if header.moved:
            names = list(header.moved.values())
            if {kind.split()[1] for kind in header.moved} != {b"from", b"to"} or len(names) != 2:
                raise self._error("a rename or copy without both its names")
            strip = max(0, (self._strip if self._strip is not None else 1) - 1)  # there they have no `a/` and `b/`
            return self._path(names[0], strip), self._path(names[1], strip)
        if header.old is None or header.new is None:
            raise self._error("the names on this file's `diff --git` line can't be told apart")
        strip = self._stripped(header.old, header.new)
        old = None if header.old == b"/dev/null" or header.created else self._path(header.old, strip)
        new = None if header.new == b"/dev/null" or header.deleted else self._path(header.new, strip)
        if old is None and new is None:
            raise self._error("neither side of it is a file")
        return (new if old is not None and new is not None else old), new

    def _hunk(self, path: str, number: int) -> Hunk:
        line = self._at + 1
        match = _RANGE.match(self._lines[self._at])
        if match is None:
            raise self._error("expected a hunk's `@@ -line,count +line,count @@`", path)
        self._at += 1
        start, removed, _, added = (1 if count is None else int(count) for count in match.groups())
        hunk = Hunk(line, number, [], start - 1 if removed else start)
        while removed or added:
            edit = self._edit(path, number)
            sign = edit[0]
            if (sign != b"+" and not removed) or (sign != b"-" and not added):
                raise self._error(f"hunk {number} has other lines than its `@@` line counts", path)
            removed -= sign != b"+"
            added -= sign != b"-"
            hunk.edits.append(edit)
        after = self._next or b""
        signature = after in (b"-- ", b"--")  # of the mail that the patch came in
        if after.startswith((b"+", b"-", b" ")) and not signature and not self._at_names():
            raise self._error(f"hunk {number} has more lines than its `@@` line counts", path)
        return hunk

    def _edit(self, path: str, number: int) -> tuple[bytes, bytes]:
        if self._next is None:
            raise self._error(f"hunk {number} is cut off: it has fewer lines than its `@@` line counts", path)
        line = self._take()
        sign, text = line[:1] or b" ", line[1:]  # editors take the blank of an empty context line away
        if line == b"\r":
            sign, text = b" ", line
        if sign not in (b" ", b"-", b"+"):
            self._at -= 1
            raise self._error(f"hunk {number} has a line that begins with none of ` `, `-`, `+`", path)
        if self._at < len(self._lines) and self._lines[self._at].startswith(NO_NEWLINE):
            self._at += 1
            return sign, text
        return sign, text + b"\n"


def _name(field_: bytes) -> bytes:
    """The name on a `---` or `+++` line, without the date that may stand after a tab."""
    return _unquoted(field_ if field_.startswith(b'"') else field_.partition(b"\t")[0])


def _unquoted(name: bytes) -> bytes:
    match = _QUOTED.match(name)
    if match is None:
        return name
    return _ESCAPE.sub(lambda escape: _unescaped(escape[1]), match[1])


def _unescaped(escape: bytes) -> bytes:
    return bytes([int(escape, 8) & 0xFF]) if len(escape) == 3 else _ESCAPES.get(escape, escape)


# --- V4A --------------------------------------------------------------------------------------------------------------


class _V4A(_Reader):
    def files(self) -> Iterator[FilePatch]:
        while not self._take().strip():
            pass  # before `*** Begin Patch`
        while (line := self._next) is None or line.strip() != _V4A_END:
            if line is None:
                raise self._error("it is cut off: there is no `*** End Patch`")
            verb, _, name = line.rstrip().removeprefix(b"*** ").partition(b": ")
            read = self._VERBS.get(verb) if line.startswith(b"*** ") else None
            if read is None:
                raise self._error(
                    f"expected `*** Add File: `, `*** Update File: ` or `*** Delete File: `, not {shown_line(line)}"
                )
            patch = FilePatch(self._at + 1, by_lines=True)
            path = self._path(name.strip())
            self._at += 1
            read(self, patch, path)
            yield patch
        if any(line.strip() for line in self._lines[self._at + 1 :]):
            raise self._error("there is something after `*** End Patch`")

    def _add(self, patch: FilePatch, path: str) -> None:
        patch.target = path
        lines = []
        while (line := self._next) is not None and line.startswith(b"+"):
            lines.append(self._take()[1:] + b"\n")
        patch.whole = b"".join(lines)

    def _delete(self, patch: FilePatch, path: str) -> None:
        patch.source = path

    def _update(self, patch: FilePatch, path: str) -> None:
        patch.source = patch.target = path
        if self._next is not None and self._next.startswith(b"*** Move to: "):
            patch.target = self._path(self._next.removeprefix(b"*** Move to: ").strip())
            self._at += 1
        while (line := self._next) is not None and (
            line.startswith(b"*** End of File") or not line.startswith(b"*** ")
        ):
            patch.hunks.append(self._hunk(path, len(patch.hunks) + 1))
        if not patch.hunks and patch.target == path:
            raise self._error("there is no change for this file", path)

    _VERBS: Mapping[bytes, Callable[[_V4A, FilePatch, str], None]] = {
        b"Add File": _add,
        b"Delete File": _delete,
        b"Update File": _update,
    }

    def _hunk(self, path: str, number: int) -> Hunk:
        start = self._at + 1
        anchors = []
        while (line := self._next) is not None and line.startswith(b"@@"):
            anchors += [line[2:].strip()] if line[2:].strip() else []
            self._at += 1
        edits: list[tuple[bytes, bytes]] = []
        at_end = False
        while (line := self._next) is not None and not line.startswith((b"@@", b"*** ")):
            sign, text = line[:1] or b" ", line[1:].removesuffix(b"\r")
            if line == b"\r":
                sign = b" "
            if sign not in (b" ", b"-", b"+"):
                raise self._error(f"a line of hunk {number} begins with none of ` `, `-`, `+`", path)
            edits.append((sign, text))
            self._at += 1
        if line is not None and line.rstrip() == b"*** End of File":
            self._at += 1
            at_end = True
        if not edits:
            raise self._error(f"hunk {number} has no lines", path)
        return Hunk(start, number, edits, None, tuple(anchors), at_end)
