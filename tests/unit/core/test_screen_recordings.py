"""Streams of real programs, against what tmux shows after them; scripts/record_terminals.py makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_sandbox.core.screen import Cell, Screen

RECORDINGS = Path(__file__).parent / "recordings"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.stream"))


def replayed(name: str, size: int) -> tuple[Screen, dict[str, object]]:
    """The screen after the stream in chunks of size, and what tmux says of its own."""
    facts = json.loads((RECORDINGS / f"{name}.json").read_text())
    stream = (RECORDINGS / f"{name}.stream").read_bytes()
    screen = Screen(facts["rows"], facts["columns"])
    for start in range(0, len(stream), size):
        screen.feed(stream[start : start + size])
    return screen, facts


def styled(name: str, screen: Screen) -> list[list[Cell]]:
    """The cells of tmux's screen, of each line as many as it gives: not those erased at its end, whatever their colour.

    A line begins with the style that the one above left.
    """
    reader = Screen(screen.rows, screen.columns)
    cells = []
    for row, line in enumerate((RECORDINGS / f"{name}.styled").read_text().splitlines()):
        reader.feed(f"\x1b[{row + 1}H{line}".encode())
        length = reader.cursor.column + (reader.cell(row, screen.columns - 1).text != " ")
        cells.append([reader.cell(row, column) for column in range(length)])
    return cells


def test_there_are_recordings() -> None:
    assert {"vim", "less", "nano", "top", "bash", "python"} <= set(NAMES)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", NAMES)
def test_shows_what_tmux_shows(name: str, size: int) -> None:
    screen, facts = replayed(name, size)

    assert screen.lines == [line.rstrip(" ") for line in (RECORDINGS / f"{name}.screen").read_text().splitlines()]
    assert list(screen.cursor) == facts["cursor"]
    assert screen.alternate == facts["alternate"]


@pytest.mark.parametrize("name", NAMES)
def test_styles_are_those_of_tmux(name: str) -> None:
    screen, _ = replayed(name, 1 << 20)

    expected = styled(name, screen)

    for row, line in enumerate(expected):
        assert [screen.cell(row, column) for column in range(len(line))] == line
    assert any(expected)
