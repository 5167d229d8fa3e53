"""What a terminal shows: bytes of a program in, cells, cursor and title out. No I/O.

Written here rather than taken: of the emulators for Python the one in use, pyte, has no alternate screen (which vim,
less and nano draw on), no answers to DECRQM, no limit on strings, and has rested since April 2025; what is left after
overriding that is its table of names. The functions are those of xterm that terminfo's `xterm-256color` and the
programs using it rely on, after ECMA-48 and xterm's ctlseqs (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html).
Left out: double-height lines, left and right margins, reflow on resize, images, and the mouse beyond its modes.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from ..errors import UsageError
from .sequences import Parser, number
from .style import PLAIN, Style, restyled

MOST_CELLS = 1_000_000  # a cell takes 16 bytes, on both the main and the alternate screen
LONGEST_TITLE = 1024
DEEPEST_TITLE_STACK = 16
MOST_COMBINED = 8  # characters that join one cell; more is mischief
MOST_ANSWERED = 4096  # bytes of answers to one chunk


class Cell(NamedTuple):
    """text: a character with those that combine with it; empty for the right half of a wide one."""

    text: str
    style: Style


class Cursor(NamedTuple):
    """Where the next character goes, counted from 0. Past the last column it stays on it until the line wraps."""

    row: int
    column: int
    visible: bool


# --- characters -------------------------------------------------------------------------------------------------------

# One column each and nothing special about any: Latin, Greek, Cyrillic, punctuation, arrows, boxes and blocks.
_SIMPLE = (
    " -~\u00a0-\u00ac\u00ae-\u02ff\u0391-\u03a1\u03a3-\u03ff\u0400-\u0482\u048a-\u052f"
    "\u2010-\u2027\u2190-\u2199\u2500-\u25fc"
)
_RUN = re.compile(f"([{_SIMPLE}]+)|.", re.DOTALL)

_DRAWING = str.maketrans("`afgijklmnopqrstuvwxyz{|}~", "◆▒°±␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")  # DEC special graphics


@lru_cache(maxsize=4096)
def _width(character: str) -> int:
    """Columns of a character; -1 for one that is never shown, as the marks that turn the direction of writing."""
    from wcwidth import wcwidth  # 40 ms to load, for what few programs print

    width = wcwidth(character)
    if width == 0 and unicodedata.category(character) == "Cf" and character not in "\u200c\u200d":
        return -1
    return width


class _Line:
    """Two lists as long as the screen is wide: characters, of which "" is the right half of the one before; styles."""

    __slots__ = ("styles", "texts")

    def __init__(self, columns: int, style: Style, text: str = " ") -> None:
        self.texts = [text] * columns
        self.styles = [style] * columns

    def __str__(self) -> str:
        return "".join(self.texts).rstrip(" ")

    def copy(self) -> _Line:
        other = copy.copy(self)
        other.texts, other.styles = self.texts.copy(), self.styles.copy()
        return other

    def part(self, column: int) -> None:
        """Let no wide character lie across the left edge of the column: half of one can't be shown."""
        if 0 < column < len(self.texts) and not self.texts[column]:
            self.texts[column - 1 : column + 1] = "  "

    def put(self, column: int, run: str, style: Style) -> None:
        """Overwrite from the column on with characters one column wide, as many as there is room for."""
        end = column + len(run)
        self.part(column)
        self.part(end)
        self.texts[column:end] = run
        self.styles[column:end] = [style] * len(run)

    def insert(self, column: int, count: int, style: Style) -> None:
        """Make room for count blanks; what moves over the right edge is lost."""
        columns = len(self.texts)
        self.part(column)
        self.part(columns - count)
        self.texts[column:] = [" "] * count + self.texts[column : columns - count]
        self.styles[column:] = [style] * count + self.styles[column : columns - count]

    def delete(self, column: int, count: int, style: Style) -> None:
        self.part(column)
        self.part(column + count)
        self.texts[column:] = self.texts[column + count :] + [" "] * count
        self.styles[column:] = self.styles[column + count :] + [style] * count

    def resize(self, columns: int) -> None:
        self.part(columns)
        missing = columns - len(self.texts)
        if missing < 0:
            del self.texts[columns:], self.styles[columns:]
        else:
            self.texts += [" "] * missing
            self.styles += [PLAIN] * missing


