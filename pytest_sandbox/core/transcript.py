"""What a terminal's program has written, in bounded memory: the last bytes, the text to be matched, excerpts of it.

No I/O.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from ..models import EOF, Eof, TerminalMatch
from .sequences import Parser

BYTES_PER_TOKEN = 4  # of UTF-8: the usual estimate
MOST_RETURNS = 3  # carriage returns that belong to one line's end
_LINE_END = re.compile(rf"\r{{1,{MOST_RETURNS}}}\n")
_DROPPED = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
for _kept in "\t\n\r":
    del _DROPPED[ord(_kept)]


class Ring:
    """The last bytes of a stream, and how many there were."""

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit = limit
        self._kept = bytearray()

    def append(self, chunk: bytes) -> None:
        self.total += len(chunk)
        self._kept += chunk
        del self._kept[: max(0, len(self._kept) - self._limit)]  # moves nothing: a bytearray's beginning is an offset

    def content(self) -> bytes:
        return bytes(self._kept)


class PlainText(Parser):
    """The text of a stream as far as it was not taken: UTF-8 decoded by replacement, without control sequences.

    Lines end with a newline alone. Of the control characters tabs and carriage returns are left; at the very end these
    are held back until it is known what follows. Beyond `limit` characters the oldest go.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(self)
        self._limit = limit
        self._pieces: deque[str] = deque()
        self._length = 0
        self._fresh: list[str] = []  # of the chunk that is being fed
        self._held = ""  # carriage returns

    def feed(self, chunk: bytes) -> None:
        text = self._decoder.decode(chunk)
        if "\x1b" not in text and self._state == self._ground:
            self._fresh.append(text.translate(_DROPPED))  # 50 times as fast, and what most output is
        else:
            position = 0
            while position < len(text):
                position = self._state(text, position)
        piece = (self._held + "".join(self._fresh)).replace("\r\n", "\n")
        if "\r\n" in piece:  # a program's own, and before it the terminal's
            piece = _LINE_END.sub("\n", piece)
        self._fresh.clear()
        line = piece.rstrip("\r")
        self._held = piece[len(line) :][:MOST_RETURNS]
        self._append(line)

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            whole = "".join(self._pieces)
            self._pieces.clear()
            self._pieces.append(whole)
        return self._pieces[0] if self._pieces else ""

    def take(self, count: int | None = None) -> str:
        """Return the first characters, by default all; they are never returned again."""
        whole = self.text
        taken = whole if count is None else whole[:count]
        self._pieces.clear()
        self._length = 0
        self._append(whole[len(taken) :])
        return taken

    def _append(self, piece: str) -> None:
        if not piece:
            return
        self._pieces.append(piece[-self._limit :])
        self._length += len(self._pieces[-1])
        while self._length > self._limit:
            oldest = self._pieces.popleft()
            excess = self._length - self._limit
            if len(oldest) > excess:
                self._pieces.appendleft(oldest[excess:])
            self._length -= min(len(oldest), excess)

    # What the parser finds (Handler).

    def printed(self, run: str) -> None:
        self._fresh.append(run)

    def control(self, character: str) -> None:
        if character in "\t\n\r":
            self._fresh.append(character)

    def escape(self, sequence: str) -> None:
        pass

    def csi(self, function: str, parameters: str) -> None:
        pass

    def osc(self, string: str) -> None:
        pass


class Excerpt:
    """Head and tail of a text that comes in pieces, together within a budget of tokens; so is the memory it takes.

    Raises ValueError for a negative budget.
    """

    def __init__(self, max_tokens: int) -> None:
        if max_tokens < 0:
            raise ValueError(f"max_tokens={max_tokens}; a budget is 0 or more")
        self._budget = max_tokens * BYTES_PER_TOKEN
        self._head = bytearray()
        self._tail = Ring(self._budget)

    def add(self, piece: str) -> None:
        encoded = piece.encode()
        self._head += encoded[: self._budget - len(self._head)]
        self._tail.append(encoded)

    @property
    def tokens(self) -> int:
        """Of the whole text, kept or not."""
        return -(-self._tail.total // BYTES_PER_TOKEN)

    @property
    def truncated(self) -> bool:
        return self._tail.total > self._budget

    @property
    def text(self) -> str:
        if not self.truncated:
            return self._head.decode()
        marker = f"\n[… cut to fit, {self.tokens} tokens in all …]\n"
        room = self._budget - len(marker.encode())
        if room <= 0:
            return self._head.decode(errors="ignore")  # a character cut in two is left out
        head, tail = self._head[: room - room // 2], self._tail.content()[-(room // 2) :] if room > 1 else b""
        return head.decode(errors="ignore") + marker + tail.decode(errors="ignore")


Pattern = str | re.Pattern[str] | Eof


def alternatives(pattern: Pattern | Sequence[Pattern]) -> list[Pattern]:
    """The alternatives to wait for, checked. Raises ValueError and TypeError for what could not be meant."""
    wanted = [pattern] if isinstance(pattern, str | re.Pattern | Eof) else list(pattern)
    if not wanted or "" in wanted:
        raise ValueError(f"pattern {pattern!r}: nothing to wait for")
    for each in wanted:
        if not _is_pattern(each):
            raise TypeError(f"pattern {each!r}; expected text, a compiled regular expression of text, or EOF")
    return wanted


def _is_pattern(value: object) -> bool:
    return isinstance(value, str | Eof) or (isinstance(value, re.Pattern) and isinstance(value.pattern, str))


def find_first(wanted: Sequence[Pattern], text: str, *, ended: bool) -> TerminalMatch | None:
    """Return the match that begins first in the text, of two the one named first; EOF, where nothing else matches."""
    best: tuple[int, int, int] | None = None  # start, index, end: in this order of preference
    found: re.Match[str] | None = None
    for index, each in enumerate(wanted):
        if isinstance(each, Eof):
            continue
        if isinstance(each, str):
            start, match = text.find(each), None
            end = start + len(each)
        else:
            match = each.search(text)
            start, end = match.span() if match else (-1, -1)
        if start >= 0 and (best is None or start < best[0]):
            best, found = (start, index, end), match
    if best is not None:
        start, index, end = best
        return TerminalMatch(index, wanted[index], text[:start], text[start:end], text[end:], found)
    if ended and EOF in wanted:
        return TerminalMatch(wanted.index(EOF), EOF, before=text, text="", after="")
    return None
