from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcwidth

from pytest_sandbox.core import screen as screen_module
from pytest_sandbox.core.screen import MOST_ANSWERED, MOST_CELLS, Cell, Cursor, Screen
from pytest_sandbox.core.sequences import LONGEST_STRING
from pytest_sandbox.core.style import PLAIN, Style, restyled
from pytest_sandbox.errors import UsageError


def shown(stream: bytes, rows: int = 4, columns: int = 10) -> list[str]:
    screen = Screen(rows, columns)
    screen.feed(stream)
    return screen.lines


def test_starts_empty_with_the_cursor_at_home() -> None:
    screen = Screen(2, 3)

    assert screen.lines == ["", ""]
    assert screen.text == ""
    assert screen.cursor == Cursor(0, 0, visible=True)
    assert screen.cell(1, 2) == Cell(" ", PLAIN)
    assert not screen.alternate


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        pytest.param(b"one\r\ntwo", ["one", "two", "", ""], id="lines"),
        pytest.param(b"one\ntwo", ["one", "   two", "", ""], id="a line feed keeps the column"),
        pytest.param(b"\x1b[20hone\ntwo", ["one", "two", "", ""], id="LNM"),
        pytest.param(b"abc\b\bX", ["aXc", "", "", ""], id="backspace"),
        pytest.param(b"a\tb", ["a       b", "", "", ""], id="tab"),
        pytest.param(b"0123456789ab", ["0123456789", "ab", "", ""], id="wraps"),
        pytest.param(b"0123456789\r\nab", ["0123456789", "ab", "", ""], id="waits at the edge before it wraps"),
        pytest.param(b"\x1b[?7l0123456789ab", ["012345678b", "", "", ""], id="DECAWM off"),
        pytest.param(b"1\r\n2\r\n3\r\n4\r\n5", ["2", "3", "4", "5"], id="scrolls"),
        pytest.param(b"a\x1b[3;5Hb\x1b[Hc", ["c", "", "    b", ""], id="CUP"),
        pytest.param(b"a\x1b[;5Hb", ["a   b", "", "", ""], id="CUP with a number left out"),
        pytest.param(b"\x1b[999;999Hx", ["", "", "", "         x"], id="CUP beyond the edge"),
        pytest.param(b"\x1b[2;2Hx\x1b[Ay\x1b[2Dz\x1b[Bw\x1b[Cv", [" zy", " xw v", "", ""], id="CUU CUB CUD CUF"),
        pytest.param(b"abc\x1b[2Ed\x1b[Fe\x1b[5Gf\x1b[4dg", ["abc", "e   f", "d", "     g"], id="CNL CPL CHA VPA"),
        pytest.param(b"abcdef\x1b[3G\x1b[K", ["ab", "", "", ""], id="EL to the end"),
        pytest.param(b"abcdef\x1b[3G\x1b[1K", ["   def", "", "", ""], id="EL from the start"),
        pytest.param(b"abcdef\x1b[3G\x1b[2Kx", ["  x", "", "", ""], id="EL whole"),
        pytest.param(b"a\r\nbcd\r\ne\x1b[2;2H\x1b[J", ["a", "b", "", ""], id="ED to the end"),
        pytest.param(b"a\r\nbcd\r\ne\x1b[2;2H\x1b[1J", ["", "  d", "e", ""], id="ED from the start"),
        pytest.param(b"a\r\nb\x1b[2Jc", ["", " c", "", ""], id="ED whole"),
        pytest.param(b"abcdef\x1b[3G\x1b[2@", ["ab  cdef", "", "", ""], id="ICH"),
        pytest.param(b"abcdef\x1b[3G\x1b[2P", ["abef", "", "", ""], id="DCH"),
        pytest.param(b"abcdef\x1b[3G\x1b[2X", ["ab  ef", "", "", ""], id="ECH"),
        pytest.param(b"abcdef\x1b[3G\x1b[4hXY\x1b[4lZ", ["abXYZdef", "", "", ""], id="IRM"),
        pytest.param(b"ab\x1b[3b", ["abbbb", "", "", ""], id="REP"),
        pytest.param(b"a\r\nb\r\nc\r\nd\x1b[2H\x1b[L", ["a", "", "b", "c"], id="IL"),
        pytest.param(b"a\r\nb\r\nc\r\nd\x1b[2H\x1b[M", ["a", "c", "d", ""], id="DL"),
        pytest.param(b"a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[3H\nX", ["a", "c", "X", "d"], id="DECSTBM, down"),
        pytest.param(b"a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[2H\x1bMX", ["a", "X", "b", "d"], id="DECSTBM, up"),
        pytest.param(b"a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[2SX", ["X", "", "", "d"], id="SU"),
        pytest.param(b"a\r\nb\r\nc\r\nd\x1b[2T", ["", "", "a", "b"], id="SD"),
        pytest.param(b"\x1b[2;3r\x1b[?6h\x1b[9;1Hx\x1b[?6ly", ["y", "", "x", ""], id="DECOM"),
        pytest.param(b"a\x1b7\r\nb\x1b8c", ["ac", "b", "", ""], id="DECSC DECRC"),
        pytest.param(b"a\x1b[s\r\nb\x1b[uc", ["ac", "b", "", ""], id="SCOSC SCORC"),
        pytest.param(b"a\x1bDb\x1bEc\x1bMd", ["a", " d", "c", ""], id="IND NEL RI"),
        pytest.param(b"\x1b[3g\x1b[3G\x1bH\r\ta\tb", ["  a      b", "", "", ""], id="TBC HTS"),
        pytest.param(b"\x1b[9Cx\x1b[2Zy\x1b[Iz", ["y       zx", "", "", ""], id="CBT CHT"),
        pytest.param(b"\x1b(0lqk\x1b(Bq", ["┌─┐q", "", "", ""], id="line drawing in G0"),
        pytest.param(b"\x1b)0x\x0ex\x0fx", ["x│x", "", "", ""], id="line drawing in G1"),
        pytest.param(b"\x1b#8", ["E" * 10] * 4, id="DECALN"),
        pytest.param(b"abc\x1bcx", ["x", "", "", ""], id="RIS"),
        pytest.param(b"a\x1b[4h\x1b[2;3r\x1b[!p\x1b[Hb", ["b", "", "", ""], id="DECSTR"),
    ],
)
def test_functions(stream: bytes, lines: list[str]) -> None:
    assert shown(stream) == lines


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"a\x1b]0;title\x07b", id="OSC ended by BEL"),
        pytest.param(b"a\x1b]0;title\x1b\\b", id="OSC ended by ST"),
        pytest.param(b"a\x1bPq#0;1\x07;2\x1b\\b", id="DCS"),
        pytest.param(b"a\x1b_Gf=24;AAAA\x1b\\b", id="APC"),
        pytest.param(b"a\x1b^private\x1b\\b", id="PM"),
        pytest.param(b"a\x1bXstart\x1b\\b", id="SOS"),
        pytest.param(b"a\x1b]0;abandoned\x18b", id="OSC abandoned by CAN"),
        pytest.param(b"a\x1b[12\x1ab", id="CSI abandoned by SUB"),
        pytest.param(b"a\x1b[?9999hb", id="unknown mode"),
        pytest.param(b"a\x1b[5;6yb", id="unknown function"),
        pytest.param(b"a\x1b[1?2hb", id="malformed"),
        pytest.param(b"a\x1b[" + b"1;" * 5000 + b"Hb", id="beyond its limit"),
        pytest.param(b"a\x1b[0:0:0;0m\x1b[38;5m\x1b[38;2;1mb", id="SGR that is incomplete"),
        pytest.param(b"a\x1b[38;5;300m\x1b[48:2::256:0:0mb", id="SGR with colours there are not"),
        pytest.param(b"a\xc2\x9bb", id="an 8-bit CSI is no control in UTF-8"),
        pytest.param("a\u202e\ufeffb".encode(), id="marks of direction and of byte order"),
        pytest.param(b"a\x00\x07\x7fb", id="NUL, BEL, DEL"),
    ],
)
def test_what_has_no_effect_is_not_shown(stream: bytes) -> None:
    screen = Screen(4, 10)

    answers = screen.feed(stream)

    assert screen.text == "ab"
    assert screen.cell(0, 1).style == PLAIN
    assert answers == b""