# --- modes ------------------------------------------------------------------------------------------------------------

INSERT, NEWLINE = 4, 20  # of ECMA-48: IRM, LNM
CURSOR_KEYS, REVERSE_SCREEN, ORIGIN, AUTOWRAP, VISIBLE, BRACKETED_PASTE = 1, 5, 6, 7, 25, 2004  # DEC's and xterm's
_ALTERNATE, _ALTERNATE_CLEARED, _CURSOR_SAVED, _ALTERNATE_SAVED = 47, 1047, 1048, 1049
# Kept because a program may ask for them: blinking cursor, keypad, mouse, focus, synchronized output.
_OTHERS = {12, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 2026}
_ANSI_MODES = {INSERT, NEWLINE}
_PRIVATE_MODES = _OTHERS | {
    *(CURSOR_KEYS, REVERSE_SCREEN, ORIGIN, AUTOWRAP, VISIBLE, BRACKETED_PASTE),
    *(_ALTERNATE, _ALTERNATE_CLEARED, _CURSOR_SAVED, _ALTERNATE_SAVED),
}


class _Saved(NamedTuple):
    """What DECSC keeps."""

    row: int = 0
    column: int = 0
    wrapping: bool = False
    style: Style = PLAIN
    charsets: tuple[str, str] = ("B", "B")
    shifted: int = 0
    origin: bool = False


class _Buffer:
    """One of the two screens."""

    def __init__(self, rows: int, columns: int, style: Style = PLAIN) -> None:
        self.lines = [_Line(columns, style) for _ in range(rows)]
        self.saved = _Saved()

    def copy(self) -> _Buffer:
        other = copy.copy(self)
        other.lines = [line.copy() for line in self.lines]
        return other


