"""`pytest-sandbox prune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.store import DAY, Store, default_folder
from ..keeping import IMAGE_LABEL, is_unused
from ..models import shown_size
from .choice import Standing, listed

if TYPE_CHECKING:
    from ..engines.base import Engine


async def prune(engine: Engine, arguments: argparse.Namespace) -> int:
    """Remove what nobody needs, on the engine and in the store, and say what it was. Kept sandboxes stay."""
    remove, unused = not arguments.dry_run, arguments.days * DAY
    store = Store(chosen_store(arguments), print, unused_limit=unused)
    lines = await engine.leftovers(unused, remove=remove)
    for image in await engine.images(IMAGE_LABEL):
        if is_unused(image, store):
            lines.append(f"image {image.id}, of a baseline that is not used any more")
            if remove:
                await engine.remove_image(image.id)
    if pruned := store.prune(remove=remove):
        lines.append(f"{shown_size(pruned)} of archives in the store")
    for line in lines:
        print(f"{'removed' if remove else 'would remove'} {line}")
    if not lines:
        print("nothing to remove")
    if kept := [each for each in await listed(engine) if each.standing is Standing.KEPT]:
        print(f"kept sandboxes: {len(kept)}; `pytest-sandbox ls` lists them, `pytest-sandbox rm` removes them")
    return 0


def chosen_store(arguments: argparse.Namespace) -> Path:
    return Path(arguments.store).expanduser() if arguments.store else default_folder()