def test_a_control_character_inside_a_sequence_acts_at_once() -> None:
    assert shown(b"ab\x1b[\r2\nCx")[:2] == ["ab", "  x"]


def test_invalid_utf_8_shows_as_replacement_characters() -> None:
    assert shown(b"a\xffb\xe6\xbcc")[0] == "a\ufffdb\ufffdc"


# --- wide characters, combining ones ---


def test_a_wide_character_takes_two_cells() -> None:
    screen = Screen(2, 4)
    screen.feed("漢字".encode())

    assert [screen.cell(0, column).text for column in range(4)] == ["漢", "", "字", ""]
    assert screen.cursor == Cursor(0, 3, visible=True)


@pytest.mark.parametrize(
    ("stream", "line"),
    [
        pytest.param("漢字\x1b[1Gx", "x 字", id="the left half overwritten"),
        pytest.param("漢字\x1b[2Gx", " x字", id="the right half overwritten"),
        pytest.param("漢字\x1b[2G界", " 界", id="two halves overwritten by a wide one"),
        pytest.param("漢字\x1b[2G\x1b[P", " 字", id="half deleted"),
        pytest.param("漢字\x1b[2G\x1b[@", "   字", id="torn apart by an insertion"),
        pytest.param("漢字\x1b[2G\x1b[K", "", id="half erased"),
        pytest.param("漢字\x1b[3G\x1b[X", "漢", id="half erased in the middle"),
        pytest.param("abcd漢\x1b[1G\x1b[@", " abcd", id="half pushed over the edge"),
        pytest.param("abcde漢", "abcde", id="wraps as a whole"),
        pytest.param("\x1b[?7labcde漢", "abcde", id="has no room, and nowhere to wrap to"),
        pytest.param("abcd漢e\u0301", "abcd漢", id="the edge reached with a wide one"),
    ],
)
def test_half_of_a_wide_character_is_never_left(stream: str, line: str) -> None:
    assert shown(stream.encode(), 2, 6)[0] == line


