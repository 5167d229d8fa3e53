"""`pytest-sandbox rm`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..engines.kept import KeptNotes
from ..engines.runs import current_run
from .choice import Listed, NoSuchSandbox, Standing, chosen, listed

if TYPE_CHECKING:
    from ..engines.base import Engine


async def remove_sandboxes(engine: Engine, arguments: argparse.Namespace) -> int:
    """Remove those that were named, none if one of them can't be; with --all those that this user's runs have kept."""
    if bool(arguments.sandboxes) == arguments.all:
        print("pytest-sandbox rm: name sandboxes, or say --all", file=sys.stderr)
        return 2
    sandboxes = await listed(engine)
    if arguments.all:
        meant = [each for each in sandboxes if each.standing is Standing.KEPT and each.found.host == current_run().host]
        meant = [each for each in meant if arguments.force or not _is_in_use(each)]
    else:
        meant = [_removable(chosen(word, sandboxes), force=arguments.force) for word in arguments.sandboxes]
    for each in meant:
        await engine.remove(each.found.container)
        KeptNotes().forget(each.found.identity)
        print(f"removed {each.found.name}")
    if not meant:
        print("nothing to remove")
    return 0


def _removable(each: Listed, *, force: bool) -> Listed:
    """Return it. Raises NoSuchSandbox for one that somebody needs."""
    if force:
        return each
    if each.standing is not Standing.KEPT:
        raise NoSuchSandbox(f"{each.found.name} is {each.standing.value}, not kept; --force removes it all the same")
    if _is_in_use(each):
        raise NoSuchSandbox(f"somebody works in {each.found.name}; --force removes it all the same")
    return each


def _is_in_use(each: Listed) -> bool:
    if each.note is None:
        return False
    return KeptNotes().is_in_use(each.note.identity) or not current_run().is_dead(each.note.run)
