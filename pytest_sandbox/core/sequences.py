"""The byte stream of a terminal, taken apart: text, control characters, escape sequences. What they mean is Screen's.

The states are those of the VT500 parser (https://vt100.net/emu/dec_ansi_parser), which is what xterm follows: a control
character inside a sequence acts at once, CAN and SUB abandon it, ESC begins another. Two things differ. Input is UTF-8,
so the 8-bit C1 controls don't exist: as characters they are dropped. And whatever a program sends costs bounded memory:
a sequence or string beyond its limit is read to its end, and then ignored or cut.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Protocol

LONGEST_SEQUENCE = 256  # characters between CSI and the final one; the longest in use, an SGR of rgb colours, has ~50
LARGEST_NUMBER = 65_535  # more than any screen has of anything
LONGEST_STRING = 4096  # characters kept of an OSC string, the rest is dropped

# Text up to the next control, a whole CSI sequence, or one control character: everything, and mostly the first two.
_TOKEN = re.compile(r"([^\x00-\x1f\x7f-\x9f]+)|\x1b\[([ -?]*)([@-~])|([\x00-\x1f\x7f-\x9f])")
_SEQUENCE_BODY = re.compile(r"[ -?]*")
_STRING_BODY = re.compile(r"[^\x07\x18\x1a\x1b]*")
_WELL_FORMED = re.compile(r"([<=>?]?)([0-9:;]*)([ -/]*)")

_CANCEL = "\x18\x1a"


def number(digits: str) -> int:
    """Return a parameter's value; one left out is 0, as by default."""
    return min(int(digits), LARGEST_NUMBER) if digits else 0


class Handler(Protocol):
    """What a stream is made of, in its order."""

    def printed(self, run: str) -> None:
        """Take characters without C0, C1 and DEL."""

    def control(self, character: str) -> None:
        """Take a C0 character other than ESC, CAN and SUB."""

    def escape(self, sequence: str) -> None:
        """Take what followed ESC: intermediates, if any, and the final character."""

    def csi(self, function: str, parameters: str) -> None:
        """Take a control sequence; function: private marker, intermediates and final character, as `?h` or ` q`."""

    def osc(self, string: str) -> None:
        """Take an operating system command, perhaps cut to LONGEST_STRING."""


class Parser:
    """Calls the handler; where the input is cut into chunks makes no difference."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state: Callable[[str, int], int] = self._ground
        self._collected = ""  # of the sequence or string that is being read
        self._kept = True  # whether that string is one whose content counts

    def feed(self, chunk: bytes) -> None:
        text = self._decoder.decode(chunk)
        position = 0
        while position < len(text):
            position = self._state(text, position)

    # Each state reads as much as it can from position on and returns where the next one goes on.

    def _ground(self, text: str, position: int) -> int:
        handler = self._handler
        for token in _TOKEN.finditer(text, position):
            kind = token.lastindex
            if kind == 1:
                handler.printed(token[1])
            elif kind == 3:
                self._dispatch(token[2], token[3])
            elif token[4] == "\x1b":
                self._enter(self._escape)
                return token.end()
            elif token[4] < " " and token[4] not in _CANCEL:
                handler.control(token[4])
        return len(text)

    def _escape(self, text: str, position: int) -> int:
        character = text[position]
        if " " <= character <= "/":
            self._collect(character, LONGEST_SEQUENCE)
        elif not "0" <= character <= "~":
            return self._interrupted(text, position)
        elif self._collected:
            self._state = self._ground
            self._handler.escape(self._collected + character)
        elif character == "[":
            self._enter(self._sequence)
        elif character in "]PX^_":  # OSC; DCS, SOS, PM and APC, which say nothing that shows
            self._enter(self._string)
            self._kept = character == "]"
        else:
            self._state = self._ground
            self._handler.escape(character)
        return position + 1

    def _sequence(self, text: str, position: int) -> int:
        body = _SEQUENCE_BODY.match(text, position)
        assert body is not None
        self._collect(body[0], LONGEST_SEQUENCE)
        if body.end() == len(text):
            return body.end()
        if not "@" <= text[body.end()] <= "~":
            return self._interrupted(text, body.end())
        self._state = self._ground
        self._dispatch(self._collected, text[body.end()])
        return body.end() + 1

    def _string(self, text: str, position: int) -> int:
        body = _STRING_BODY.match(text, position)
        assert body is not None
        if self._kept:
            self._collect(body[0], LONGEST_STRING)
        if body.end() == len(text):
            return body.end()
        end = text[body.end()]
        if end == "\x07" and not self._kept:  # ends an OSC by xterm's custom, and nothing else
            return body.end() + 1
        string = self._collected
        if end == "\x1b":  # the first half of ST; any other sequence ends the string too
            self._enter(self._escape)
        else:
            self._state = self._ground
        if self._kept and end not in _CANCEL:
            self._handler.osc(string[:LONGEST_STRING])
        return body.end() + 1

    def _interrupted(self, text: str, position: int) -> int:
        """Take a character that is no part of the sequence it stands in."""
        character = text[position]
        if character == "\x1b":
            self._enter(self._escape)
        elif character in _CANCEL:
            self._state = self._ground
        elif character < " ":
            self._handler.control(character)
        elif character > "\x7f":
            self._state = self._ground
            return position  # it is text: the sequence was not meant as one
        return position + 1

    def _enter(self, state: Callable[[str, int], int]) -> None:
        self._state = state
        self._collected = ""

    def _collect(self, part: str, limit: int) -> None:
        # One more than the limit is kept, which tells a full one from one that was cut.
        self._collected += part[: limit + 1 - len(self._collected)]

    def _dispatch(self, body: str, final: str) -> None:
        form = _WELL_FORMED.fullmatch(body)
        if form is not None and len(body) <= LONGEST_SEQUENCE:
            self._handler.csi(form[1] + form[3] + final, form[2])