def test_a_screen_one_column_wide_shows_no_wide_character() -> None:
    assert shown("a漢b".encode(), 3, 1) == ["a", "b", ""]


@pytest.mark.parametrize(
    ("stream", "cell"),
    [
        ("e\u0301", "e\u0301"),
        ("漢\u0301", "漢\u0301"),
        ("012345678e\u0301", "0"),
        ("\u0301x", "x"),
        ("👩\u200d💻", "👩\u200d"),
        ("e" + "\u0301" * 1000, "e" + "\u0301" * screen_module.MOST_COMBINED),
    ],
)
def test_combining_characters_join_the_one_before(stream: str, cell: str) -> None:
    screen = Screen(2, 10)
    screen.feed(stream.encode())

    assert screen.cell(0, 0).text == cell


def test_a_combining_character_joins_the_last_column_before_the_line_wraps() -> None:
    assert shown("0123456789\u0301a".encode())[:2] == ["0123456789\u0301", "a"]


def test_characters_taken_as_one_column_wide_are() -> None:
    simple = re.compile(f"[{screen_module._SIMPLE}]")

    wrong = [hex(code) for code in range(0x3000) if simple.match(chr(code)) and wcwidth(chr(code)) != 1]

    assert wrong == []


# --- styles ---


@pytest.mark.parametrize(
    ("parameters", "style"),
    [
        ("1;3;4", Style(bold=True, italic=True, underline=True)),
        ("2;5;7;8;9", Style(dim=True, blink=True, reverse=True, conceal=True, strike=True)),
        ("31;42", Style(foreground=1, background=2)),
        ("97;100", Style(foreground=15, background=8)),
        ("38;5;208", Style(foreground=208)),
        ("48;2;1;2;3;1", Style(background=(1, 2, 3), bold=True)),
        ("38:5:208", Style(foreground=208)),
        ("38:2:1:2:3", Style(foreground=(1, 2, 3))),
        ("48:2::1:2:3;1", Style(background=(1, 2, 3), bold=True)),
        ("58;5;1;1", Style(bold=True)),
        ("58:2::1:2:3;1", Style(bold=True)),
        ("4:3", Style(underline=True)),
        ("4;4:0", PLAIN),
        ("1;", PLAIN),
        ("31;42;39;49", PLAIN),
        ("1;2;3;4;5;7;8;9;22;23;24;25;27;28;29", PLAIN),
    ],
)
def test_styles(parameters: str, style: Style) -> None:
    assert restyled(PLAIN, parameters) == style


def test_what_is_erased_takes_the_background() -> None:
    screen = Screen(2, 4)
    screen.feed(b"abcd\x1b[1;31;44m\x1b[1;3H\x1b[K")

    assert screen.cell(0, 2) == Cell(" ", Style(background=4))
    assert screen.cell(0, 1) == Cell("b", PLAIN)


