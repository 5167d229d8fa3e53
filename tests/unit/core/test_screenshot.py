from __future__ import annotations

import io
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pytest_sandbox.core.screen import Screen
from pytest_sandbox.core.screenshot import BACKGROUND, FOREGROUND, MARGIN, PALETTE, RGB, png, save, svg
from pytest_sandbox.errors import UsageError

SVG = "{http://www.w3.org/2000/svg}"
RECORDINGS = Path(__file__).parent / "recordings"
RED = PALETTE[1]


def screen_of(stream: str, rows: int = 2, columns: int = 10, *, cursor: bool = False) -> Screen:
    screen = Screen(rows, columns)
    screen.feed(stream.encode() + (b"" if cursor else b"\x1b[?25l"))
    return screen


def texts(screen: Screen) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg(screen)).iter(f"{SVG}text"))


def rectangles(screen: Screen) -> list[ElementTree.Element]:
    """Those behind cells, without the screen's own."""
    return list(ElementTree.fromstring(svg(screen)).iter(f"{SVG}rect"))[1:]


def pixels(screen: Screen, row: int, column: int, columns: int = 1) -> set[RGB]:
    """The colours of a cell in the PNG."""
    image = Image.open(io.BytesIO(png(screen))).convert("RGB")
    width = (image.width - 2 * MARGIN) // screen.columns
    height = (image.height - 2 * MARGIN) // screen.rows
    left, top = MARGIN + column * width, MARGIN + row * height
    cell = image.crop((left, top, left + columns * width, top + height))
    channels = cell.tobytes()
    return {(channels[i], channels[i + 1], channels[i + 2]) for i in range(0, len(channels), 3)}


def test_palette_is_xterms() -> None:
    assert len(PALETTE) == 256
    assert PALETTE[196] == (255, 0, 0)
    assert PALETTE[255] == (238, 238, 238)


# --- SVG ---


def test_svg_holds_the_text() -> None:
    screen = screen_of("one two\r\n größe")

    assert "".join(text.text or "" for text in texts(screen)).split() == ["one", "two", "größe"]


def test_svg_keeps_blanks_in_viewers_that_know_no_css() -> None:
    (group,) = ElementTree.fromstring(svg(screen_of("a  b"))).iter(f"{SVG}g")

    assert group.get("{http://www.w3.org/XML/1998/namespace}space") == "preserve"


def test_svg_gives_wide_characters_two_columns() -> None:
    narrow, wide, after = texts(screen_of("a漢b\x1b[K"))

    assert float(wide.attrib["textLength"]) == 2 * float(narrow.attrib["textLength"])
    assert float(after.attrib["x"]) == float(wide.attrib["x"]) + float(wide.attrib["textLength"])


@pytest.mark.parametrize(
    ("parameters", "name", "value"),
    [
        ("1", "font-weight", "bold"),
        ("3", "font-style", "italic"),
        ("4;9", "text-decoration", "underline line-through"),
        ("31", "fill", "#cd0000"),
        ("38;5;208", "fill", "#ff8700"),
        ("38;2;1;2;3", "fill", "#010203"),
        ("2;38;2;100;50;20", "fill", "#32190a"),
        ("8;41", "fill", "#cd0000"),
    ],
)
def test_svg_shows_styles(parameters: str, name: str, value: str) -> None:
    assert texts(screen_of(f"\x1b[{parameters}mstyled"))[0].attrib[name] == value


def test_svg_shows_backgrounds_reverse_and_the_cursor() -> None:
    assert [shape.attrib["fill"] for shape in rectangles(screen_of("\x1b[44ma\x1b[0m\x1b[7;31mb"))] == [
        "#0000ee",
        "#cd0000",
    ]
    assert [float(shape.attrib["x"]) for shape in rectangles(screen_of("", cursor=True))] == [MARGIN]
    assert rectangles(screen_of("")) == []


def test_svg_of_a_reversed_screen_is_dark_on_light() -> None:
    assert texts(screen_of("\x1b[?5ha"))[0].attrib["fill"] == "#000000"


def test_svg_escapes_what_programs_write() -> None:
    screen = screen_of("\x1b]2;</title><script>\x07</text><script>&\ufffe", columns=40)

    document = ElementTree.fromstring(svg(screen))

    assert {element.tag.removeprefix(SVG) for element in document.iter()} == {"svg", "title", "rect", "g", "text"}
    assert "".join(text.text or "" for text in document.iter(f"{SVG}text")).startswith("</text><script>&\ufffd")


@given(stream=st.one_of(st.text(max_size=80).map(str.encode), st.binary(max_size=80)))
def test_any_screen_is_a_well_formed_svg(stream: bytes) -> None:
    screen = Screen(3, 10)
    screen.feed(stream + b"\x1b]2;" + stream + b"\x07")

    ElementTree.fromstring(svg(screen))


# --- PNG ---


def test_png_draws_text_in_its_colour() -> None:
    screen = screen_of("\x1b[31mM")

    assert {RED, BACKGROUND} <= pixels(screen, 0, 0)
    assert pixels(screen, 0, 1) == {BACKGROUND}


def test_png_draws_text_after_blanks_as_anywhere_else() -> None:
    assert pixels(screen_of("  M"), 0, 2) == pixels(screen_of("M"), 0, 0)
    assert pixels(screen_of("  M"), 0, 0) == {BACKGROUND}


def test_png_draws_the_cursor_as_a_block() -> None:
    assert pixels(screen_of("", cursor=True), 0, 0) == {FOREGROUND}


@pytest.mark.parametrize("parameters", ["1", "3", "4", "9"])
def test_png_shows_styles(parameters: str) -> None:
    assert png(screen_of(f"\x1b[{parameters}mstyled")) != png(screen_of("styled"))


@pytest.mark.parametrize("character", ["漢", "👩"])
def test_png_draws_a_box_for_a_character_that_the_font_lacks(character: str) -> None:
    screen = screen_of(f"{character}a")

    assert pixels(screen, 0, 0, columns=2) == {FOREGROUND, BACKGROUND}
    assert png(screen) == png(screen_of("字a" if character == "漢" else "👨a"))


def test_png_has_box_drawing_characters() -> None:
    assert png(screen_of("─")) != png(screen_of("│"))


def test_png_of_a_recording_has_the_size_of_the_screen() -> None:
    screen = Screen()
    screen.feed((RECORDINGS / "vim.stream").read_bytes())

    image = Image.open(io.BytesIO(png(screen)))

    assert image.format == "PNG"
    assert (image.width - 2 * MARGIN) % 80 == (image.height - 2 * MARGIN) % 24 == 0


@pytest.mark.parametrize(("name", "beginning"), [("a.svg", b"<svg "), ("a.PNG", b"\x89PNG")])
def test_the_suffix_says_the_kind(name: str, beginning: bytes, tmp_path: Path) -> None:
    save(Screen(), tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(beginning)


@pytest.mark.parametrize("name", ["a.gif", "a"])
def test_other_kinds_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"an \.svg or a \.png"):
        save(Screen(), tmp_path / name)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["PIL", "fontpkg_jetbrains_mono"])
def test_png_says_what_to_install(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_sandbox.core import screenshot

    screenshot._fonts.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(UsageError, match=rf"{module}: `pip install pytest-sandbox\[screenshots\]`"):
        png(Screen())
