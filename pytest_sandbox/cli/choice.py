"""What a sandbox on the engine is to this user, and which one is meant by a word of the command line."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engines.kept import KeptNote, KeptNotes
from ..engines.runs import current_run

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..models import FoundSandbox

PREFIX = "pytest-sandbox-"


class Standing(enum.Enum):
    """KEPT: nobody's run depends on it, and it stays. USED: of a run that goes on. LEFT: of one that has ended, to be
    swept. FOREIGN: of another user's run, or another machine's, of which nothing is known here.
    """

    KEPT = "kept"
    USED = "in use"
    LEFT = "left behind"
    FOREIGN = "another user's"


@dataclass(frozen=True)
class Listed:
    """A sandbox on the engine, and what is known of it here. note: of one that was kept after it was created."""

    found: FoundSandbox
    standing: Standing
    note: KeptNote | None

    @property
    def purpose(self) -> str:
        """What it is for, as far as it is known."""
        if self.note is not None:
            return self.note.note
        if self.standing is Standing.USED:
            return current_run().maker_of(self.found.run)
        return "created with keep=True" if self.found.kept else ""


class NoSuchSandbox(Exception):
    """A word of the command line names no sandbox, or several."""


async def listed(engine: Engine) -> list[Listed]:
    """Return all sandboxes on the engine, the oldest first. Notes on what is gone are dropped."""
    found = await engine.sandboxes()
    _forget_gone((await engine.describe()).id, {each.identity for each in found})
    return [_listed(each) for each in sorted(found, key=lambda each: each.created)]


def chosen(word: str, sandboxes: Sequence[Listed]) -> Listed:
    """Return the one whose name or id is the word, or begins with it. Raises NoSuchSandbox."""
    for matches in (_is_called, _begins_with):
        meant = [each for each in sandboxes if matches(each, word)]
        if len(meant) == 1:
            return meant[0]
        if meant:
            names = ", ".join(each.found.name for each in meant)
            raise NoSuchSandbox(f"{word!r} is the beginning of several: {names}")
    kept = [each.found.name for each in sandboxes if each.standing is Standing.KEPT]
    there = f"those kept are: {', '.join(kept)}" if kept else "none is kept; `pytest --sandbox-keep=failed` keeps some"
    raise NoSuchSandbox(f"no sandbox {word!r} on the engine; {there}")


def _is_called(listed: Listed, word: str) -> bool:
    return word in (listed.found.id, listed.found.name, listed.found.name.removeprefix(PREFIX))


def _begins_with(listed: Listed, word: str) -> bool:
    names = (listed.found.id, listed.found.name, listed.found.name.removeprefix(PREFIX))
    return bool(word) and any(name.startswith(word) for name in names)


def _listed(found: FoundSandbox) -> Listed:
    run = current_run()
    note = KeptNotes().find(found.identity)
    if note is not None or found.kept:
        return Listed(found, Standing.KEPT, note)
    if found.host != run.host:
        return Listed(found, Standing.FOREIGN, None)
    return Listed(found, Standing.LEFT if run.is_dead(found.run) else Standing.USED, None)


def _forget_gone(engine: str, there: set[str]) -> None:
    notes = KeptNotes()
    for note in notes.all():
        # One that is being kept at this moment has its note before its container is asked to stay.
        if note.engine == engine and note.identity not in there and current_run().is_dead(note.run):
            notes.forget(note.identity)
