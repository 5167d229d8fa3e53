"""Which sandboxes this user's runs have kept although they were not made for that: noted beside the runs' locks.

A container's labels can't be changed. So what a failed test leaves carries the labels of its run, like any other, and
only the note says that no sweep is to take it, what it is kept for, and how to go on with it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..folders import PRIVATE_FILE, state_folder, writing
from .locks import is_held

logger = logging.getLogger(__name__)

_IDENTITY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class KeptNote:
    """A kept sandbox.

    engine: id of the engine. container, name, identity: of the container. run: by which it was kept. since: seconds
    since the epoch. note: what for, a test's node id mostly. state: of the session, as JSON, without secrets.
    """

    engine: str
    container: str
    name: str
    identity: str
    image: str
    run: str
    since: float
    note: str
    state: str


class KeptNotes:
    """The notes of this host, a file for each. All methods return at once."""

    def __init__(self) -> None:
        self._folder = state_folder("kept")

    def write(self, note: KeptNote) -> None:
        """Note a sandbox. The file is for this user only, and is there as a whole or not at all.

        Raises HostFolderUnusable.
        """
        unfinished = self._folder / f"{note.identity}.{secrets.token_hex(4)}"
        with writing(self._folder), ExitStack() as undo:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
            undo.callback(unfinished.unlink)
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(note), file)
            unfinished.rename(self._path(note.identity))
            undo.pop_all()

    def find(self, identity: str) -> KeptNote | None:
        """Return the note on the sandbox of that identity, None if there is none that can be read."""
        if not _IDENTITY.fullmatch(identity):  # it comes from a label that anybody may have written
            return None
        try:
            return KeptNote(**json.loads(self._path(identity).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            logger.warning("kept.note.damaged path=%s error=%s", self._path(identity), error)
            return None

    def all(self) -> list[KeptNote]:
        """Return what can be read, the oldest first."""
        found = [self.find(path.stem) for path in self._folder.glob("*.json")]
        return sorted((note for note in found if note is not None), key=lambda note: note.since)

    def forget(self, identity: str) -> None:
        """Drop the note on a sandbox that is gone, if there is one."""
        if _IDENTITY.fullmatch(identity):
            self._path(identity).unlink(missing_ok=True)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Let no other process of this host count them meanwhile, in order to add one: waits for it."""
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def in_use(self, identity: str) -> Iterator[None]:
        """Let it be known that somebody works in it."""
        descriptor = self._opened(identity)
        try:
            if descriptor is not None:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def is_in_use(self, identity: str) -> bool:
        """Say whether somebody does."""
        descriptor = self._opened(identity)
        return descriptor is not None and is_held(descriptor)

    def _opened(self, identity: str) -> int | None:
        try:
            return os.open(self._path(identity), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"