class Screen:
    """A terminal's view of a program's output. Any bytes are taken; none raises.

    rows, columns: at least 1, and no more than MOST_CELLS together. scrollback: lines kept of those that left at the
    top of the main screen. Raises UsageError for another size.
    """

    _main: _Buffer
    _alternate: _Buffer
    _shown: _Buffer
    _row: int
    _column: int
    _wrapping: bool  # the last column is written, the next character begins a line
    _style: Style
    _charsets: tuple[str, str]  # G0 and G1: B for ASCII, 0 for line drawing
    _shifted: int  # which of them is in use
    _top: int  # the margins, both inside the region that scrolls
    _bottom: int
    _tabs: set[int]
    _ansi: set[int]
    _private: set[int]
    _title: str
    _titles: list[str]
    _repeatable: str

    def __init__(self, rows: int = 24, columns: int = 80, scrollback: int = 1000) -> None:
        _check_size(rows, columns)
        self.rows = rows
        self.columns = columns
        self._scrollback: deque[_Line] = deque(maxlen=scrollback)
        self._parser = Parser(self)
        self._answers = bytearray()
        self._reset()

    def feed(self, chunk: bytes) -> bytes:
        """Take output of the program and return what the terminal answers: at most MOST_ANSWERED bytes, mostly none.

        A chunk may end anywhere, also inside a character or a sequence.
        """
        self._parser.feed(chunk)
        answers = bytes(self._answers)
        self._answers.clear()
        return answers

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; lines are cut or filled up, and the topmost ones leave when the cursor has to stay.

        Raises UsageError as the constructor does.
        """
        _check_size(rows, columns)
        for buffer in (self._main, self._alternate):
            cursor = self._row if buffer is self._shown else buffer.saved.row
            leaving = max(0, cursor - rows + 1)
            if buffer is self._main:
                self._scrollback.extend(buffer.lines[:leaving])
            del buffer.lines[:leaving], buffer.lines[rows:]
            buffer.lines += [_Line(self.columns, PLAIN) for _ in range(rows - len(buffer.lines))]
            for line in buffer.lines:
                line.resize(columns)
        self._tabs |= set(range(-(-self.columns // 8) * 8, columns, 8))
        self._tabs = {tab for tab in self._tabs if tab < columns}
        self.rows, self.columns = rows, columns
        self._top, self._bottom = 0, rows - 1
        self._move_to(self._row, self._column)

    def copy(self) -> Screen:
        """Return a screen that shows the same now; what this one is fed later does not change it.

        A sequence that this one has read half of is not there.
        """
        other = copy.copy(self)
        other._parser = Parser(other)
        other._answers = bytearray()
        other._main, other._alternate = self._main.copy(), self._alternate.copy()
        other._shown = other._alternate if self.alternate else other._main
        other._scrollback = self._scrollback.copy()  # its lines don't change any more
        other._tabs, other._ansi, other._private = self._tabs.copy(), self._ansi.copy(), self._private.copy()
        other._titles = self._titles.copy()
        return other

    # --- what it shows ---

    @property
    def lines(self) -> list[str]:
        """Each row's text without the blanks at its end."""
        return [str(line) for line in self._shown.lines]

    @property
    def text(self) -> str:
        """The rows' text, without the empty ones at the end."""
        return "\n".join(self.lines).rstrip("\n")

    @property
    def scrollback(self) -> list[str]:
        """The lines that left at the top, oldest first."""
        return [str(line) for line in self._scrollback]

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._row, self._column, VISIBLE in self._private)

    @property
    def title(self) -> str:
        return self._title

    @property
    def alternate(self) -> bool:
        """Whether a full-screen program shows its own screen; the shell's comes back after it."""
        return self._shown is self._alternate

    @property
    def bracketed_paste(self) -> bool:
        """Whether the program wants a paste between CSI 200 ~ and CSI 201 ~."""
        return BRACKETED_PASTE in self._private

    @property
    def application_cursor_keys(self) -> bool:
        """Whether cursor keys are sent as SS3 (ESC O) rather than CSI."""
        return CURSOR_KEYS in self._private

    @property
    def reversed(self) -> bool:
        """Whether foreground and background are swapped all over."""
        return REVERSE_SCREEN in self._private

    def cell(self, row: int, column: int) -> Cell:
        """Return one cell, counted from 0. Raises IndexError outside the screen."""
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"no cell {row}, {column} on a screen of {self.rows} rows and {self.columns} columns")
        line = self._shown.lines[row]
        return Cell(line.texts[column], line.styles[column])

    def framed(self) -> str:
        """The screen in a frame whose marks point at the cursor's row and column, for messages.

        Empty rows below the text and the cursor are left out and counted.
        """
        row, column, visible = self.cursor
        shown = max([row, *(index for index, line in enumerate(self.lines) if line)]) + 1
        heading = f" {self.rows}×{self.columns}{', alternate screen' if self.alternate else ''} "
        top = f"┌{heading[: self.columns]:─^{self.columns}}┐"
        body = []
        for index, line in enumerate(self._shown.lines[:shown]):
            left, right = "▶◀" if index == row else "││"
            body.append(f"{left}{''.join(line.texts)}{right}")
        foot = f" cursor in row {row}, column {column}{'' if visible else ' (hidden)'}"
        foot += f"; {self.rows - shown} empty rows left out" if shown < self.rows else ""
        bottom = f"└{'─' * column}▲{'─' * (self.columns - column - 1)}┘"
        return "\n".join([top, *body, bottom, foot])

    # --- text (Handler of the parser) ---

    def printed(self, run: str) -> None:
        if self._charsets[self._shifted] == "0":
            run = run.translate(_DRAWING)
        if run.isascii():
            self._put(run)
            return
        for part in _RUN.finditer(run):
            if part[1]:
                self._put(part[1])
            else:
                self._put_special(part[0])

    def _put(self, run: str) -> None:
        """Write characters that take one column each."""
        self._repeatable = run[-1]
        while run:
            self._wrap_if_due()
            room = self.columns - self._column
            part = run[:room]
            if AUTOWRAP not in self._private and len(run) > room:
                part, run = part[:-1] + run[-1], ""  # the last column takes each in turn
            run = run[room:]
            line = self._shown.lines[self._row]
            if INSERT in self._ansi:
                line.insert(self._column, len(part), self._style)
            line.put(self._column, part, self._style)
            self._advance(len(part))

    def _put_special(self, character: str) -> None:
        """Write one that may be wide, combine with the one before, or show nothing.

        What a zero width joiner joins keeps columns of its own, since programs count them so, with wcwidth(3).
        """
        width = _width(character)
        if width == 0:
            self._combine(character)
        elif width == 1:
            self._put(character)
        elif width == 2 and self.columns > 1:
            self._repeatable = character
            self._wrap_if_due()
            if self._column == self.columns - 1:
                if AUTOWRAP not in self._private:
                    return
                self._wrap()
            line = self._shown.lines[self._row]
            if INSERT in self._ansi:
                line.insert(self._column, 2, self._style)
            line.put(self._column, "  ", self._style)
            line.texts[self._column : self._column + 2] = character, ""
            self._advance(2)

    def _combine(self, character: str) -> None:
        texts = self._shown.lines[self._row].texts
        column = self._column if self._wrapping else self._column - 1
        if column > 0 and not texts[column]:
            column -= 1
        if column >= 0 and len(texts[column]) <= MOST_COMBINED:
            texts[column] += character

    def _advance(self, columns: int) -> None:
        self._column += columns
        if self._column >= self.columns:
            self._column = self.columns - 1
            self._wrapping = AUTOWRAP in self._private

    def _wrap_if_due(self) -> None:
        if self._wrapping:
            self._wrap()

    def _wrap(self) -> None:
        self._column = 0
        self._index()

    # --- control characters ---

    def control(self, character: str) -> None:
        if character == "\r":
            self._column = 0
            self._wrapping = False
        elif character in "\n\v\f":
            self._index()
            if NEWLINE in self._ansi:
                self._column = 0
        elif character == "\b":
            self._column = max(0, self._column - 1)
            self._wrapping = False
        elif character == "\t":
            self._tab(1)
        elif character in "\x0e\x0f":
            self._shifted = int(character == "\x0e")

    def _index(self) -> None:
        """Go down a row, scrolling at the bottom margin."""
        self._wrapping = False
        if self._row == self._bottom:
            self._scroll_up(1)
        elif self._row < self.rows - 1:
            self._row += 1

    def _reverse_index(self) -> None:
        self._wrapping = False
        if self._row == self._top:
            self._insert(self._top, 1)
        elif self._row > 0:
            self._row -= 1

    def _tab(self, count: int) -> None:
        """Go to the next tab stop, or count of them; the last column is always one. Backwards for a negative count."""
        forward = count > 0
        stops = sorted(tab for tab in self._tabs if (tab > self._column if forward else tab < self._column))
        if forward:
            self._column = stops[count - 1] if count <= len(stops) else self.columns - 1
        else:
            self._column = stops[count] if -count <= len(stops) else 0
        self._wrapping = False

    # --- lines ---

    def _scroll_up(self, count: int) -> None:
        """Let lines leave at the top margin; the scrollback keeps those that leave the main screen at its top."""
        if self._top == 0 and self._shown is self._main:
            self._scrollback.extend(self._shown.lines[: min(count, self._bottom + 1)])
        self._remove(self._top, count)

    def _remove(self, row: int, count: int) -> None:
        """Remove lines from the row on and fill up at the bottom margin."""
        lines = self._shown.lines
        count = min(count, self._bottom + 1 - row)
        del lines[row : row + count]
        lines[self._bottom + 1 - count : self._bottom + 1 - count] = self._blanks(count)

    def _insert(self, row: int, count: int) -> None:
        """Insert lines at the row; those that move over the bottom margin are lost."""
        lines = self._shown.lines
        count = min(count, self._bottom + 1 - row)
        del lines[self._bottom + 1 - count : self._bottom + 1]
        lines[row:row] = self._blanks(count)

    def _blanks(self, count: int) -> list[_Line]:
        return [_Line(self.columns, self._blank) for _ in range(count)]

    @property
    def _blank(self) -> Style:
        """What is erased takes the background in use (terminfo: bce)."""
        background = self._style.background
        return PLAIN if background is None else Style(background=background)

    def _erase(self, row: int, start: int, end: int) -> None:
        self._shown.lines[row].put(start, " " * (end - start), self._blank)

    # --- the cursor ---

    def _move_to(self, row: int, column: int) -> None:
        """Put the cursor, as near as the screen allows."""
        self._row = min(max(row, 0), self.rows - 1)
        self._column = min(max(column, 0), self.columns - 1)
        self._wrapping = False

    def _address(self, row: int, column: int) -> None:
        """Put the cursor where a program says: in origin mode rows are counted, and held, from the top margin on."""
        if ORIGIN in self._private:
            row = min(row + self._top, self._bottom)
        self._move_to(row, column)

    def _up(self, count: int) -> None:
        limit = self._top if self._row >= self._top else 0
        self._move_to(max(self._row - count, limit), self._column)

    def _down(self, count: int) -> None:
        limit = self._bottom if self._row <= self._bottom else self.rows - 1
        self._move_to(min(self._row + count, limit), self._column)

    def _save_cursor(self) -> None:
        self._shown.saved = _Saved(
            self._row,
            self._column,
            self._wrapping,
            self._style,
            self._charsets,
            self._shifted,
            ORIGIN in self._private,
        )

    def _restore_cursor(self) -> None:
        saved = self._shown.saved
        self._switch(self._private, ORIGIN, saved.origin)
        self._move_to(saved.row, saved.column)
        # A resize may have moved the edge that it waited at.
        self._wrapping = saved.wrapping and self._column == self.columns - 1
        self._style, self._charsets, self._shifted = saved.style, saved.charsets, saved.shifted

    # --- escape sequences ---

    def escape(self, sequence: str) -> None:
        match sequence:
            case "7":
                self._save_cursor()
            case "8":
                self._restore_cursor()
            case "D":
                self._index()
            case "E":
                self._column = 0
                self._index()
            case "H":
                self._tabs.add(self._column)
            case "M":
                self._reverse_index()
            case "c":
                self._reset()
            case "#8":  # DECALN: a screen of E, to adjust the picture tube by
                self._shown.lines[:] = [_Line(self.columns, PLAIN, "E") for _ in range(self.rows)]
                self._top, self._bottom = 0, self.rows - 1
                self._move_to(0, 0)
            case _ if sequence[0] == "(":
                self._charsets = (sequence[1:], self._charsets[1])
            case _ if sequence[0] == ")":
                self._charsets = (self._charsets[0], sequence[1:])

    def _reset(self) -> None:
        """Start anew, as RIS does; the scrollback stays."""
        self._main = _Buffer(self.rows, self.columns)
        self._alternate = _Buffer(self.rows, self.columns)
        self._shown = self._main
        self._tabs = set(range(8, self.columns, 8))
        self._title = ""
        self._titles = []
        self._private = set()
        self._repeatable = " "
        self._row = 0
        self._column = 0
        self._reset_softly()

    def _reset_softly(self) -> None:
        """Make modes, margins and style what they were at the start, as DECSTR does; the text and the cursor stay."""
        self._private = {AUTOWRAP, VISIBLE} | self._private & {_ALTERNATE, _ALTERNATE_CLEARED, _ALTERNATE_SAVED}
        self._ansi = set()
        self._style = PLAIN
        self._charsets = ("B", "B")
        self._shifted = 0
        self._top = 0
        self._bottom = self.rows - 1
        self._wrapping = False
        self._shown.saved = _Saved()

    def osc(self, string: str) -> None:
        command, _, argument = string.partition(";")
        if command in ("0", "2"):
            self._title = re.sub(r"[\x00-\x1f\x7f-\x9f]", "", argument)[:LONGEST_TITLE]
        elif command in ("10", "11") and argument == "?":  # programs choose their colours by whether it is dark
            level = "ffff" if (command == "10") != self.reversed else "0000"
            self._answer(f"\x1b]{command};rgb:{level}/{level}/{level}\x1b\\")

    # --- control sequences ---

    def csi(self, function: str, parameters: str) -> None:
        if function == "m":
            self._style = restyled(self._style, parameters)
        elif action := _FUNCTIONS.get(function):
            # A subparameter means something to SGR alone.
            action(self, [number(field.partition(":")[0]) for field in parameters.split(";")])

    def _erase_in_display(self, kind: int) -> None:
        if kind == 0:
            self._erase_in_line(0)
            first, last = self._row + 1, self.rows
        elif kind == 1:
            self._erase_in_line(1)
            first, last = 0, self._row
        elif kind == 2:
            first, last = 0, self.rows
        else:
            if kind == 3:
                self._scrollback.clear()
            return
        self._shown.lines[first:last] = self._blanks(last - first)

    def _erase_in_line(self, kind: int) -> None:
        if kind <= 2:
            start = self._column if kind == 0 else 0
            end = self._column + 1 if kind == 1 else self.columns
            self._erase(self._row, start, end)
            self._wrapping = False

    def _erase_characters(self, count: int) -> None:
        self._erase(self._row, self._column, min(self._column + count, self.columns))
        self._wrapping = False

    def _insert_characters(self, count: int) -> None:
        self._shown.lines[self._row].insert(self._column, min(count, self.columns - self._column), self._blank)
        self._wrapping = False

    def _delete_characters(self, count: int) -> None:
        self._shown.lines[self._row].delete(self._column, min(count, self.columns - self._column), self._blank)
        self._wrapping = False

    def _insert_lines(self, count: int) -> None:
        if self._top <= self._row <= self._bottom:
            self._insert(self._row, count)
            self._move_to(self._row, 0)

    def _delete_lines(self, count: int) -> None:
        if self._top <= self._row <= self._bottom:
            self._remove(self._row, count)
            self._move_to(self._row, 0)

    def _repeat(self, count: int) -> None:
        # More than the screen holds changes nothing that can be seen.
        self.printed(self._repeatable * min(count, self.rows * self.columns))

    def _clear_tabs(self, kind: int) -> None:
        if kind == 0:
            self._tabs.discard(self._column)
        elif kind == 3:
            self._tabs.clear()

    def _set_margins(self, top: int, bottom: int) -> None:
        bottom = min(bottom or self.rows, self.rows)
        top = max(top, 1)
        if top < bottom:
            self._top, self._bottom = top - 1, bottom - 1
            self._address(0, 0)

    def _set_private(self, modes: list[int], on: bool) -> None:
        for mode in modes:
            self._switch(self._private, mode, on and mode in _PRIVATE_MODES)
            if mode == ORIGIN:
                self._address(0, 0)
            elif mode == AUTOWRAP:
                self._wrapping = self._wrapping and on
            elif mode == _CURSOR_SAVED:
                self._save_cursor() if on else self._restore_cursor()
            elif mode in (_ALTERNATE, _ALTERNATE_CLEARED, _ALTERNATE_SAVED):
                self._show_alternate(mode, on)

    def _show_alternate(self, mode: int, on: bool) -> None:
        """Change to the alternate screen or back.

        47 does no more. 1047 clears the alternate one on the way back. 1049 clears it on the way there, and keeps the
        main screen's cursor meanwhile.
        """
        if on and mode == _ALTERNATE_SAVED and not self.alternate:
            self._save_cursor()
        if mode == (_ALTERNATE_SAVED if on else _ALTERNATE_CLEARED) and self.alternate != on:
            self._alternate.lines = self._blanks(self.rows)
        changed = self.alternate != on
        self._shown = self._alternate if on else self._main
        if not on:
            self._private -= {_ALTERNATE, _ALTERNATE_CLEARED, _ALTERNATE_SAVED}
            if mode == _ALTERNATE_SAVED and changed:
                self._restore_cursor()

    def _set_ansi(self, modes: list[int], on: bool) -> None:
        for mode in modes:
            self._switch(self._ansi, mode, on and mode in _ANSI_MODES)

    @staticmethod
    def _switch(modes: set[int], mode: int, on: bool) -> None:
        if on:
            modes.add(mode)
        else:
            modes.discard(mode)

    # --- answers ---

    def _answer(self, answer: str) -> None:
        if len(self._answers) + len(answer) <= MOST_ANSWERED:
            self._answers += answer.encode()

    def _report_status(self, kind: int, private: str = "") -> None:
        if kind == 5 and not private:
            self._answer("\x1b[0n")
        elif kind == 6:
            row = self._row - (self._top if ORIGIN in self._private else 0)
            self._answer(f"\x1b[{private}{row + 1};{self._column + 1}R")

    def _report_mode(self, mode: int, on: set[int], known: set[int], private: str = "") -> None:
        state = (1 if mode in on else 2) if mode in known else 0
        self._answer(f"\x1b[{private}{mode};{state}$y")

    def _window(self, operation: int) -> None:
        """Answer the size in characters, keep or bring back the title. Asking for the title is unsafe: not answered."""
        if operation == 18:
            self._answer(f"\x1b[8;{self.rows};{self.columns}t")
        elif operation == 22:
            self._titles = [*self._titles, self._title][-DEEPEST_TITLE_STACK:]
        elif operation == 23 and self._titles:
            self._title = self._titles.pop()


