"""How a cell of a terminal looks, and SGR, the control sequence that says so."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from .sequences import number

Color: TypeAlias = int | tuple[int, int, int] | None
"""An index into xterm's 256 colours, red/green/blue of 0-255 each, or None for the terminal's own."""


class Style(NamedTuple):
    """How a cell looks."""

    foreground: Color = None
    background: Color = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    blink: bool = False
    reverse: bool = False
    conceal: bool = False
    strike: bool = False


PLAIN = Style()
_ATTRIBUTES: dict[int, dict[str, bool]] = {
    1: {"bold": True},
    2: {"dim": True},
    3: {"italic": True},
    4: {"underline": True},
    5: {"blink": True},
    6: {"blink": True},
    7: {"reverse": True},
    8: {"conceal": True},
    9: {"strike": True},
    21: {"underline": True},
    22: {"bold": False, "dim": False},
    23: {"italic": False},
    24: {"underline": False},
    25: {"blink": False},
    27: {"reverse": False},
    28: {"conceal": False},
    29: {"strike": False},
}
_UNDERLINE_COLOR = 58  # read past, not kept


@lru_cache(maxsize=4096)
def restyled(style: Style, parameters: str) -> Style:
    """Return the style after CSI parameters `m`. Unknown parameters change nothing."""
    fields = iter(parameters.split(";"))
    for field in fields:
        code, *sub = (number(part) for part in field.split(":"))
        if code == 0:
            style = PLAIN
        elif code == 4 and sub:
            style = style._replace(underline=sub[0] != 0)
        elif code in _ATTRIBUTES:
            style = style._replace(**_ATTRIBUTES[code])
        elif code in (38, 48, _UNDERLINE_COLOR):
            color = _color(sub[:1] + sub[1:][-3:]) if sub else _color(number(field) for field in fields)
            if color is None or code == _UNDERLINE_COLOR:
                continue
            style = style._replace(foreground=color) if code == 38 else style._replace(background=color)
        elif 30 <= code <= 39:
            style = style._replace(foreground=None if code == 39 else code - 30)
        elif 40 <= code <= 49:
            style = style._replace(background=None if code == 49 else code - 40)
        elif 90 <= code <= 97:
            style = style._replace(foreground=code - 82)
        elif 100 <= code <= 107:
            style = style._replace(background=code - 92)
    return style


def _color(numbers: Iterable[int]) -> Color:
    """Read `5;index` or `2;red;green;blue`, also what is left of `2:colour space:red:green:blue`."""
    numbers = iter(numbers)
    match next(numbers, None):
        case 5:
            index = next(numbers, 256)
            return index if index < 256 else None
        case 2:
            rgb = (next(numbers, 256), next(numbers, 256), next(numbers, 256))
            return rgb if max(rgb) < 256 else None
    return None
