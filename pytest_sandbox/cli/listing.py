"""`pytest-sandbox ls`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .choice import Listed, listed

if TYPE_CHECKING:
    from ..engines.base import Engine

HEADINGS = ("NAME", "IMAGE", "AGE", "STATE", "FOR")
UNITS = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))  # the first of which there are two is taken


async def list_sandboxes(engine: Engine, arguments: argparse.Namespace) -> int:
    sandboxes = await listed(engine)
    if arguments.json:
        print(json.dumps([_as_json(each) for each in sandboxes], indent=2))
    elif not sandboxes:
        print("no sandboxes on the engine")
    else:
        print("\n".join(table([HEADINGS, *(_row(each) for each in sandboxes)])))
    return 0


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, each column as wide as it has to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def shown_age(seconds: float) -> str:
    """`40 s`, `90 min`, `26 h`, `3 days`."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 2 * size), UNITS[-1])
    return f"{max(0, int(seconds // size))} {unit}"


def _row(each: Listed) -> tuple[str, ...]:
    age = shown_age(time.time() - each.found.created)
    return each.found.name, each.found.image, age, each.standing.value, each.purpose


def _as_json(each: Listed) -> dict[str, object]:
    return {
        "name": each.found.name,
        "id": each.found.id,
        "image": each.found.image,
        "created": each.found.created,
        "running": each.found.running,
        "state": each.standing.value,
        "for": each.purpose,
    }