def test_lines_that_scroll_in_take_the_background() -> None:
    screen = Screen(2, 4)
    screen.feed(b"\x1b[44m\n\n")

    assert screen.cell(0, 0) == Cell(" ", PLAIN)
    assert screen.cell(1, 0) == Cell(" ", Style(background=4))


# --- alternate screen, scrollback, resize ---


@pytest.mark.parametrize("mode", [b"47", b"1047", b"1049"])
def test_the_main_screen_comes_back_after_the_alternate_one(mode: bytes) -> None:
    screen = Screen(3, 10)
    screen.feed(b"$ vim\x1b[?" + mode + b"h\x1b[2J\x1b[Hfile")
    inside = (screen.text, screen.alternate)

    screen.feed(b"\x1b[?" + mode + b"l")

    assert inside == ("file", True)
    assert (screen.text, screen.alternate) == ("$ vim", False)


def test_mode_1049_keeps_the_cursor_and_shows_an_empty_screen() -> None:
    screen = Screen(3, 10)
    screen.feed(b"\x1b[?1049hold\x1b[?1049l$ \x1b[?1049h")
    empty = screen.text

    screen.feed(b"\x1b[3;3Hx\x1b[?1049l!")

    assert empty == ""
    assert screen.text == "$ !"


def test_the_alternate_screen_adds_nothing_to_the_scrollback() -> None:
    screen = Screen(2, 10)
    screen.feed(b"a\r\nb\r\nc\x1b[?1049h" + b"x\r\n" * 10)

    assert screen.scrollback == ["a"]


def test_scrollback_keeps_as_many_lines_as_asked() -> None:
    screen = Screen(1, 10, scrollback=2)
    screen.feed(b"a\r\nb\r\nc\r\nd")

    assert screen.scrollback == ["b", "c"]


def test_ed_3_clears_the_scrollback() -> None:
    screen = Screen(1, 10)
    screen.feed(b"a\r\nb\x1b[3J")

    assert screen.scrollback == []


def test_a_region_below_the_top_scrolls_lines_away_for_good() -> None:
    screen = Screen(3, 10)
    screen.feed(b"a\r\nb\x1b[2;3r\x1b[3H\n\n")

    assert screen.scrollback == []


def test_resize_cuts_and_fills_lines() -> None:
    screen = Screen(2, 4)
    screen.feed("ab漢\r\nx".encode())

    screen.resize(3, 3)
    narrow = screen.lines
    screen.resize(3, 6)
    screen.feed(b"\x1b[1;6H!")

    assert narrow == ["ab", "x", ""]
    assert screen.lines == ["ab   !", "x", ""]


def test_resize_keeps_the_cursors_row() -> None:
    screen = Screen(4, 4)
    screen.feed(b"a\r\nb\r\nc\r\nd")

    screen.resize(2, 4)

    assert screen.lines == ["c", "d"]
    assert screen.scrollback == ["a", "b"]
    assert screen.cursor == Cursor(1, 1, visible=True)


def test_resize_under_the_alternate_screen_keeps_the_main_ones_cursor() -> None:
    screen = Screen(4, 4)
    screen.feed(b"a\r\nb\r\nc\r\nd\x1b[?1049h\x1b[H")

    screen.resize(2, 4)
    screen.feed(b"\x1b[?1049l!")

    assert screen.lines == ["c", "d!"]


def test_resize_moves_tab_stops_with_the_width() -> None:
    screen = Screen(1, 4)

    screen.resize(1, 20)
    screen.feed(b"\ta\tb")

    assert screen.text == "        a       b"


@pytest.mark.parametrize("size", [(0, 80), (24, 0), (-1, 80), (70_000, 70_000), (1, MOST_CELLS + 1)])
def test_sizes_that_cannot_be_are_refused(size: tuple[int, int]) -> None:
    screen = Screen()

    with pytest.raises(UsageError, match=f"{size[0]} rows and {size[1]} columns"):
        Screen(*size)
    with pytest.raises(UsageError, match="at least 1"):
        screen.resize(*size)


@pytest.mark.parametrize("position", [(-1, 0), (0, -1), (2, 0), (0, 3)])
def test_cells_outside_are_no_cells(position: tuple[int, int]) -> None:
    with pytest.raises(IndexError, match="2 rows and 3 columns"):
        Screen(2, 3).cell(*position)


# --- modes, title, answers ---


