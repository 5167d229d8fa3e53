"""A terminal's screen as a picture: SVG, whose text can be selected, and PNG.

An SVG needs nothing but a viewer, and is drawn in the viewer's monospaced font. A PNG takes the extra `screenshots`:
Pillow, and JetBrains Mono from its package on PyPI, so that it looks the same everywhere and needs no font on the
machine. What that font lacks (CJK, emoji) is drawn as an empty box of its width.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from ..errors import UsageError
from .screen import Screen
from .style import Color, Style

if TYPE_CHECKING:
    from PIL import Image, ImageFont

RGB = tuple[int, int, int]

FOREGROUND: RGB = (229, 229, 229)
BACKGROUND: RGB = (0, 0, 0)
_ANSI = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)),
    *((127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255)),
    (255, 255, 255),
)
_LEVELS = (0, 95, 135, 175, 215, 255)
PALETTE: tuple[RGB, ...] = (
    *_ANSI,
    *((red, green, blue) for red in _LEVELS for green in _LEVELS for blue in _LEVELS),
    *((level, level, level) for level in range(8, 248, 10)),
)
"""xterm's 256 colours."""

MARGIN = 8  # pixels around the screen


class _Look(NamedTuple):
    foreground: RGB
    background: RGB
    bold: bool
    italic: bool
    underline: bool
    strike: bool


class _Run(NamedTuple):
    """Neighbouring cells that look the same and hold ASCII, or one other character."""

    row: int
    column: int
    columns: int
    text: str
    look: _Look


def _rgb(color: Color, default: RGB) -> RGB:
    if color is None:
        return default
    return PALETTE[color] if isinstance(color, int) else color


def _look(style: Style, *, swapped: bool, cursor: bool) -> _Look:
    """What a cell looks like; swapped: on a reversed screen. The cursor is a block."""
    defaults = (BACKGROUND, FOREGROUND) if swapped else (FOREGROUND, BACKGROUND)
    foreground, background = _rgb(style.foreground, defaults[0]), _rgb(style.background, defaults[1])
    if style.dim:
        red, green, blue = ((front + back) // 2 for front, back in zip(foreground, background, strict=True))
        foreground = (red, green, blue)
    if style.reverse != cursor:
        foreground, background = background, foreground
    if style.conceal:
        foreground = background
    return _Look(foreground, background, style.bold, style.italic, style.underline, style.strike)


def _runs(screen: Screen) -> Iterator[_Run]:
    cursor = screen.cursor
    for row in range(screen.rows):
        cells = [screen.cell(row, column) for column in range(screen.columns)]
        parts: list[_Run] = []
        for column, cell in enumerate(cells):
            if cell.text:
                wide = column + 1 < screen.columns and not cells[column + 1].text
                marked = cursor.visible and cursor.row == row and cursor.column in range(column, column + 1 + wide)
                look = _look(cell.style, swapped=screen.reversed, cursor=marked)
                parts.append(_Run(row, column, 1 + wide, cell.text, look))
        # One that isn't ASCII may come from another font: on its own it can't move its neighbours.
        for _, group in groupby(parts, lambda run: (run.look, -1 if run.text.isascii() else run.column)):
            neighbours = list(group)
            text = "".join(run.text for run in neighbours)
            yield neighbours[0]._replace(columns=sum(run.columns for run in neighbours), text=text)


def save(screen: Screen, path: Path) -> None:
    """Write a picture of the kind that the suffix says. Raises UsageError for another one, or as png() does."""
    match path.suffix.lower():
        case ".svg":
            path.write_text(svg(screen), encoding="utf-8")
        case ".png":
            path.write_bytes(png(screen))
        case suffix:
            raise UsageError(f"a screenshot is an .svg or a .png, not {suffix or 'a file without suffix'}: {path}")


# --- SVG --------------------------------------------------------------------------------------------------------------

_SVG_FONT = 14
_SVG_CELL = (8.4, 18)  # most monospaced fonts are 0.6 em wide; textLength fits those that aren't
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def svg(screen: Screen) -> str:
    """Return the screen as an SVG document: no script, no link, nothing to load."""
    cell_width, cell_height = _SVG_CELL
    width, height = screen.columns * cell_width + 2 * MARGIN, screen.rows * cell_height + 2 * MARGIN
    default = _hex(FOREGROUND if screen.reversed else BACKGROUND)
    shapes = []
    for run in _runs(screen):
        x, y = MARGIN + run.column * cell_width, MARGIN + run.row * cell_height
        columns = run.columns * cell_width
        look = run.look
        if _hex(look.background) != default:
            shapes.append(
                f'<rect x="{x:g}" y="{y:g}" width="{columns:g}" height="{cell_height}" fill="{_hex(look.background)}"/>'
            )
        if not run.text.isspace() or look.underline or look.strike:
            decorations = " ".join(["underline"] * look.underline + ["line-through"] * look.strike)
            attributes = (
                (f' fill="{_hex(look.foreground)}"' if look.foreground != FOREGROUND else "")
                + ' font-weight="bold"' * look.bold
                + ' font-style="italic"' * look.italic
                + (f' text-decoration="{decorations}"' if decorations else "")
            )
            shapes.append(
                f'<text x="{x:g}" y="{y + 13:g}" textLength="{columns:g}" lengthAdjust="spacingAndGlyphs"{attributes}>'
                f"{_xml(run.text)}</text>"
            )
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    family = "'JetBrains Mono','DejaVu Sans Mono',Menlo,Consolas,monospace"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<title>{_xml(screen.title or 'terminal')}</title>",
        f'<rect width="100%" height="100%" rx="6" fill="{default}"/>',
        f'<g fill="{_hex(FOREGROUND)}" font-family="{family}" font-size="{_SVG_FONT}" xml:space="preserve">',
        *shapes,
        "</g>",
        "</svg>",
    ]
    return "".join(f"{line}\n" for line in lines)


