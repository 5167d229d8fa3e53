"""What changed outside of the workspace, where nothing is restored: noticed by the agent, else asked of the engine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from ..agent.client import AgentFailure
from ..agent.wire import BodyReader, BodyWriter, Kind, from_wire
from ..models import ChangeKind, OutsideChanges, RootChange
from .session import SessionBase

logger = logging.getLogger(__name__)

# Mounted into every container, writable, and not restored. /dev/shm and SCRATCH are not among them: they are emptied.
ENGINE_MOUNTS = (b"/dev", b"/dev/mqueue", b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf")

TEMPORARY = ".sandbox-write-"  # how the agent begins the name of a file that it has not written to its end

NO_WATCH, UNCHANGED = 0, 1  # what SWEEP says of it; anything else: changed


class OutsideOperations(SessionBase):
    """watch_outside and look_outside: was anything changed that restoring the workspace does not undo?"""

    watched = False  # whether the agent watches
    _own: frozenset[RootChange] = frozenset()  # if not: what the engine listed already when the watch was to begin

    async def watch_outside(self) -> None:
        """Take what is outside for the container's own from now on.

        The agent watches every directory of the image. Where the kernel's limits on watches forbid that, it is the
        engine's list of changes that look_outside() goes by: half a second with a large image, and a path that was on
        the list already can change again unseen. So such a container should be fresh.
        """
        self.watched = self.in_container and await self._begin_watch()
        if not self.watched:
            self._own = frozenset(await self._engine.changes(self.container))

    async def look_outside(self) -> OutsideChanges:
        """Kill every process; say what has changed since watch_outside(), but for what the settings tolerate."""
        swept = await self._sweep()
        swept.u32()
        noticed = swept.u8()
        if noticed == UNCHANGED:
            return OutsideChanges()
        if noticed == NO_WATCH:
            found = OutsideChanges(_leaves(frozenset(await self._engine.changes(self.container)) - self._own))
        else:
            found = await self._noticed()
        return _beyond(found, self.settings.tolerated)

    async def _begin_watch(self) -> bool:
        body = BodyWriter().str(b"/").u32(len(ENGINE_MOUNTS))
        for path in ENGINE_MOUNTS:
            body.str(path)
        try:
            async with self.channel(Kind.WATCH, body.bytes()) as channel:
                await channel.result()
        except AgentFailure as failure:
            # A limit, or a file system without the call: what watches spare us is time, and nothing else.
            logger.debug("sandbox.unwatched name=%s reason=%s", self.name, failure)
            return False
        return True

    async def _noticed(self) -> OutsideChanges:
        async with self.channel(Kind.CHANGED, b"") as channel:
            result = BodyReader(await channel.result())
        complete = bool(result.u8())
        paths = [PurePosixPath(from_wire(result.str())) for _ in range(result.u32())]
        result.done()
        # What a write was called before it took its name says nothing to anybody, if that name is there too.
        named = [path for path in paths if not path.name.startswith(TEMPORARY)]
        return OutsideChanges(tuple(named or paths), complete)


def _leaves(changes: Iterable[RootChange]) -> tuple[PurePosixPath, ...]:
    """The paths, without directories that are listed only because something in them was changed."""
    ordered = sorted(changes, key=lambda change: change.path)
    above = {parent for change in ordered for parent in change.path.parents}
    return tuple(c.path for c in ordered if c.kind is not ChangeKind.MODIFIED or c.path not in above)


def _beyond(changes: OutsideChanges, tolerated: Sequence[str]) -> OutsideChanges:
    """The changes without those that match a pattern, by any name in their path or, with a slash, from the root."""
    kept = tuple(path for path in changes.paths if not any(_matches(path, pattern) for pattern in tolerated))
    return OutsideChanges(kept, changes.complete)


def _matches(path: PurePosixPath, pattern: str) -> bool:
    if "/" not in pattern:
        return any(fnmatchcase(name, pattern) for name in path.parts[1:])
    return any(fnmatchcase(str(each), pattern) for each in (path, *path.parents))
