"""Patches, computed: what becomes of files. How patches are written is in patch_formats.py; no sandbox in either.

Contents are bytes, of whatever encoding. A unified diff says how each line ends, so a line with another end is another
line. A V4A patch knows lines only: what it adds ends as the file's other lines do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..agent.wire import from_wire
from ..changes import MAX_DIFFED, Change, ChangeKind, Changes
from ..errors import PatchRejected
from ..models import MEBIBYTE, FileKind

MAX_PATCH = 64 * MEBIBYTE  # bytes of a patch; and of all that it changes, before or after
NEW_FILE, NEW_PROGRAM = 0o644, 0o755  # git knows no other modes of files


class File(NamedTuple):
    """A regular file as it is, or is to be. mode: its permission bits."""

    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that stand in a file, and what they become.

    line: of the patch, from 1. edits: (b" ", b"-" or b"+", line). at: index of the first line concerned, as far as the
    patch says it. anchors: lines to go beyond first, one after the other. at_end: only the file's end will do.
    """

    line: int
    number: int
    edits: list[tuple[bytes, bytes]]
    at: int | None = None
    anchors: tuple[bytes, ...] = ()
    at_end: bool = False

    @property
    def before(self) -> list[bytes]:
        return [text for sign, text in self.edits if sign != b"+"]


@dataclass(slots=True)
class FilePatch:
    """What a patch does to one file.

    source: what it reads, None for a new file; target: what it leaves, None for none. copied: the source stays.
    whole: the content of a new file. mode: what git says of it. line: of the patch, from 1.
    """

    line: int
    source: str | None = None
    target: str | None = None
    copied: bool = False
    hunks: list[Hunk] = field(default_factory=list)
    whole: bytes | None = None
    mode: int | None = None
    by_lines: bool = False  # as V4A has it: how lines end is the file's matter

    @property
    def path(self) -> str:
        return self.target if self.target is not None else self.source or ""


def paths_of(patches: Sequence[FilePatch]) -> list[str]:
    """Return every path that a patch reads or writes, sorted."""
    return sorted({path for each in patches for path in (each.source, each.target) if path is not None})


def patched(patches: Sequence[FilePatch], files: Mapping[str, File]) -> tuple[dict[str, File | None], Changes]:
    """Compute what becomes of files, all that there are of those that the patch names.

    Returns what is to be written, None for what is to go, and the same told as Changes. Raises PatchRejected.
    """
    state: dict[str, File | None] = dict(files)
    made: set[str] = set()  # by a rename, a copy or as new: not what a git diff means when it names a source
    vanishing = {each.source for each in patches if each.source != each.target and not each.copied}
    renamed: dict[str, str] = {}
    total = 0
    for each in patches:
        source = _source_of(each, files, state, made)
        after = _result(each, source)
        if each.source is not None and each.source != each.target and not each.copied and each.source not in made:
            state[each.source] = None
        if each.target is not None and after is not None:
            if each.source != each.target:
                taken = state.get(each.target) is not None
                if taken and (each.target in made or each.target not in vanishing):
                    raise _rejected(each, "the file is there already")
                made.add(each.target)
            total += len(after.content)
            if total > MAX_PATCH:
                raise _rejected(each, f"the patched files have more than {MAX_PATCH} bytes")
            state[each.target] = after
            if each.source not in (None, each.target) and not each.copied:
                renamed[each.source or ""] = each.target
    changed = {path: after for path, after in state.items() if after != files.get(path)}
    return changed, _changes(files, changed, renamed)


def _source_of(
    patch: FilePatch, files: Mapping[str, File], state: Mapping[str, File | None], made: set[str]
) -> File | None:
    if patch.source is None:
        return None
    source = state.get(patch.source)
    if patch.source != patch.target and (source is None or patch.source in made or patch.copied):
        # The files of one git diff are to be taken as of the same moment: two names can be swapped.
        source = files.get(patch.source, source)
    if source is not None or _creates(patch):
        return source
    raise _rejected(patch, f"there is no file {patch.source!r}", advice="check path= and strip=")


