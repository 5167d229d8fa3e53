"""Names of keys and what they send."""

from __future__ import annotations

import pytest

from pytest_sandbox.core.keys import NAMES, key_bytes, pasted
from pytest_sandbox.errors import UnknownKey


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("enter", b"\r"),
        ("Return", b"\r"),
        ("esc", b"\x1b"),
        ("backspace", b"\x7f"),
        ("a", b"a"),
        ("A", b"A"),
        ("-", b"-"),
        ("+", b"+"),
        ("ü", "ü".encode()),
        ("ctrl-c", b"\x03"),
        ("CTRL+C", b"\x03"),
        ("ctrl-space", b"\0"),
        ("ctrl-\\", b"\x1c"),
        ("alt-x", b"\x1bx"),
        ("alt-X", b"\x1bX"),
        ("alt--", b"\x1b-"),
        ("meta-enter", b"\x1b\r"),
        ("ctrl-alt-c", b"\x1b\x03"),
        ("shift-a", b"A"),
        ("shift-tab", b"\x1b[Z"),
        ("up", b"\x1b[A"),
        ("home", b"\x1b[H"),
        ("shift-up", b"\x1b[1;2A"),
        ("ctrl-right", b"\x1b[1;5C"),
        ("ctrl-shift-end", b"\x1b[1;6F"),
        ("f1", b"\x1bOP"),
        ("ctrl-f1", b"\x1b[1;5P"),
        ("f5", b"\x1b[15~"),
        ("f12", b"\x1b[24~"),
        ("delete", b"\x1b[3~"),
        ("alt-pagedown", b"\x1b[6;3~"),
    ],
)
def test_a_key_sends_what_xterm_sends(name: str, sent: bytes) -> None:
    assert key_bytes(name) == sent


@pytest.mark.parametrize(("name", "sent"), [("up", b"\x1bOA"), ("end", b"\x1bOF"), ("ctrl-up", b"\x1b[1;5A")])
def test_cursor_keys_in_application_mode(name: str, sent: bytes) -> None:
    assert key_bytes(name, application=True) == sent


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_key(name: str) -> None:
    assert key_bytes(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pgup", "pageup"),
        ("ctrl-entr", "enter"),
        ("f13", "f1"),
        ("arrow-up", ""),
        ("", ""),
        ("ctrl-", ""),
        ("ctrl-ü", ""),
    ],
)
def test_an_unknown_key_is_refused_with_names_like_it(name: str, near: str) -> None:
    with pytest.raises(UnknownKey, match="expected a character, or a name such as enter") as caught:
        key_bytes(name)

    assert caught.value.key == name
    assert near in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_lines_are_pasted_as_with_enter() -> None:
    assert pasted("one\ntwo\r\nthree", bracketed=False) == b"one\rtwo\rthree"


def test_a_paste_can_not_break_out_of_its_brackets() -> None:
    assert pasted("rm\x1b[201~\n", bracketed=True) == b"\x1b[200~rm\r\x1b[201~"