def _hex(color: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


# --- PNG --------------------------------------------------------------------------------------------------------------

_PNG_FONT = 20  # pixels: the font's cells are then 12 wide, without a rest
_BOLD = 700


def png(screen: Screen) -> bytes:
    """Return the screen as a PNG file. Raises UsageError when Pillow or the font is missing."""
    try:
        from PIL import Image, ImageDraw

        fonts = _fonts()
    except ImportError as error:
        raise UsageError(
            f"a PNG takes {error.name}: `pip install pytest-sandbox[screenshots]`; an SVG takes nothing"
        ) from error
    ascent, descent = fonts[False, False].getmetrics()
    width, height = round(fonts[False, False].getlength("M")), ascent + descent
    size = (screen.columns * width + 2 * MARGIN, screen.rows * height + 2 * MARGIN)
    image: Image.Image = Image.new("RGB", size, FOREGROUND if screen.reversed else BACKGROUND)
    draw = ImageDraw.Draw(image)
    for run in _runs(screen):
        look = run.look
        left, top = MARGIN + run.column * width, MARGIN + run.row * height
        right, bottom = left + run.columns * width - 1, top + height - 1
        draw.rectangle((left, top, right, bottom), look.background)
        if _drawable(run.text[0]):
            draw.text((left, top), run.text, look.foreground, fonts[look.bold, look.italic])
        elif not run.text.isspace():
            draw.rectangle((left + 1, top + 4, right - 1, bottom - 4), outline=look.foreground)
        if look.underline:
            draw.line((left, top + ascent + 2, right, top + ascent + 2), look.foreground)
        if look.strike:
            draw.line((left, top + height // 2, right, top + height // 2), look.foreground)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@cache
def _fonts() -> dict[tuple[bool, bool], ImageFont.FreeTypeFont]:
    """The four faces, by bold and italic."""
    from PIL import ImageFont

    files = resources.files("fontpkg_jetbrains_mono") / "files"
    faces = {}
    for italic, name in ((False, "JetBrainsMono[wght].ttf"), (True, "JetBrainsMono-Italic[wght].ttf")):
        for bold in (False, True):
            # Basic layout: no ligatures, which would show `!=` as another character.
            file = io.BytesIO((files / name).read_bytes())
            font = ImageFont.truetype(file, _PNG_FONT, layout_engine=ImageFont.Layout.BASIC)
            font.set_variation_by_axes([_BOLD if bold else 400])
            faces[bold, italic] = font
    return faces


@cache
def _drawable(character: str) -> bool:
    """Whether the font has the character: it draws the same box for all that it lacks."""
    font = _fonts()[False, False]
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010ffff"))