def _creates(patch: FilePatch) -> bool:
    """`diff -N` names a new file on both sides."""
    return len(patch.hunks) == 1 and patch.hunks[0].at == 0 and not patch.hunks[0].before and not patch.by_lines


def _result(patch: FilePatch, source: File | None) -> File | None:
    content = source.content if source is not None else b""
    mode = source.mode if source is not None else NEW_FILE
    if patch.mode is not None:
        mode = _with_git_mode(source, patch.mode)
    if patch.whole is not None:
        return File(patch.whole, mode)
    if patch.target is None and patch.by_lines:
        return None
    content = _edited_by_lines(patch, content) if patch.by_lines else b"".join(_edited(patch, _lines(content)))
    if patch.target is None and content:
        raise _rejected(patch, "it removes the file, which has more lines than the patch knows of")
    return File(content, mode)


def _with_git_mode(source: File | None, mode: int) -> int:
    if source is None:
        return NEW_PROGRAM if mode & 0o100 else NEW_FILE
    # Of a mode git knows one bit: whether it can be executed, by whoever may read it.
    return source.mode | (source.mode & 0o444) >> 2 if mode & 0o100 else source.mode & ~0o111


def _changes(files: Mapping[str, File], changed: Mapping[str, File | None], renamed: Mapping[str, str]) -> Changes:
    changes = []
    for path, after in changed.items():
        before = files.get(path)
        facts: list[str] = []
        if before is not None and after is not None:
            facts += ["content"] if before.content != after.content else []
            facts += [f"mode {before.mode:o} → {after.mode:o}"] if before.mode != after.mode else []
            kind = ChangeKind.MODIFIED
        else:
            kind = ChangeKind.ADDED if before is None else ChangeKind.REMOVED
        old, new = (_shown_content(file) for file in (before, after))
        was, is_now = (FileKind.FILE if file is not None else None for file in (before, after))
        differs = before is None or after is None or before.content != after.content
        changes.append(Change(path, kind, was, is_now, tuple(facts), differs, old, new))
    kept = {old: new for old, new in renamed.items() if changed.get(old, ...) is None and changed.get(new) is not None}
    return Changes.of(changes, kept)


def _shown_content(file: File | None) -> bytes | None:
    return file.content if file is not None and len(file.content) <= MAX_DIFFED else None


def _rejected(patch: FilePatch, reason: str, hunk: Hunk | None = None, **seen: str) -> PatchRejected:
    line = hunk.line if hunk is not None else patch.line
    return PatchRejected(reason, path=patch.path, line=line, hunk=hunk.number if hunk is not None else None, **seen)


# --- hunks into lines -------------------------------------------------------------------------------------------------


def _lines(content: bytes) -> list[bytes]:
    """Split after each newline, and nowhere else: splitlines() takes a lone carriage return for an end."""
    *lines, rest = content.split(b"\n")
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


def _edited_by_lines(patch: FilePatch, content: bytes) -> bytes:
    lines = _lines(content)
    end = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
    texts = [_text(line) for line in lines]
    ends = [line[len(text) :] or end for line, text in zip(lines, texts, strict=True)]
    edited: list[bytes] = []
    done = 0
    for hunk in patch.hunks:
        at = _place_by_lines(patch, hunk, texts, done)
        edited += [text + end for text, end in zip(texts[done:at], ends[done:at], strict=True)]
        for sign, text in hunk.edits:
            if sign == b"+":
                edited.append(text + end)
                continue
            if sign == b" ":
                edited.append(texts[at] + ends[at])
            at += 1
        done = at
    edited += [text + end for text, end in zip(texts[done:], ends[done:], strict=True)]
    if lines and not content.endswith(b"\n") and edited:
        edited[-1] = _text(edited[-1])
    return b"".join(edited)