def test_modes_that_input_depends_on() -> None:
    screen = Screen()
    screen.feed(b"\x1b[?1;2004h\x1b[?25l")
    on = (screen.application_cursor_keys, screen.bracketed_paste, screen.cursor.visible)

    screen.feed(b"\x1b[!p")

    assert on == (True, True, False)
    assert (screen.application_cursor_keys, screen.bracketed_paste, screen.cursor.visible) == (False, False, True)


@pytest.mark.parametrize(
    ("stream", "title"),
    [
        (b"\x1b]0;one\x07", "one"),
        (b"\x1b]2;a;b\x1b\\", "a;b"),
        (b"\x1b]1;icon\x07", ""),
        (b"\x1b]2;a\nb\x07", "ab"),
        (b"\x1b]2;one\x07\x1b[22;2t\x1b]2;two\x07\x1b[23;2t", "one"),
        (b"\x1b[23t", ""),
        (b"\x1b]2;" + b"x" * 1_000_000 + b"\x07", "x" * screen_module.LONGEST_TITLE),
    ],
)
def test_title(stream: bytes, title: str) -> None:
    screen = Screen()
    screen.feed(stream)

    assert screen.title == title


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"\x1b[c", b"\x1b[?62;22c"),
        (b"\x1b[>c", b"\x1b[>1;10;0c"),
        (b"\x1b[5n", b"\x1b[0n"),
        (b"ab\r\nc\x1b[6n", b"\x1b[2;2R"),
        (b"\x1b[2;4r\x1b[?6h\x1b[2;3H\x1b[6n", b"\x1b[2;3R"),
        (b"\x1b[?6n", b"\x1b[?1;1R"),
        (b"\x1b[?25$p", b"\x1b[?25;1$y"),
        (b"\x1b[?2004$p", b"\x1b[?2004;2$y"),
        (b"\x1b[?1049h\x1b[?1049$p", b"\x1b[?1049;1$y"),
        (b"\x1b[?69$p", b"\x1b[?69;0$y"),
        (b"\x1b[4h\x1b[4$p", b"\x1b[4;1$y"),
        (b"\x1b[18t", b"\x1b[8;24;80t"),
        (b"\x1b[21t", b""),
        (b"\x1b]11;?\x07", b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
        (b"\x1b[c\x1b[5n", b"\x1b[?62;22c\x1b[0n"),
    ],
)
def test_answers(question: bytes, answer: bytes) -> None:
    assert Screen().feed(question) == answer


def test_answers_are_bounded() -> None:
    assert len(Screen().feed(b"\x1b[c" * 100_000)) <= MOST_ANSWERED


# --- framed ---


def test_framed_points_at_the_cursor_and_leaves_empty_rows_out() -> None:
    screen = Screen(6, 12)
    screen.feed("login: 漢\r\n  $ ".encode())

    assert screen.framed().splitlines() == [
        "┌─── 6×12 ───┐",
        "│login: 漢   │",
        "▶  $         ◀",
        "└────▲───────┘",
        " cursor in row 1, column 4; 4 empty rows left out",
    ]


def test_framed_says_when_the_cursor_is_hidden_and_the_screen_the_alternate_one() -> None:
    screen = Screen(1, 30)
    screen.feed(b"\x1b[?1049h\x1b[?25l")

    assert "alternate screen" in screen.framed()
    assert screen.framed().endswith("(hidden)")


# --- any bytes ---

SEQUENCES = st.builds(
    lambda marker, numbers, final: f"\x1b[{marker}{';'.join(numbers)}{final}".encode(),
    st.sampled_from(["", "", "", "?", ">", "!"]),
    st.lists(
        st.sampled_from(["", "0", "1", "2", "3", "5", "6", "7", "25", "38", "47", "1049", "999999999"]), max_size=4
    ),
    st.sampled_from([*"@ABCDEFGHIJKLMPSTXZ`abcdefghlmnrstu", "$p", "!p", " q"]),
)
STREAMS = st.lists(
    st.one_of(
        SEQUENCES,
        st.binary(max_size=8),
        st.text(alphabet="ab 漢é\u0301\u200d👩", max_size=8).map(str.encode),
        st.sampled_from([b"\r\n", b"\n", b"\b", b"\t", b"\x0e", b"\x0f", b"\x18", b"\x1b"]),
        st.sampled_from([b"\x1b7", b"\x1b8", b"\x1bM", b"\x1bD", b"\x1bE", b"\x1bH", b"\x1bc", b"\x1b#8", b"\x1b(0"]),
        st.sampled_from([b"\x1b]2;t\x07", b"\x1b]0;", b"\x1bP", b"\x1b\\", b"\x1b_", b"\x1b[?1049h", b"\x1b[4h"]),
    ),
    max_size=30,
).map(b"".join)