_Action: TypeAlias = Callable[[Screen, list[int]], object]


def _counted(method: Callable[[Screen, int], object]) -> _Action:
    """A function whose one parameter is at least 1."""
    return lambda screen, parameters: method(screen, parameters[0] or 1)


def _selected(method: Callable[[Screen, int], object]) -> _Action:
    """A function whose one parameter is a choice, 0 by default."""
    return lambda screen, parameters: method(screen, parameters[0])


def _row_and_column(screen: Screen, parameters: list[int]) -> None:
    row, column = (*parameters, 0)[:2]
    screen._address((row or 1) - 1, (column or 1) - 1)


def _row(screen: Screen, row: int) -> None:
    screen._address(row - 1, screen._column)


def _to_line(screen: Screen, rows: int) -> None:
    screen._down(rows) if rows > 0 else screen._up(-rows)
    screen._column = 0


_FUNCTIONS: dict[str, _Action] = {
    "@": _counted(Screen._insert_characters),  # ICH
    "A": _counted(Screen._up),  # CUU
    "B": _counted(Screen._down),  # CUD
    "e": _counted(Screen._down),  # VPR
    "C": _counted(lambda screen, count: screen._move_to(screen._row, screen._column + count)),  # CUF
    "a": _counted(lambda screen, count: screen._move_to(screen._row, screen._column + count)),  # HPR
    "D": _counted(lambda screen, count: screen._move_to(screen._row, screen._column - count)),  # CUB
    "E": _counted(_to_line),  # CNL
    "F": _counted(lambda screen, count: _to_line(screen, -count)),  # CPL
    "G": _counted(lambda screen, column: screen._move_to(screen._row, column - 1)),  # CHA
    "`": _counted(lambda screen, column: screen._move_to(screen._row, column - 1)),  # HPA
    "H": _row_and_column,  # CUP
    "f": _row_and_column,  # HVP
    "d": _counted(_row),  # VPA
    "I": _counted(Screen._tab),  # CHT
    "Z": _counted(lambda screen, count: screen._tab(-count)),  # CBT
    "g": _selected(Screen._clear_tabs),  # TBC
    "J": _selected(Screen._erase_in_display),  # ED
    "?J": _selected(Screen._erase_in_display),  # DECSED; nothing can be protected from it here
    "K": _selected(Screen._erase_in_line),  # EL
    "?K": _selected(Screen._erase_in_line),  # DECSEL
    "L": _counted(Screen._insert_lines),  # IL
    "M": _counted(Screen._delete_lines),  # DL
    "P": _counted(Screen._delete_characters),  # DCH
    "X": _counted(Screen._erase_characters),  # ECH
    "S": _counted(Screen._scroll_up),  # SU
    "T": _counted(lambda screen, count: screen._insert(screen._top, count)),  # SD
    "b": _counted(Screen._repeat),  # REP
    "r": lambda screen, parameters: screen._set_margins(*(*parameters, 0)[:2]),  # DECSTBM
    "s": lambda screen, _: screen._save_cursor(),  # SCOSC
    "u": lambda screen, _: screen._restore_cursor(),  # SCORC
    "h": lambda screen, modes: screen._set_ansi(modes, True),  # SM
    "l": lambda screen, modes: screen._set_ansi(modes, False),  # RM
    "?h": lambda screen, modes: screen._set_private(modes, True),  # DECSET
    "?l": lambda screen, modes: screen._set_private(modes, False),  # DECRST
    "!p": lambda screen, _: screen._reset_softly(),  # DECSTR
    "n": _selected(Screen._report_status),  # DSR
    "?n": _selected(lambda screen, kind: screen._report_status(kind, "?")),  # DECDSR
    "c": lambda screen, _: screen._answer("\x1b[?62;22c"),  # DA1: a VT220 with colours
    ">c": lambda screen, _: screen._answer("\x1b[>1;10;0c"),  # DA2
    "$p": _selected(lambda screen, mode: screen._report_mode(mode, screen._ansi, _ANSI_MODES)),  # DECRQM
    "?$p": _selected(lambda screen, mode: screen._report_mode(mode, screen._private, _PRIVATE_MODES, "?")),  # DECRQM
    "t": _selected(Screen._window),  # XTWINOPS
}


def _check_size(rows: int, columns: int) -> None:
    if rows < 1 or columns < 1 or rows * columns > MOST_CELLS:
        raise UsageError(
            f"a screen of {rows} rows and {columns} columns can't be: each is at least 1, "
            f"and there are at most {MOST_CELLS:,} cells; a usual size is 24 rows and 80 columns"
        )
