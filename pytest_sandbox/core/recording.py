"""A terminal's session as an asciicast, the format of asciinema (https://docs.asciinema.org/manual/asciicast/v2/).

Version 2 unless asked otherwise: every player reads it, and of asciinema itself all since 2018; version 3 takes
asciinema 3. What is typed is left out unless asked for, since passwords are.
"""

from __future__ import annotations

import codecs
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import UsageError
from ..models import MEBIBYTE
from .spool import Spool
from .unpacking import replacing

LARGEST = 64 * MEBIBYTE  # bytes of the file; an hour of a busy full-screen program takes a tenth
_CHUNK = 256 * 1024


class Recording:
    """Takes down what happens on a terminal, in the order it is called; `at` are seconds since the terminal's start.

    environment: as the format's header has it, usually TERM and SHELL. keystrokes: whether input is recorded too.
    largest: bytes kept, the first ones; what comes later is counted in `dropped`, and a marker tells players.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        command: str = "",
        title: str = "",
        environment: Mapping[str, str] | None = None,
        keystrokes: bool = False,
        largest: int = LARGEST,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.dropped = 0  # bytes of output that came after the limit was reached
        self._environment = dict(environment or {})
        self._described = {"command": command, "title": title, "env": self._environment}
        self._began = int(time.time())
        self._keystrokes = keystrokes
        self._largest = largest
        self._cut = False
        self._events = Spool()  # lines of version 2
        self._lock = threading.Lock()  # a terminal goes on in its loop while another thread saves
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"o": decoder("replace"), "i": decoder("replace")}

    def output(self, chunk: bytes, at: float) -> None:
        """Record what the program wrote; a character cut by the end of the chunk waits for the next one."""
        self._decode("o", chunk, at)
        if self._cut:
            self.dropped += len(chunk)

    def input(self, chunk: bytes, at: float) -> None:
        """Record what was typed, with keystrokes=True."""
        if self._keystrokes:
            self._decode("i", chunk, at)

    def resize(self, rows: int, columns: int, at: float) -> None:
        self._add(at, "r", f"{columns}x{rows}")

    def exit(self, status: int, at: float) -> None:
        """Record how it ended; a negative status is a signal's number."""
        for code in self._decoders:
            self._decode(code, b"", at, final=True)
        self._add(at, "x", str(status))

    def save(self, path: Path, version: int = 2) -> None:
        """Write a file that only its owner may read, in the place of another one; the recording can go on after it.

        Raises UsageError for a version other than 2 and 3, OSError when the file can't be written.
        """
        if version not in (2, 3):
            raise UsageError(f"asciicast version {version} is not written; 2 and 3 are, and players read 2")
        with replacing(path) as file:
            file.write(_line(self._header(version)))
            for line in self._lines() if version == 2 else _with_intervals(self._lines()):
                file.write(line)

    def _header(self, version: int) -> dict[str, object]:
        size: dict[str, object] = {"width": self.columns, "height": self.rows}
        if version == 3:
            kind = {"type": self._environment["TERM"]} if "TERM" in self._environment else {}
            size = {"term": {"cols": self.columns, "rows": self.rows, **kind}}
        described = {name: value for name, value in self._described.items() if value}
        return {"version": version, **size, "timestamp": self._began, **described}

    def _decode(self, code: str, chunk: bytes, at: float, *, final: bool = False) -> None:
        if text := self._decoders[code].decode(chunk, final):
            self._add(at, code, text)

    def _add(self, at: float, code: str, text: str) -> None:
        if self._cut:
            return
        line = _line([round(at, 6), code, text])
        if self._events.size + len(line) > self._largest:
            self._cut = True
            line = _line([round(at, 6), "m", "the recording is cut here: it reached its limit"])
        with self._lock:
            self._events.append(line)

    def _lines(self) -> Iterator[bytes]:
        rest, size = b"", self._events.size
        for offset in range(0, size, _CHUNK):
            with self._lock:
                chunk = self._events.read_at(offset, min(_CHUNK, size - offset))
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _with_intervals(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Version 3 counts time from the event before."""
    last = 0.0
    for line in lines:
        at, code, text = json.loads(line)
        yield _line([round(at - last, 6), code, text])
        last = at