def check(screen: Screen) -> None:
    row, column, _ = screen.cursor
    assert 0 <= row < screen.rows
    assert 0 <= column < screen.columns
    assert len(screen.lines) == screen.rows
    for row in range(screen.rows):
        cells = [screen.cell(row, column).text for column in range(screen.columns)]
        widths = [2 if cell and wcwidth(cell[0]) == 2 else 1 for cell in cells if cell]
        assert sum(widths) == screen.columns
        assert all(
            cells[index - 1] and wcwidth(cells[index - 1][0]) == 2 for index, cell in enumerate(cells) if not cell
        )
    screen.framed()


def state(screen: Screen) -> object:
    cells = [screen.cell(row, column) for row in range(screen.rows) for column in range(screen.columns)]
    return cells, screen.cursor, screen.title, screen.alternate, screen.scrollback


@given(stream=STREAMS, rows=st.integers(1, 5), columns=st.integers(1, 9))
@settings(max_examples=300)
def test_any_bytes_leave_a_screen_in_order(stream: bytes, rows: int, columns: int) -> None:
    screen = Screen(rows, columns, scrollback=3)

    screen.feed(stream)

    check(screen)


@given(stream=STREAMS)
@settings(max_examples=150)
def test_where_a_stream_is_cut_makes_no_difference(stream: bytes) -> None:
    def fed(chunks: Iterator[bytes]) -> tuple[object, bytes]:
        screen = Screen(3, 6, scrollback=3)
        answers = b"".join([screen.feed(chunk) for chunk in chunks])
        return state(screen), answers

    whole = fed(iter([stream]))

    assert fed(stream[index : index + 1] for index in range(len(stream))) == whole
    for cut in range(1, len(stream)):
        assert fed(iter([stream[:cut], stream[cut:]])) == whole


@given(
    steps=st.lists(st.one_of(STREAMS, st.tuples(st.integers(1, 5), st.integers(1, 9))), max_size=6),
)
@settings(max_examples=150)
def test_any_resize_leaves_a_screen_in_order(steps: list[bytes | tuple[int, int]]) -> None:
    screen = Screen(3, 6, scrollback=3)

    for step in steps:
        if isinstance(step, bytes):
            screen.feed(step)
        else:
            screen.resize(*step)

        check(screen)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x1b]2;" + b"x" * 2_000_000, id="endless OSC"),
        pytest.param(b"\x1bP" + b"x" * 2_000_000, id="endless DCS"),
        pytest.param(b"\x1b[" + b"1;" * 1_000_000, id="endless CSI"),
        pytest.param(b"\x1b" + b" " * 2_000_000, id="endless intermediates"),
    ],
)
def test_endless_strings_are_not_kept(stream: bytes) -> None:
    screen = Screen()

    for start in range(0, len(stream), 65536):
        screen.feed(stream[start : start + 65536])

    assert len(screen._parser._collected) <= LONGEST_STRING + 1


@pytest.mark.parametrize("function", [*"@ABCDEFGHIJKLMPSTXZ`abdef"])
def test_giant_counts_cost_no_more_than_the_screen(function: str) -> None:
    screen = Screen()

    screen.feed(f"x\x1b[999999999;999999999{function}".encode() * 200)

    check(screen)


def test_a_copy_shows_the_same_and_stays_as_it_is() -> None:
    screen = Screen(3, 20, scrollback=2)
    screen.feed(b"one\r\ntwo\r\nthree\r\nfour\x1b]0;title\x07\x1b[?1049h\x1b[31mfull")
    copied = screen.copy()
    before = (copied.text, copied.scrollback, copied.title, copied.alternate, copied.cursor, copied.cell(2, 4))

    screen.feed(b"\x1b[H\x1b[2J\x1b[?1049lgone\r\n\r\n\r\n\x1b]0;other\x07\x1b[?2004h")

    assert (copied.text, copied.scrollback, copied.title, copied.alternate, copied.cursor, copied.cell(2, 4)) == before
    assert copied.alternate
    assert not copied.bracketed_paste


def test_a_copy_can_be_fed_by_itself() -> None:
    screen = Screen(2, 20)
    screen.feed(b"same")
    copied = screen.copy()
    copied.feed(b" and other")

    assert (screen.lines[0], copied.lines[0]) == ("same", "same and other")
