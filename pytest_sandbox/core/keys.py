"""Names of keys, and the bytes that xterm sends for them (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from ..errors import UnknownKey

ESCAPE = "\x1b"
NEAR_NAMES = 5  # suggested for one that is unknown

_PLAIN: Final[Mapping[str, str]] = {
    "enter": "\r",
    "return": "\r",
    "tab": "\t",
    "escape": ESCAPE,
    "esc": ESCAPE,
    "space": " ",
    "backspace": "\x7f",
}
# What follows CSI; with modifiers as in `CSI 1 ; 5 A`. Without them, SS3 instead of CSI where the program asked for it.
_CURSOR: Final[Mapping[str, str]] = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F"}
_FIRST_FUNCTIONS: Final[Mapping[str, str]] = {
    "f1": "P",
    "f2": "Q",
    "f3": "R",
    "f4": "S",
}  # always SS3 without modifiers
_NUMBERED: Final[Mapping[str, int]] = {
    "insert": 2,
    "delete": 3,
    "pageup": 5,
    "pagedown": 6,
    **{f"f{key}": number for key, number in zip(range(5, 13), (15, 17, 18, 19, 20, 21, 23, 24), strict=True)},
}
NAMES: Final = (*_PLAIN, *_CURSOR, *_FIRST_FUNCTIONS, *_NUMBERED)

_MODIFIERS: Final[Mapping[str, int]] = {"shift": 1, "alt": 2, "meta": 2, "ctrl": 4, "control": 4}
_SHIFT, _ALT, _CTRL = 1, 2, 4
_MODIFIED = re.compile(rf"({'|'.join(_MODIFIERS)})[-+](.+)", re.IGNORECASE | re.DOTALL)
# Ctrl with other keys than letters, which are their number in the alphabet.
_CONTROLS: Final[Mapping[str, str]] = {
    "@": "\0", "space": "\0", "[": ESCAPE, "\\": "\x1c", "]": "\x1d", "^": "\x1e", "_": "\x1f", "?": "\x7f"
}  # fmt: skip


def key_bytes(name: str, *, application: bool = False) -> bytes:
    """Return what a key sends: `enter`, `up`, `f5`, a character, or one with modifiers, `ctrl-c`, `alt-x`, `shift-tab`.

    application: the program has asked for application cursor keys (DECCKM). Raises UnknownKey.
    """
    modifiers, key = 0, name
    while (match := _MODIFIED.fullmatch(key)) is not None:
        modifiers |= _MODIFIERS[match[1].lower()]
        key = match[2]
    sequence = _sequence(key, modifiers, application)
    if sequence is None:
        raise UnknownKey(name, difflib.get_close_matches(key.lower(), NAMES, NEAR_NAMES, cutoff=0.5))
    return sequence.encode()


def _sequence(key: str, modifiers: int, application: bool) -> str | None:
    named = key.lower()
    if (final := _CURSOR.get(named)) is not None:
        return f"{ESCAPE}[1;{modifiers + 1}{final}" if modifiers else f"{ESCAPE}{'O' if application else '['}{final}"
    if (final := _FIRST_FUNCTIONS.get(named)) is not None:
        return f"{ESCAPE}[1;{modifiers + 1}{final}" if modifiers else f"{ESCAPE}O{final}"
    if (number := _NUMBERED.get(named)) is not None:
        return f"{ESCAPE}[{number};{modifiers + 1}~" if modifiers else f"{ESCAPE}[{number}~"
    typed = _typed(key, modifiers)
    return ESCAPE + typed if typed is not None and modifiers & _ALT else typed


def _typed(key: str, modifiers: int) -> str | None:
    """What a key of the typewriter sends with Shift or Ctrl; Alt is an ESC before it."""
    named = key.lower()
    if modifiers & _CTRL:
        if len(named) == 1 and "a" <= named <= "z":
            return chr(ord(named) & 0x1F)
        return _CONTROLS.get(named)
    if modifiers & _SHIFT:
        if named == "tab":
            return f"{ESCAPE}[Z"
        return key.upper() if len(key) == 1 and key.isalpha() else _PLAIN.get(named)
    return _PLAIN.get(named, key if len(key) == 1 else None)


def pasted(text: str, *, bracketed: bool) -> bytes:
    """Return what a terminal sends for a paste: each line's end as Enter, and in brackets for a program that asked."""
    typed = text.replace("\r\n", "\r").replace("\n", "\r")
    if bracketed:
        # A program takes what comes after the closing bracket for typed, so the text must not hold one.
        typed = f"{ESCAPE}[200~{typed.replace(f'{ESCAPE}[201~', '')}{ESCAPE}[201~"
    return typed.encode("utf-8", "surrogateescape")