def _text(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _place_by_lines(patch: FilePatch, hunk: Hunk, texts: list[bytes], start: int) -> int:
    for anchor in hunk.anchors:
        # Only where to begin to look: writers of such patches leave the indentation out.
        found = (at for at in range(start, len(texts)) if texts[at].strip() == anchor.strip())
        at = next(found, None)
        if at is None:
            raise _rejected(
                patch, "the line after @@ is not in the rest of the file", hunk, expected=shown_line(anchor),
                advice="give a line of the file as it is, or none",
            )  # fmt: skip
        start = at + 1
    before = hunk.before
    if not before:
        return start if hunk.anchors and not hunk.at_end else len(texts)
    last = len(texts) - len(before)
    places = [last] if hunk.at_end else range(start, last + 1)
    matches = (at for at in _matches(before, texts) if at in places and at >= start)
    place = next(matches, None)
    if place is None:
        raise _nowhere(patch, hunk, texts, start)
    return place


def _edited(patch: FilePatch, lines: list[bytes]) -> list[bytes]:
    """The lines after all hunks of a unified diff."""
    edited: list[bytes] = []
    done, drift = 0, 0
    for hunk in patch.hunks:
        expected = (hunk.at or 0) + drift
        at = _place(hunk, lines, expected, done)
        if at is None:
            raise _nowhere(patch, hunk, lines, max(expected, done))
        drift += at - expected
        edited += lines[done:at]
        edited += [text for sign, text in hunk.edits if sign != b"-"]
        done = at + len(hunk.before)
    edited += lines[done:]
    if any(not line.endswith(b"\n") for line in edited[:-1]):
        raise _rejected(patch, "it puts lines after the last one, which has no newline at its end")
    return edited


def _place(hunk: Hunk, lines: list[bytes], expected: int, start: int) -> int | None:
    """Where the hunk's lines are: where it says, or as near to that as they are found, but none of them changed.

    One that has context on one side only belongs to the beginning or the end of a file; one without any, where it says.
    """
    before = hunk.before
    if start <= expected <= len(lines) - len(before) and lines[expected : expected + len(before)] == before:
        return expected
    leading, trailing = (_context(edits) for edits in (hunk.edits, hunk.edits[::-1]))
    if not leading and not trailing:
        return None
    matches = [at for at in _matches(before, lines) if at >= start]
    if not leading and not hunk.at:
        matches = [at for at in matches if at == 0]
    if not trailing:
        matches = [at for at in matches if at + len(before) == len(lines)]
    return min(matches, key=lambda at: (abs(at - expected), -at), default=None)


def _context(edits: list[tuple[bytes, bytes]]) -> int:
    return next((count for count, (sign, _) in enumerate(edits) if sign != b" "), len(edits))


def _matches(wanted: list[bytes], lines: list[bytes]) -> Iterator[int]:
    """Yield where the wanted lines stand, in time that grows with the number of lines alone (Knuth, Morris, Pratt)."""
    borders, border = [0], 0
    for line in wanted[1:]:
        while border and line != wanted[border]:
            border = borders[border - 1]
        border += line == wanted[border]
        borders.append(border)
    matched = 0
    for at, line in enumerate(lines):
        while matched and (matched == len(wanted) or line != wanted[matched]):
            matched = borders[matched - 1]
        matched += line == wanted[matched]
        if matched == len(wanted):
            yield at + 1 - matched


def _nowhere(patch: FilePatch, hunk: Hunk, lines: list[bytes], near: int) -> PatchRejected:
    """Show the first line that is not as the hunk has it, where most of its lines before that are found."""
    before = hunk.before
    best, agreed = min(near, len(lines)), -1
    for at in (best, *range(len(lines))):
        count = 0
        while count < min(len(before), 100) and at + count < len(lines) and lines[at + count] == before[count]:
            count += 1
        if count > agreed:
            best, agreed = at, count
    at = best + agreed
    expected = before[agreed] if agreed < len(before) else b""
    found = lines[at] if at < len(lines) else None
    advice = "the file is not what the patch was made from: read it again"
    if found is not None and found != expected and found.split() == expected.split():
        advice = "they differ in white space alone, perhaps in how the line ends"
    return _rejected(
        patch,
        f"its {len(before)} lines are not in the file as they stand in the patch",
        hunk,
        expected=shown_line(expected),
        found=f"the end of the file, after line {len(lines)}"
        if found is None
        else f"line {at + 1}: {shown_line(found)}",
        advice=advice,
    )


def shown_line(line: bytes) -> str:
    text = repr(from_wire(line))
    return text if len(text) <= 120 else text[:117] + "..."
